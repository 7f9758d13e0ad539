"""The kinds of work: which duty each needs, and what does it.

To add one: its structure in :data:`p2pdist.wire.work.AnyWork`, and a case in each function here; only
:func:`perform` imports what does it. That is ``async def(work, port) -> Ended``: it says how far it is
through its :class:`~p2pdist.duties.run.RunPort`, raises the project's errors for what ends it, may be
cancelled at any checkpoint and leaves nothing behind then, and may be begun again after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import msgspec

from p2pdist.core.hostkeys import fingerprint
from p2pdist.core.listings import check_directory
from p2pdist.core.polling import addresses_to_ask
from p2pdist.duties.repository import Repository
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import UsageError
from p2pdist.node.directorysettings import DirectorySettings
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.trust.catalog import Duty
from p2pdist.trust.requirements import check_mirror
from p2pdist.wire.following import AptSource, DirectorySource, Follow
from p2pdist.wire.installing import Install, InstallSecrets
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.polling import Poll, PollSecrets
from p2pdist.wire.work import AnyWork


def duty_of(work: AnyWork) -> Duty:
    """Return the duty that a node needs for *work*."""
    match work:
        case Poll():
            return "discovery"
        case ReadMirrors() | Follow():
            return "seed"
        case Install():
            return "deploy"
        case _:
            assert_never(work)


def secrets_of(work: AnyWork) -> type[msgspec.Struct] | None:
    """Return what *work* needs that is secret, all of it at once; None if it needs nothing."""
    match work:
        case Poll(directory=directory):
            return PollSecrets if directory is not None and directory.user else None
        case ReadMirrors() | Follow():
            return None
        case Install():
            return InstallSecrets
        case _:
            assert_never(work)


def check_work(work: AnyWork) -> None:
    """Check what the types of *work* do not say, before anybody is given it.

    Raises:
        UsageError: nobody can do that.
    """
    match work:
        case Poll():
            addresses_to_ask(work.ranges, work.excluded)
            if not work.ranges and set(work.methods) <= {"echo", "connect", "reverse", "netbios"}:
                raise UsageError(
                    f"a poll by {work.methods[0]} needs ranges", hint="name one, such as 10.1.0.0/24"
                )
            if ("directory" in work.methods) != (work.directory is not None):
                raise UsageError("a poll of a directory needs one, and nothing else does", hint="--ldap URL")
        case ReadMirrors():
            pass  # what is signed, and who reads, the admin server looks up
        case Install():
            places = {(host.address, host.port) for host in work.hosts}
            if min(len({host.id for host in work.hosts}), len(places)) < len(work.hosts):
                raise UsageError("a host is named twice", hint="name each once")
            if pinned := [host.id for host in work.hosts if host.key and not fingerprint(host.key)]:
                raise UsageError(f"the key that {pinned[0]} is to show is none")
        case Follow():
            _check_source(work)
        case _:
            assert_never(work)


async def perform(
    work: AnyWork,
    port: RunPort,
    *,
    repository: Repository | None = None,
    directories: Sequence[DirectorySettings] = (),
) -> Ended:
    """Do *work*; raises P2PDistError when it cannot be done.

    Args:
        work: What is to be done.
        port: The run's way to say how far it is.
        repository: The node's content; without it there is no work about content.
        directories: The node's own users of directory services.
    """
    match work:
        case Poll():
            from p2pdist.duties.discovery.polling import poll

            return await poll(work, port, directories)
        case ReadMirrors():
            from p2pdist.duties.mirrors.task import read_mirrors

            if repository is None:
                raise UsageError("this node keeps no content")
            return await read_mirrors(work, port, repository)
        case Install():
            from p2pdist.duties.deploy.task import install_agents

            if repository is None:
                raise UsageError("this node keeps no content")
            return await install_agents(work, port, repository)
        case Follow():
            from p2pdist.duties.follow.following import follow

            if repository is not None and not repository.dials:
                raise UsageError("this node dials nobody, and so no vendor", hint="choose another: --via")
            return await follow(work, port, repository.settings if repository else MirrorSettings())
        case _:
            assert_never(work)


def _check_source(work: Follow) -> None:
    source = work.source
    check_mirror(source.url, plain=True)
    match source:
        case AptSource():
            if ".." in source.suite or (not source.components and not source.suite.endswith("/")):
                raise UsageError(
                    f"the suite {source.suite} has no components",
                    hint="name some, such as main; or end it in /",
                )
            if not work.keys:
                raise UsageError("an apt repository needs the key that signs it", hint="--key FILE")
        case DirectorySource():
            check_directory(source, signed=bool(work.keys))
        case _:
            assert_never(source)
