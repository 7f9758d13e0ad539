"""Who fetches from whom, and why.

The rules, in the order in which they are asked:

0. Nobody fetches from the origin what comes from vendors' mirrors: it does not have it, or distribution
   points read it there right now (:mod:`p2pdist.core.mirrored`).
1. Nobody fetches from itself.
2. Within a site everybody may fetch from everybody, up to a number of peers.
3. Over the WAN only distribution points fetch: from the origin and from other distribution points.
4. A device that is attached to the admin server directly, because no distribution point of its scope
   could be reached, fetches from the origin.
5. While the distribution point of a site has no room for an artifact, a few devices of the site fetch it
   from the origin, and the others from them. They are the first in an order of the origin's own, so that
   not the whole site turns to the origin at once.
6. Devices that a gateway carries from outside its site, or the admin server from behind a NAT or at a global
   address, and devices of other such places: see :mod:`p2pdist.core.places`.

Every decision carries its reason as a sentence for people. Whoever tracks a swarm (the admin server
for the distribution points, a distribution point for its site) decides; the receiver may still refuse
a source that lacks a valid seed grant.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from p2pdist import limits
from p2pdist.core.dialling import content_dialler
from p2pdist.core.places import Hopeless, Member, Place, Places, Ruling
from p2pdist.core.scope import affinity, covers
from p2pdist.ids import GroupPath, NodeId
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Candidate, Dialler, Role

_NO_ROOM = "it has no room for this artifact now"

MIRRORED = "its content comes from the vendor's mirrors, which only distribution points read"
"""Why nobody fetches from the origin."""

DIRECT = "direct:"
"""How the site of a device begins that is attached to the admin server directly; its network follows."""


class SourceRules(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers in the rules.

    ``site_peers_max`` bounds the devices of its site that a node hears of, ``origin_devices_max`` those
    that fetch from the origin at once in place of their point.
    """

    site_peers_max: int = limits.PEERS_PER_TORRENT_MAX
    origin_devices_max: int = limits.ORIGIN_DEVICES_MAX


def decide_sources(
    receiver: Member,
    members: Sequence[Member],
    *,
    rules: SourceRules | None = None,
    hopeless: Hopeless = lambda one, other: None,
) -> tuple[Candidate, ...]:
    """Decide on each of *members* as a source for *receiver*.

    Args:
        receiver: Who wants the artifact.
        members: Everybody in its swarm, in the order in which they came.
        rules: The numbers in the rules.
        hopeless: Says of two devices in different places why they cannot meet.

    Returns:
        One candidate per member but the receiver and devices of other places that it does not meet; the
        taken ones first, those who wait for the receiver's call before the others, at most
        :data:`p2pdist.limits.CANDIDATES_MAX`.
    """
    rules = rules or SourceRules()
    elsewhere, others = _split(receiver, [member for member in members if member.node != receiver.node])
    mates = [m for m in others if m.site == receiver.site and m.role == "device"]
    if len(mates) > rules.site_peers_max:
        mates.sort(key=lambda mate: affinity(receiver.node, mate.node))
    farther = {mate.node for mate in mates[rules.site_peers_max :]}
    decided = [
        _candidate(receiver, member, False, f"same site, but {rules.site_peers_max} closer peers were taken")
        if member.node in farther
        else _candidate(
            receiver, member, *(_without_point(receiver, member, members, rules) or verdict(receiver, member))
        )
        for member in others
    ]
    if elsewhere:
        decided += _decide_places(receiver, elsewhere, members, hopeless)
    decided.sort(key=lambda c: (not c.taken, c.dial != "receiver", c.role, c.node))
    return tuple(decided[: limits.CANDIDATES_MAX])


