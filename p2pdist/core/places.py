"""Who shares a LAN with whom, among the nodes that one gateway, or the admin server, carries: their *places*.

A gateway sees from which outside address each link comes, and each node says which addresses it has itself:

- The outside address is none of its own: a NAT stands between. Everybody behind the same outside address
  is in one place, behind another one is another place.
- It is its own and private: the gateway reaches it through the organisation's own network, and both are in
  the gateway's site.
- It is its own and global, and the gateway carries others than its site: its network is its place.

Nodes of one place dial each other at their own addresses. Between places nobody can dial (except at a global
address), so there the gateway arranges meetings (:mod:`p2pdist.core.meetings`), and only one node of each
place takes part: the others have it from that one. So a piece comes over a place's uplink once. Where there
are many places, each meets a few of those in its own *district*, which chance puts together: so a decision
costs the same however many places there are.
"""

from __future__ import annotations

import ipaddress
import zlib
from collections.abc import Callable, Sequence

import msgspec

from p2pdist import limits
from p2pdist.core.scope import affinity
from p2pdist.ids import GroupPath, NodeId
from p2pdist.wire.frames import Dialler, Endpoint, Path, Role

Hopeless = Callable[[NodeId, NodeId], str | None]
"""Why two nodes cannot meet, in words; None while they may."""


class Whereabouts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node is, as others have to know it.

    Attributes:
        site: What it shares a LAN with: the carrier's own site, or the place's name.
        gateway: Who carries it from outside its place; empty in the carrier's own site.
        host: Its address as the carrier sees it.
        port: The port of its swarm.
        own: Where others of its place may dial it; the first is the best.
        translated: A NAT stands between it and its carrier.
    """

    site: str
    gateway: NodeId | None
    host: str
    port: int
    own: tuple[Endpoint, ...] = ()
    translated: bool = False


def whereabouts(
    carrier: NodeId, outside: str, port: int, endpoints: Sequence[Endpoint], *, spread: bool
) -> Whereabouts:
    """Say where a node is that *carrier* carries.

    Args:
        carrier: The distribution point, or the admin server.
        outside: The address from which the node's link comes.
        port: The port of its swarm.
        endpoints: Where its swarm listens, as it says.
        spread: Whether the carrier is a gateway for others than its own site.
    """
    host = _address(outside)
    own = tuple(each for each in endpoints if _dialable(each))
    translated = bool(own) and host is not None and all(_address(each.host) != host for each in own)
    if host is None or not (translated or (spread and host.is_global)):
        others = tuple(each for each in own if not _same_family(each.host, outside))
        return Whereabouts(site=carrier, gateway=None, host=outside, port=port, own=others)
    if translated:
        return Whereabouts(
            site=f"behind {host}", gateway=carrier, host=str(host), port=port, own=own, translated=True
        )
    network = ipaddress.ip_network((host, 24 if host.version == 4 else 64), strict=False)
    first = Endpoint(host=str(host), port=port)
    globals_ = (each for each in own if each.host != first.host and is_outside(each.host))
    return Whereabouts(
        site=f"network {network}", gateway=carrier, host=str(host), port=port, own=(first, *globals_)
    )


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node stands: what the rules look at.

    ``site`` names what it shares a LAN with: the distribution point that carries it (a point's site is
    its own id), or the network of a device that is attached directly. ``role`` is what has been
    verified, not what the node claims. ``have`` is the fraction of the artifact that it holds. A member
    with ``no_room`` wants the artifact and cannot hold it now. An origin that is ``mirrored`` does not serve
    it, for it comes from vendors' mirrors. One that is ``dialled`` dials nobody; see
    :mod:`p2pdist.core.dialling`.
    """

    node: NodeId
    role: Role
    site: str


