"""Which distribution points serve a group.

A grant's scope is a group with all its subgroups. A group is served by the points of its nearest
ancestor (itself included) that has any with a valid grant; several are alternatives. The point itself
may stand in any group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from p2pdist.ids import GroupPath, NodeId
from p2pdist.trust.catalog import Duty, SeedGrant


def ancestors(group: GroupPath) -> Iterator[GroupPath]:
    """Yield *group*, its parent, and so on up to the root ``/``."""
    path = str(group)
    while path != "/":
        yield GroupPath(path)
        path = path.rpartition("/")[0] or "/"
    yield GroupPath("/")


def covers(scope: GroupPath, group: GroupPath) -> bool:
    """Whether *group* is *scope* or lies below it."""
    return scope == "/" or group == scope or group.startswith(scope + "/")


def grant_valid(grant: SeedGrant | None, duty: Duty, now: int) -> bool:
    """Whether *grant* allows *duty* at Unix time *now*."""
    return grant is not None and duty in grant.duties and now < grant.expires


def are_alternatives(one: SeedGrant | None, other: SeedGrant | None) -> bool:
    """Whether two valid grants are for the same scope: their points stand in for each other in one site."""
    return one is not None and other is not None and one.scope == other.scope


def points_for(
    group: GroupPath, grants: Iterable[SeedGrant], now: int, duty: Duty = "seed"
) -> tuple[SeedGrant, ...]:
    """Return the valid grants of the nearest ancestor of *group* that has any, ordered by node id."""
    valid = [grant for grant in grants if grant_valid(grant, duty, now) and covers(grant.scope, group)]
    for ancestor in ancestors(group):
        nearest = [grant for grant in valid if grant.scope == ancestor]
        if nearest:
            return tuple(sorted(nearest, key=lambda grant: grant.node))
    return ()


def gateways_above(own: SeedGrant | None, grants: Iterable[SeedGrant], now: int) -> tuple[SeedGrant, ...]:
    """Return the gateways through which a gateway reaches the admin server: those of the next larger scope.

    Scopes that grow on each step cannot make a circle. Without a grant as a gateway there are none.
    """
    if own is None or not grant_valid(own, "gateway", now) or own.scope == "/":
        return ()
    wider = (grant for grant in grants if grant.scope != own.scope and grant.node != own.node)
    return points_for(own.scope, wider, now, "gateway")


def is_nearest(scope: GroupPath, group: GroupPath, scopes: Iterable[GroupPath]) -> bool:
    """Whether points with *scope* serve *group* where there are points with *scopes*, too."""
    if not covers(scope, group):
        return False
    return not any(other != scope and covers(scope, other) and covers(other, group) for other in scopes)


def preferred_points(device: NodeId, points: Iterable[SeedGrant]) -> tuple[SeedGrant, ...]:
    """Order alternative points for one device, so that devices spread evenly and each has its own order.

    Rendezvous hashing: when a point goes away, only its own devices move.
    """
    return tuple(sorted(points, key=lambda grant: affinity(device, grant.node)))


def affinity(one: NodeId, other: NodeId) -> bytes:
    """A number, as bytes, that orders *other* nodes for *one*: evenly spread and always the same."""
    return hashlib.blake2b(f"{one} {other}".encode(), digest_size=8).digest()
