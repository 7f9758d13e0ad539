"""Every candidate source of one release for one node, with the decision on each, its reason and its bytes.

A tracker decides among the members of the swarm that it knows (:mod:`p2pdist.core.sources`), and the
node reports that. Who asks why a device fetches from where it does wants to hear of the others as well:
of the origin, which no device of a site with a point is told of, of the points of its own scope and of
other scopes, and of those that were sources before. The same rules judge them here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from p2pdist.core.places import Place
from p2pdist.core.scope import covers, grant_valid, points_for, preferred_points
from p2pdist.core.sources import DIRECT, MIRRORED, verdict
from p2pdist.ids import GroupPath, NodeId
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Candidate, Path
from p2pdist.wire.messages import SourceBytes, Stage

SourceRole = Literal["origin", "point", "device", "mirror"]

_RANKS: dict[str, int] = {"origin": 0, "point": 1, "mirror": 2, "device": 3}


class KnownPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution point: its signed grant, and whether the admin server can reach it now."""

    grant: SeedGrant
    online: bool


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about one node and one release.

    ``reported`` is its tracker's decision with its own judgement, as it last said; None if it has said
    nothing yet. ``counted`` are the bytes between it and others. ``mirrored`` releases come from vendors'
    mirrors, and not from the origin.
    """

    receiver: Place
    group: GroupPath
    origin: NodeId
    points: Sequence[KnownPoint]
    reported: Sequence[Candidate] | None
    counted: Sequence[SourceBytes]
    mirrored: bool = False


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One source. ``address`` is empty when the node was not told of it as a candidate.

    ``path`` is how it is reached, ``relayed`` for a gateway that passes on what others have; empty where
    nothing came or went and it is no source now.
    """

    node: NodeId
    role: SourceRole
    address: str
    taken: bool
    reason: str
    path: Path | Literal[""] = ""
    received: int = 0
    sent: int = 0


def explain_sources(asked: Asked, *, name_of: Callable[[NodeId], str], now: int) -> tuple[Explained, ...]:
    """Put everything together: the taken sources first, by their bytes.

    Args:
        asked: What is known.
        name_of: What people call a node.
        now: Unix seconds; grants are valid or not at this time.

    Returns:
        One entry for each candidate that was reported, for the origin, for each point, and for every
        other node that bytes were exchanged with. Never the receiver itself.
    """
    found: dict[NodeId, Explained] = {}
    counted = {source.node for source in asked.counted}
    for candidate in asked.reported or ():
        found[NodeId(candidate.node)] = Explained(
            node=NodeId(candidate.node),
            role=candidate.role,
            address=f"{candidate.host}:{candidate.port}",
            taken=candidate.taken,
            reason=candidate.reason,
            path=candidate.path if candidate.taken or candidate.node in counted else "",
        )
    before = {source.node for source in asked.counted if source.received}
    found.setdefault(asked.origin, _origin(asked, before))
    for point in asked.points:
        found.setdefault(point.grant.node, _point(asked, point, before, name_of, now))
    for source in asked.counted:
        known = found.get(NodeId(source.node)) or _unlisted(asked, source)
        found[known.node] = msgspec.structs.replace(
            known, received=source.received, sent=source.sent, path=known.path or "direct"
        )
    found.pop(asked.receiver.node, None)
    return tuple(sorted(found.values(), key=_order))


def presumed_site(
    node: NodeId, group: GroupPath, grants: Sequence[SeedGrant], *, carrier: str, direct: bool, now: int
) -> str:
    """Say which site a node belongs to, as far as the admin server can know.

    Args:
        node: The node.
        group: Its administration group.
        grants: Every signed grant.
        carrier: The point that carries it, or did when it was last heard of; empty for none.
        direct: Whether it has a link of its own to the admin server now.
        now: Unix seconds.
    """
    if any(grant.node == node and grant_valid(grant, "seed", now) for grant in grants):
        return node
    if carrier:
        return carrier
    points = preferred_points(node, points_for(group, grants, now))
    return points[0].node if points and not direct else DIRECT


