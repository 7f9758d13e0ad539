"""What a node does about its assignments: which runs it begins, which it ends, and when it may. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from p2pdist.core.scope import grant_valid
from p2pdist.ids import NodeId
from p2pdist.trust.catalog import Duty, SeedGrant
from p2pdist.trust.contents import ONLINE_ROLES
from p2pdist.wire.tasks import Assignment


class Decision(NamedTuple):
    """What is to change: runs to begin, and the tasks whose present runs are to end."""

    begin: tuple[Assignment, ...]
    cancel: frozenset[str]


def decide(
    assignments: Iterable[Assignment], *, running: Mapping[str, int], ended: Mapping[str, int]
) -> Decision:
    """Compare what is assigned with what is done. A task has one run at a time: the next waits for its end.

    Args:
        assignments: Everything that is assigned now.
        running: The run that is under way, by task.
        ended: The newest run that has ended here, by task.
    """
    newest: dict[str, Assignment] = {}
    for assignment in assignments:
        known = newest.get(assignment.task)
        if known is None or known.run < assignment.run:
            newest[assignment.task] = assignment
    cancel = {task for task, run in running.items() if task not in newest or newest[task].run != run}
    begin = [
        assignment
        for task, assignment in newest.items()
        if task not in running and assignment.run > ended.get(task, 0)
    ]
    return Decision(tuple(begin), frozenset(cancel))


def why_not(grant: SeedGrant | None, duty: Duty, now: int) -> str:
    """Say why a node must not do what *duty* is for, by its grant at Unix time *now*; empty when it may."""
    if grant_valid(grant, duty, now):
        return ""
    if grant is None:
        return f"this node has no grant: the duty {duty} is missing"
    if grant.expires <= now:
        return f"the grant of this node has expired: the duty {duty} is missing"
    return f"the grant of this node has the duties {', '.join(grant.duties)}, and not {duty}"


def signed_by_people(versions: Mapping[str, int]) -> dict[str, int]:
    """Return the versions of those roles that the admin server does not sign anew by itself."""
    return {role: version for role, version in versions.items() if role not in ONLINE_ROLES}


def is_news(published: Mapping[str, int], seen: Mapping[str, int] | None) -> bool:
    """Whether a role of what is published is newer than what was *seen* of it.

    One that is not there any more is no news: it may have expired.
    """
    known = seen or {}
    return any(version > known.get(role, 0) for role, version in published.items())


def starts_at(begin: int, spread_s: int, *, task: str, node: NodeId) -> int:
    """Return when *node* begins a run that the nodes of a task begin within *spread_s* seconds from *begin*.

    Each has a moment of its own, always the same one, so that not all of them begin at once.
    """
    digest = hashlib.blake2b(f"{task} {node}".encode(), digest_size=8).digest()
    return begin + int.from_bytes(digest, "big") * spread_s // 2**64
