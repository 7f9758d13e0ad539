"""What the admin server adds to work of reading mirrors: the releases that are meant, and who reads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2pdist.core.dialling import dials
from p2pdist.core.mirrored import choose, is_pattern
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.server.api.context import Api
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.work import AnyWork


def prepare(api: Api, work: AnyWork, nodes: Sequence[NodeId], now: int) -> AnyWork:
    """Complete a piece of work as an operator writes it; what reads no mirrors stays as it is.

    Args:
        api: What is signed, and who may dial.
        work: As it came.
        nodes: Who is to do it.
        now: Unix seconds.

    Raises:
        UsageError: a release is not signed or has no mirrors, or none of the nodes may dial a mirror.
    """
    if not isinstance(work, ReadMirrors):
        return work
    targets = [each if is_pattern(each) else api.resolve_release(each).target for each in work.targets]
    for release in choose(targets, api.releases).releases:
        if not release.mirrors:
            raise UsageError(
                f"{release.target} names no mirrors", hint="p2pdist-sign add --mirror names them"
            )
    readers = sorted(
        n for n in nodes if n == api.tasks.node or (api.is_point(n, now) and dials(api.grants[n]))
    )
    if not readers:
        raise UsageError(
            "none of these nodes may read a mirror: no distribution point that dials is among them",
            hint="p2pdist point list shows them; 'server' is the admin server itself",
        )
    return msgspec.structs.replace(work, targets=targets, readers=readers)