def _split(receiver: Member, others: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    """Part those that the rules on places are for from the others."""

    def placed(member: Member) -> bool:
        if member.role == "device" == receiver.role:
            return receiver.gateway is not None or member.gateway is not None
        return member.node == receiver.gateway

    return [m for m in others if placed(m)], [m for m in others if not placed(m)]


def _decide_places(
    receiver: Member, elsewhere: Sequence[Member], members: Sequence[Member], hopeless: Hopeless
) -> list[Candidate]:
    places = Places([member for member in members if member.role == "device"], hopeless)
    candidates = []
    for member in elsewhere:
        if member.role != "device":
            ruling: Ruling | None = places.on_carrier(receiver, member)
        else:
            ruling = places.on_device(receiver, member)
        if ruling is not None:
            lack = _lack(member)
            candidates.append(
                _candidate(receiver, member, False, lack) if lack else _ruled(receiver, member, ruling)
            )
    return candidates


def _ruled(receiver: Member, member: Member, ruling: Ruling) -> Candidate:
    """Name a member by an address at which the receiver can dial it, if there is one."""
    candidate = _candidate(receiver, member, ruling.taken, ruling.reason)
    candidate = msgspec.structs.replace(
        candidate,
        path=ruling.path,
        endpoints=list(ruling.endpoints),
        dial=candidate.dial if ruling.dial == "either" else ruling.dial,
    )
    if not (member.site == receiver.site and ruling.endpoints and member.translated):
        return candidate
    first, *others = ruling.endpoints
    if ruling.path != "direct":
        return candidate
    return msgspec.structs.replace(candidate, host=first.host, port=first.port, endpoints=others)


def _lack(member: Member) -> str:
    """Say why nobody can fetch from *member*; empty if one may be able to."""
    return MIRRORED if member.mirrored else _NO_ROOM if member.no_room else ""


def _without_point(
    receiver: Member, member: Member, members: Sequence[Member], rules: SourceRules
) -> tuple[bool, str] | None:
    """The verdict on *member* where somebody has no room for the artifact; None where nobody lacks it."""
    if lack := _lack(member):
        return False, lack
    if (receiver.role, member.role) != ("device", "origin"):
        return None
    carrier = receiver.gateway or receiver.site
    if not any(m.role == "point" and m.site == carrier and m.no_room for m in members):
        return None
    site = [m for m in members if m.role == "device" and (m.gateway or m.site) == carrier]
    site.sort(key=lambda m: affinity(member.node, m.node))
    if receiver.node in [m.node for m in site[: rules.origin_devices_max]]:
        return True, "the origin: the distribution point of this site has no room for this artifact"
    return False, "the distribution point has no room, but other devices of this site fetch from the origin"


def verdict(receiver: Place, source: Place) -> tuple[bool, str]:
    """Say whether *receiver* may fetch from *source*, and why, apart from how many it takes."""
    if source.site == receiver.site:
        return True, "same site" if source.role == "device" else "the distribution point of this site"
    if receiver.role == "device" and source.role == "origin":
        if receiver.site.startswith(DIRECT):
            return True, "the origin: no distribution point of this scope could be reached"
        return False, "over the WAN only distribution points fetch from the origin"
    if receiver.role == "device" or source.role == "device":
        return False, "another site: over the WAN only distribution points exchange content"
    if source.role == "origin":
        return True, "the origin, for a distribution point"
    return True, "another distribution point"


def waits_for_mirrors(candidates: Sequence[Candidate]) -> str:
    """Say why nobody serves an artifact that comes from mirrors; empty if somebody does, or it does not."""
    if any(candidate.taken for candidate in candidates):
        return ""
    return MIRRORED if any(candidate.reason == MIRRORED for candidate in candidates) else ""


def objection(
    candidate: Candidate, *, node: NodeId, origin: NodeId, grant: SeedGrant | None, group: GroupPath | None
) -> str | None:
    """Say why a receiver refuses a source that its tracker has taken; None if it does not.

    Args:
        candidate: The source, as the tracker names it.
        node: The receiver.
        origin: The fleet's admin server.
        grant: The source's valid seed grant, if it has one.
        group: The group in which the receiver stands, if it is a device.
    """
    if candidate.node == node:
        return "this node itself"
    if candidate.role == "origin" and candidate.node != origin:
        return "it claims to be the origin, but the fleet's admin server is another node"
    if candidate.role == "point":
        if grant is None:
            return "it acts as a distribution point without a valid seed grant"
        if group is not None and not covers(grant.scope, group):
            return f"its seed grant is for {grant.scope}, and this device stands in {group}"
    return None


def crosses_wan(receiver: Role, source: Role, *, alternatives: bool) -> bool:
    """Whether content between two nodes that the rules connect leaves the site.

    Args:
        receiver: What the one is.
        source: What the other is.
        alternatives: Whether they are points of one scope, which stand in one site.
    """
    return "origin" in (receiver, source) or ((receiver, source) == ("point", "point") and not alternatives)


_DIALLING = {
    "receiver": "; it dials nobody, so this node dials it",
    "source": "; this node dials nobody, so it dials this node",
}


def _candidate(receiver: Member, member: Member, taken: bool, reason: str) -> Candidate:
    dial = content_dialler(receiver_dialled=receiver.dialled, source_dialled=member.dialled)
    if dial == "either" and receiver.role == member.role == "point":
        dial = _dialler_by_nat(receiver, member)
    if taken and dial is None:
        taken, reason = False, "neither of the two may dial the other: both are dialled"
    if taken and dial in _DIALLING and receiver.dialled != member.dialled:
        reason += _DIALLING[dial]
    return Candidate(
        node=member.node,
        role=member.role,
        host=member.host,
        port=member.port,
        taken=taken,
        reason=reason,
        endpoints=list(member.own) if taken and member.gateway is None else [],
        dial=dial or "either",
    )


def _dialler_by_nat(receiver: Member, source: Member) -> Dialler:
    """Say who of two points dials, where one stands behind a NAT: that one, for it may be out of reach.

    A vain attempt of the other would also keep libtorrent from taking its connection: it takes the two for
    the same peer.
    """
    if receiver.translated == source.translated:
        return "either"
    return "receiver" if receiver.translated else "source"
