"""What the control plane is told by its configuration, and what it needs of the store and of the origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from p2pdist.core.desired import Order
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.server.control.admit import AdmitStore
from p2pdist.server.control.clones import CloneStore
from p2pdist.server.control.desk import DeskStore
from p2pdist.server.control.devices import Device
from p2pdist.wire.frames import Candidate, Endpoint
from p2pdist.wire.messages import RateLimits
from p2pdist.wire.tasks import Assignment


class OriginSwarm(Protocol):
    """What the control plane needs of the origin; see :class:`~p2pdist.server.origin.Origin`."""

    @property
    def port(self) -> int:
        """The port of its swarm."""

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Where its swarm listens."""

    def learn(self, nodes: list[NodeId]) -> None:
        """Learn of nodes that may connect from now on."""

    def call(self, info_hash: InfoHash, points: Sequence[Candidate]) -> None:
        """Dial points for an artifact."""


class PlaneStore(AdmitStore, DeskStore, CloneStore, Protocol):
    """What the control plane needs of the store. Blocking; called in a worker thread."""

    def orders(self) -> Sequence[Order]:
        """Return every deployment that has not been stopped."""

    def assignments(self) -> Mapping[NodeId, Sequence[Assignment]]:
        """Return what each node has to do."""

    def revoked(self, now: int) -> Mapping[NodeId, GroupPath]:
        """Return the groups of the nodes that were revoked with a certificate that is still valid."""

    def look(self, nodes: Sequence[NodeId]) -> tuple[Sequence[Order], Sequence[Device]]:
        """Return the deployments and these devices, as they were at one moment."""


class PlaneSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the control plane listens, and its rules. ``port`` 0 takes any free one."""

    host: str
    port: int
    certificate_life_s: int = 24 * 3600
    heartbeat_s: int = 300
    rates: Mapping[GroupPath, RateLimits] = msgspec.field(default_factory=dict)
