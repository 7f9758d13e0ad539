"""One run of following: reads what is on offer, and says it."""

from __future__ import annotations

import time
from functools import partial
from typing import assert_never

import trio

from p2pdist.duties.follow.apt import read_apt
from p2pdist.duties.follow.directory import read_directory
from p2pdist.duties.follow.openpgp import Keyring
from p2pdist.duties.follow.reading import Found
from p2pdist.duties.mirrors.http import MirrorClient, open_client
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import UsageError
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.wire.following import AptSource, DirectorySource, Follow
from p2pdist.wire.tasks import TaskItem


async def follow(work: Follow, port: RunPort, settings: MirrorSettings) -> Ended:
    """Read the repository that *work* names, and say what is on offer there.

    Args:
        work: What is followed.
        port: The run's way to say how far it is.
        settings: The way to vendors' servers.

    Raises:
        P2PDistError: it cannot be read, or is not to be believed; then nothing is said to be on offer.
    """
    keyring = None
    if work.keys:
        keyring = await trio.to_thread.run_sync(partial(Keyring, work.keys, now=int(time.time())))
    async with open_client(settings) as client:
        found = await _read(work, keyring, client, port)
    for offer in found.offers:
        name = " ".join(filter(None, (offer.product, offer.version, offer.architecture)))
        await port.item(
            TaskItem(
                subject=name,
                state="done",
                step="on offer",
                detail=offer.url[:500],
                size_bytes=offer.size_bytes,
            )
        )
    for name, reason in found.left_out.items():
        await port.item(TaskItem(subject=name or "?", state="skipped", detail=reason[:500]))
    await port.found_offers(found.offers, found.date)
    figures = {"offered": len(found.offers)}
    if found.left_out:
        figures["left-out"] = len(found.left_out)
    if not found.offers:
        return Ended(outcome="failed", reason="nothing that is wanted is on offer there", figures=figures)
    if found.left_out:
        return Ended(outcome="partly", reason="some packages cannot be offered", figures=figures)
    return Ended(figures=figures)


async def _read(work: Follow, keyring: Keyring | None, client: MirrorClient, port: RunPort) -> Found:
    match work.source:
        case AptSource() as source:
            if keyring is None:
                raise UsageError("an apt repository needs the key that signs it")
            return await read_apt(source, keyring, client, port, seen=work.seen)
        case DirectorySource() as source:
            return await read_directory(source, keyring, client, port, seen=work.seen)
        case _:
            assert_never(work.source)