class Member(Place, frozen=True, kw_only=True):
    """One node in one artifact's swarm. ``have`` is the fraction of the artifact that it holds.

    ``gateway`` carries it from outside its own site; None where there is none, as for everybody in a site
    with its point. ``own`` are addresses of its own, ``unreached`` the sources that it could not connect to.
    """

    host: str
    port: int
    group: GroupPath
    complete: bool
    have: float
    no_room: bool = False
    mirrored: bool = False
    dialled: bool = False
    gateway: NodeId | None = None
    translated: bool = False
    own: tuple[Endpoint, ...] = ()
    unreached: frozenset[NodeId] = frozenset()


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one node takes another as a source, why, how it reaches it, and who of the two dials."""

    taken: bool
    reason: str
    path: Path = "direct"
    endpoints: tuple[Endpoint, ...] = ()
    dial: Dialler = "either"


class Places:
    """Everybody in one artifact's swarm, by place. Made anew for each decision: takes one pass.

    Args:
        devices: All devices, in the order in which they came. The first of a place that lacks something
            fetches for it until a device there has everything; and so does whoever can reach none of those.
            One that cannot reach its gateway, or keeps it out because of wrong bytes, fetches for nobody.
        hopeless: Says of two devices why they cannot meet.
    """

    def __init__(self, devices: Sequence[Member], hopeless: Hopeless) -> None:
        self._hopeless = hopeless
        self._servers: dict[str, Member] = {}
        self._met: dict[NodeId, frozenset[NodeId]] = {}
        for device in devices:
            first = self._servers.get(device.site)
            able = device.complete or not (device.no_room or device.gateway in device.unreached)
            if able and (first is None or (device.complete and not first.complete)):
                self._servers[device.site] = device
        self._speakers = [r for r in devices if r.gateway is not None and self.speaks(r)]

    def speaks(self, device: Member) -> bool:
        """Tell whether a device exchanges content over its place's uplink: nobody near has it for it."""
        server = self._servers.get(device.site)
        if server is None or server.node == device.node:
            return not device.no_room
        return not (device.complete or device.no_room) and _apart(device, server)

    def on_carrier(self, receiver: Member, carrier: Member) -> Ruling:
        """Decide whether a device fetches from who carries it from outside: its gateway, or the origin."""
        path: Path = "direct" if carrier.role == "origin" else "relayed"
        what = "the origin" if carrier.role == "origin" else "its gateway"
        if not self.speaks(receiver):
            reason = f"{what}, but a neighbour on the same LAN exchanges with it for this place"
            return Ruling(taken=False, reason=reason, path=path)
        if carrier.role == "origin":
            reason = f"{what}: no distribution point of this scope could be reached"
        else:
            reason = f"{what}: passes pieces on as they arrive"
        return Ruling(taken=True, reason=reason, path=path)

    def on_device(self, receiver: Member, source: Member) -> Ruling | None:
        """Decide on a device as a source for another one; at least one is not in the carrier's own site.

        Returns:
            None for one that need not be mentioned: of other places, only those that are met are.
        """
        if receiver.site == source.site:
            return self._on_neighbour(receiver, source)
        if receiver.gateway is None or source.gateway is None:
            return None  # what is in the gateway's own site is passed on by the gateway
        if not (self.speaks(receiver) and self.speaks(source)):
            return None
        if source.node not in self._met_by(receiver):
            return None
        return self._across(receiver, source)

    def _across(self, receiver: Member, source: Member) -> Ruling:
        """Decide on a pair of two places: who has a global address is dialled, and both are called.

        Only one dials: two connections that cross end each other (decision 0062).
        """
        why = self._hopeless(receiver.node, source.node)
        if why is not None and (_apart(receiver, source) or (receiver.translated and source.translated)):
            return Ruling(taken=False, reason=f"through its gateway: {why}", path="relayed")
        if receiver.complete and source.complete:
            return Ruling(taken=False, reason="another place, and both have the artifact", path="punched")
        if not source.translated:
            reason = "another network: it is dialled, and both call each other"
            dial: Dialler = "receiver" if receiver.translated else "either"
            return Ruling(taken=True, reason=reason, path="punched", endpoints=source.own, dial=dial)
        if not receiver.translated:
            reason = "behind a NAT: it dials this node, and both call each other"
            return Ruling(taken=True, reason=reason, path="punched", dial="source")
        reason = "behind another NAT: both call each other at the same moment"
        return Ruling(taken=True, reason=reason, path="punched")

    def _on_neighbour(self, receiver: Member, source: Member) -> Ruling:
        own = source.own[: limits.ENDPOINTS_DIALLED_MAX]
        if not _apart(receiver, source):
            return Ruling(taken=True, reason="same LAN", endpoints=own)
        why = self._hopeless(receiver.node, source.node)
        if why is not None:
            reason = f"same NAT, but the two do not see each other; through its gateway: {why}"
            return Ruling(taken=False, reason=reason, path="relayed")
        reason = "same NAT, but the two do not see each other: both call at their outside endpoints"
        return Ruling(taken=True, reason=reason, path="punched", endpoints=own)

    def _met_by(self, one: Member) -> frozenset[NodeId]:
        """Return whom a speaker meets: those whom it chooses, and those who choose it."""
        if one.node not in self._met:
            district = self._district_of(one)
            chosen = {other.node for other in _nearest(one, district)}
            choosing = {other.node for other in district if one in _nearest(other, district)}
            self._met[one.node] = frozenset(chosen | choosing)
        return self._met[one.node]

    def _district_of(self, one: Member) -> list[Member]:
        """The speakers among which one chooses, with itself: all, or a half, a fourth, an eighth of them."""
        parts = 1
        while len(self._speakers) > parts * limits.PLACES_DISTRICT_MAX:
            parts *= 2
        part = _chance(one.node) % parts
        return [speaker for speaker in self._speakers if _chance(speaker.node) % parts == part]


def _nearest(one: Member, others: Sequence[Member]) -> list[Member]:
    """Whom *one* chooses: first who has everything where it lacks something, or the other way round."""
    elsewhere = (other for other in others if other.site != one.site)
    return sorted(
        elsewhere, key=lambda other: (other.complete == one.complete, affinity(one.node, other.node))
    )[: limits.PLACES_MET_MAX]


def _chance(node: NodeId) -> int:
    return zlib.crc32(node.encode())


def _apart(one: Member, other: Member) -> bool:
    return other.node in one.unreached or one.node in other.unreached


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _dialable(endpoint: Endpoint) -> bool:
    address = _address(endpoint.host)
    return address is not None and not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )


def is_outside(host: str) -> bool:
    """Tell whether an address can be one of the internet's."""
    address = _address(host)
    return address is not None and address.is_global


def _same_family(one: str, other: str) -> bool:
    return (":" in one) == (":" in other)
