"""What the admin server adds to work of reading mirrors: the releases that are meant, and who reads."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2pdist.core.mirrored import choose, is_pattern
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.server.api.context import Api
from p2pdist.server.readers import readers_among
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.work import AnyWork


def prepare(api: Api, work: AnyWork, nodes: Sequence[NodeId], meant: Sequence[str], now: int) -> AnyWork:
    """Complete a piece of work as an operator writes it; what reads no mirrors stays as it is.

    Args:
        api: What is signed, and who may dial.
        work: As it came.
        nodes: Who is to do it now.
        meant: Of whom the operator has spoken: nodes' ids and groups' paths.
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
    readers = readers_among(nodes, server=api.tasks.node, grants=api.grants, now=now)
    return msgspec.structs.replace(work, targets=targets, readers=readers, meant=list(meant))
