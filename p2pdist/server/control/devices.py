"""What each attached device should have, and what it has been told.

A desired state is computed, not stored: from the deployments, the device's group, its platform and its
grant. Its revision is larger than whatever the device knows, so that a restart of the admin server, or
a clock set back, at worst tells a device again what it has already done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from p2pdist.core.desired import Order, Wishes, wishes_for
from p2pdist.core.mirrored import reads, wish_for
from p2pdist.core.scope import ancestors, covers, grant_valid
from p2pdist.errors import PeerError
from p2pdist.ids import FleetName, GroupPath, NodeId, SwarmName, TargetPath
from p2pdist.trust.catalog import Catalog, Duty, Release, SeedGrant
from p2pdist.wire import codec
from p2pdist.wire.frames import Role
from p2pdist.wire.installing import Install
from p2pdist.wire.messages import DesiredState, RateLimits
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.tasks import Assignment
from p2pdist.wire.work import AnyWork, decode_work


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin server knows of one device. ``revoked`` is the reason, or None.

    ``window`` is what was seen of its envelopes' counters when the store was asked.
    """

    node: NodeId
    public: bytes
    group: GroupPath
    platform: str
    name: str
    revoked: str | None = None
    window: bytes = b""


class Directory:
    """The attached devices, the deployments, and the verified catalog, as they are right now.

    Args:
        fleet: The fleet's name.
        rates: The limits for nodes, by group; the nearest ancestor's count.
        heartbeat_s: How often devices report when nothing happens.
    """

    def __init__(self, fleet: FleetName, *, rates: Mapping[GroupPath, RateLimits], heartbeat_s: int) -> None:
        self._fleet = fleet
        self._rates = rates
        self._heartbeat_s = heartbeat_s
        self._devices: dict[NodeId, Device] = {}
        self._orders: tuple[Order, ...] = ()
        self._revoked: dict[NodeId, GroupPath] = {}
        self._assignments: Mapping[NodeId, Sequence[Assignment]] = {}
        self._readings: Mapping[NodeId, Sequence[ReadMirrors]] = {}
        self._installing: Mapping[NodeId, Sequence[TargetPath]] = {}
        self._told: dict[NodeId, DesiredState] = {}
        self.catalog: Catalog | None = None

    def set_orders(self, orders: Sequence[Order]) -> None:
        """Replace the deployments that have not been stopped."""
        self._orders = tuple(orders)

    def set_rates(self, rates: Mapping[GroupPath, RateLimits]) -> None:
        """Replace the limits of all groups."""
        self._rates = rates

    def set_revoked(self, revoked: Mapping[NodeId, GroupPath]) -> None:
        """Replace the nodes that have left the fleet with a valid certificate, and their groups."""
        self._revoked = dict(revoked)

    def set_assignments(self, assignments: Mapping[NodeId, Sequence[Assignment]]) -> list[NodeId]:
        """Replace what nodes have to do; return the attached ones for which that has changed."""
        before, self._assignments = self._assignments, assignments
        works = {node: _works(assigned) for node, assigned in assignments.items()}
        self._readings = {
            node: readings
            for node, of_node in works.items()
            if (readings := tuple(work for work in of_node if isinstance(work, ReadMirrors)))
        }
        self._installing = {
            node: tuple(TargetPath(work.target) for work in of_node if isinstance(work, Install))
            for node, of_node in works.items()
        }
        return [
            node for node in self._devices if list(before.get(node, ())) != list(assignments.get(node, ()))
        ]

    def reading(self, releases: Mapping[TargetPath, Release]) -> Mapping[NodeId, Sequence[Release]]:
        """Return which of these releases nodes are to read from mirrors now."""
        return reads(self._readings, releases)

    def learn(self, device: Device) -> None:
        """Take in what the store says of a device."""
        self._devices[device.node] = device

    def forget(self, node: NodeId) -> None:
        """Drop a device that is no longer attached."""
        self._devices.pop(node, None)
        self._told.pop(node, None)

    def get(self, node: NodeId) -> Device | None:
        """Return an attached device."""
        return self._devices.get(node)

    def nodes(self) -> tuple[NodeId, ...]:
        """Return the attached devices."""
        return tuple(self._devices)

    def grant(self, node: NodeId, now: int, duty: Duty = "seed") -> SeedGrant | None:
        """Return a node's seed grant while it is valid for a duty."""
        grant = self.catalog.grants.get(node) if self.catalog is not None else None
        return grant if grant_valid(grant, duty, now) else None

    def role(self, node: NodeId, now: int) -> Role:
        """Return what a node is, by signed grants."""
        return "point" if self.grant(node, now) is not None else "device"

    def swarms(self, device: Device, now: int) -> tuple[SwarmName, ...]:
        """Return the swarms that a device may join."""
        return self._wishes(device, now).swarms

    def state_for(self, node: NodeId, *, known: int | None, now: int, now_ms: int) -> DesiredState | None:
        """Return the desired state to send to *node*, or None if it has it.

        Args:
            node: An attached device.
            known: The revision that the device says it has; None when it did not say, because
                something changed here.
            now: Unix seconds.
            now_ms: Unix milliseconds, from which revisions are made.
        """
        device = self._devices.get(node)
        if device is None:
            return None
        told = self._told.get(node)
        state = self._state(device, now)
        if told is not None and msgspec.structs.replace(told, revision=0) == state:
            if known in (None, told.revision):
                return None
            if known is not None and known < told.revision:
                return told  # it is on its way, or was lost
        newer_than = max(known or 0, told.revision if told is not None else 0)
        state = msgspec.structs.replace(state, revision=max(now_ms, newer_than + 1))
        self._told[node] = state
        return state

    def digest(self, device: Device, now: int) -> bytes:
        """Return what a device should know, in 16 bytes to be compared. It need not be attached."""
        return _digest(self._state(device, now))

    def digest_told(self, node: NodeId) -> bytes:
        """Return the same of what an attached device was told last; empty if it was told nothing."""
        told = self._told.get(node)
        return _digest(told) if told is not None else b""

    def _state(self, device: Device, now: int) -> DesiredState:
        wishes = self._wishes(device, now)
        grant = self.grant(device.node, now)
        return DesiredState(
            revision=0,
            group=device.group,
            swarms=list(wishes.swarms),
            deployments=list(wishes.deployments),
            prefetch=list(wishes.prefetch),
            keep=list(wishes.keep),
            revoked=self._revoked_below(grant.scope) if grant is not None else [],
            assignments=list(self._assignments.get(device.node, ())),
            rates=self._rates_for(device.group),
            heartbeat_s=self._heartbeat_s,
        )

    def _wishes(self, device: Device, now: int) -> Wishes:
        grants = self.catalog.grants.values() if self.catalog is not None else ()
        wishes = wishes_for(
            fleet=self._fleet,
            node=device.node,
            group=device.group,
            platform=device.platform,
            grant=self.grant(device.node, now),
            orders=self._orders,
            releases=self._releases(),
            scopes={grant.scope for grant in grants if grant_valid(grant, "seed", now)},
        )
        releases = self._releases()
        works = {device.node: self._readings.get(device.node, ())}
        needed = [*reads(works, releases)[device.node]]
        needed += [releases[t] for t in self._installing.get(device.node, ()) if t in releases]
        return wish_for(wishes, needed, self._fleet) if needed else wishes

    def _releases(self) -> Mapping[TargetPath, Release]:
        return self.catalog.releases if self.catalog is not None else {}

    def _revoked_below(self, scope: GroupPath) -> list[str]:
        return sorted(node for node, group in self._revoked.items() if covers(scope, group))

    def _rates_for(self, group: GroupPath) -> RateLimits:
        for ancestor in ancestors(group):
            if ancestor in self._rates:
                return self._rates[ancestor]
        return RateLimits()


def _works(assigned: Sequence[Assignment]) -> tuple[AnyWork, ...]:
    """Return what is assigned, as far as this version knows it."""
    found = []
    for assignment in assigned:
        try:
            found.append(decode_work(assignment.work))
        except PeerError:
            continue  # of another version; its node says so
    return tuple(found)


def _digest(state: DesiredState) -> bytes:
    data = codec.encode(msgspec.structs.replace(state, revision=0))
    return hashlib.blake2b(data, digest_size=16).digest()