def stage_of(said: Stage | None, *, stopped: bool, point: bool, held: int, length: int) -> str:
    """Say how far a release is on a node: a stage, ``not begun``, ``stopped`` or ``held``.

    Args:
        said: What the node said of its deployment; None if it said nothing.
        stopped: Whether that deployment was stopped.
        point: Whether the node is a distribution point, which also holds what it does not install.
        held: Verified bytes of the artifact on its disk.
        length: The artifact's bytes.
    """
    if said is not None:
        return stage_shown(said, stopped=stopped)
    if point and held:
        return "held" if held >= length else "fetching"
    return "not begun"


def stage_shown(said: str, *, stopped: bool) -> str:
    """Say what a device's word on a deployment means now: one that has not begun leaves a stopped one."""
    return "stopped" if stopped and said in ("waiting", "fetching", "verifying") else said


def _origin(asked: Asked, before: set[str]) -> Explained:
    taken, reason = verdict(asked.receiver, Place(node=asked.origin, role="origin", site="origin"))
    if taken and asked.mirrored:
        taken, reason = False, MIRRORED
    elif taken and asked.reported is not None:
        taken, reason = False, f"{reason}; it does not serve this release"
    if asked.origin in before:
        reason += "; it was a source before"
    return Explained(node=asked.origin, role="origin", address="", taken=taken, reason=reason)


def _point(
    asked: Asked, point: KnownPoint, before: set[str], name_of: Callable[[NodeId], str], now: int
) -> Explained:
    node = point.grant.node
    taken, reason = _on_point(asked, point, name_of, now)
    if not point.online:
        taken, reason = False, f"{reason}; it is offline"
    elif taken and asked.reported is not None:
        taken, reason = False, f"{reason}; it takes no part in this release"
    if node in before:
        reason += "; it was a source before"
    return Explained(node=node, role="point", address="", taken=taken, reason=reason)


def _on_point(
    asked: Asked, point: KnownPoint, name_of: Callable[[NodeId], str], now: int
) -> tuple[bool, str]:
    """The rules' word on a point, with what they do not look at: grants and scopes."""
    receiver, grant = asked.receiver, point.grant
    if not grant_valid(grant, "seed", now):
        expired = now >= grant.expires
        return False, "its seed grant has expired" if expired else "its grant does not allow it to seed"
    taken, reason = verdict(receiver, Place(node=grant.node, role="point", site=grant.node))
    if taken or not covers(grant.scope, asked.group):
        return taken, reason if taken else f"it serves {grant.scope}; {reason}"
    nearest = points_for(asked.group, [known.grant for known in asked.points], now)
    if grant not in nearest:
        return False, f"it serves {grant.scope}, but {nearest[0].scope} has distribution points of its own"
    if receiver.site.startswith(DIRECT):
        return False, "a distribution point of this scope that the device does not reach"
    carrier = name_of(NodeId(receiver.site))
    return False, f"an alternative distribution point of this scope: {carrier} carries the device"


def _unlisted(asked: Asked, source: SourceBytes) -> Explained:
    """A node or a mirror that bytes were exchanged with, and of which nothing else is known now."""
    if source.role == "mirror":
        reason = "a vendor's mirror: its bytes count once they match the signed hashes"
        return Explained(node=NodeId(source.node), role="mirror", address="", taken=True, reason=reason)
    taken, reason = False, "it was a source before" if source.received else "it fetched from this node"
    if asked.receiver.role == "point" and source.role == "device":
        taken, reason = True, "same site: it dials this distribution point"
    return Explained(node=NodeId(source.node), role=source.role, address="", taken=taken, reason=reason)


def _order(source: Explained) -> tuple[bool, int, int, str]:
    return not source.taken, -source.received, _RANKS[source.role], source.node
