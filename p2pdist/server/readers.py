"""Who does a task of reading mirrors, and who of them reads: found out anew when a run begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from p2pdist import limits
from p2pdist.core.dialling import dials
from p2pdist.core.scope import covers, grant_valid, points_for
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, NodeId, parse_group
from p2pdist.store.tasks import Given
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.work import AnyWork, encode_work

Grants = Mapping[NodeId, SeedGrant]


def points_meant(group: GroupPath, grants: Grants, now: int) -> list[NodeId]:
    """Return the distribution points for which a group stands: those in it, else the nearest that serve it.

    Raises:
        UsageError: there are none.
    """
    valid = [grant for grant in grants.values() if grant_valid(grant, "seed", now)]
    below = [grant.node for grant in valid if covers(group, grant.scope)]
    found = below or [grant.node for grant in points_for(group, valid, now)]
    if not found:
        raise UsageError(f"no distribution point serves {group}", hint="p2pdist point list shows them")
    return sorted(found)


def readers_among(nodes: Iterable[NodeId], *, server: NodeId, grants: Grants, now: int) -> list[NodeId]:
    """Return which of *nodes* may read a mirror: the admin server, and points that dial.

    Raises:
        UsageError: none of them may.
    """

    def reads(node: NodeId) -> bool:
        grant = grants.get(node)
        return node == server or (grant_valid(grant, "seed", now) and dials(grant))

    readers = sorted(filter(reads, nodes))
    if not readers:
        raise UsageError(
            "none of these nodes may read a mirror: no distribution point that dials is among them",
            hint="p2pdist point list shows them; 'server' is the admin server itself",
        )
    return readers


def given_now(
    work: AnyWork, nodes: Iterable[NodeId], *, server: NodeId, grants: Grants, now: int
) -> Given | None:
    """Return what the next run of a task is about and who does it; None: as the task has it.

    Args:
        work: The task's.
        nodes: Who does it so far: those of work that does not know of whom its operator has spoken.
        server: The admin server.
        grants: Every grant.
        now: Unix seconds.

    Raises:
        UsageError: a group has no points now, none of the nodes may read, or they are too many.
    """
    if not isinstance(work, ReadMirrors):
        return None
    found = [
        each
        for text in work.meant or nodes
        for each in (points_meant(parse_group(text), grants, now) if text[0] == "/" else [NodeId(text)])
    ]
    chosen = tuple(dict.fromkeys(found))
    if len(chosen) > limits.TASK_NODES_MAX:
        raise UsageError(
            f"these are {len(chosen)} nodes", hint=f"a task is for {limits.TASK_NODES_MAX} at most"
        )
    readers = readers_among(chosen, server=server, grants=grants, now=now)
    return Given(encode_work(msgspec.structs.replace(work, readers=readers)), chosen)
