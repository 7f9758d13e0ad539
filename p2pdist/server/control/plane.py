"""The control plane: links, routes, the tracker, and who is told what.

One :class:`ControlPlane` runs in one admin server. The programs around it tell it that something has
changed (:meth:`ControlPlane.orders_changed`, :meth:`ControlPlane.catalog_changed`,
:meth:`ControlPlane.device_changed`); it tells the fleet.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import trio

from p2pdist.errors import PeerError, TrustError
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.broadcast import broadcast
from p2pdist.net.exchange import Exchange
from p2pdist.net.link import Link, StreamTable, serve_links
from p2pdist.net.pacing import paced_frames
from p2pdist.net.stundesk import StunDesk
from p2pdist.net.tls import TlsIdentity
from p2pdist.server.control.admit import Admission
from p2pdist.server.control.answers import Answers
from p2pdist.server.control.callees import Callees
from p2pdist.server.control.clones import CloneGuard
from p2pdist.server.control.desk import Desk, Receiver
from p2pdist.server.control.devices import Device, Directory
from p2pdist.server.control.neighbours import Complaints, not_sent, send_frame
from p2pdist.server.control.ports import OriginSwarm, PlaneSettings, PlaneStore
from p2pdist.server.control.reach import Reach
from p2pdist.server.control.supply import Supply
from p2pdist.server.control.swarms import Swarms
from p2pdist.server.control.telling import Teller
from p2pdist.server.control.waking import Waker
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import (
    Announce,
    AnyFrame,
    Arrived,
    Attached,
    ContentRefused,
    MetadataVersions,
    Routed,
    Taken,
    Way,
)
from p2pdist.wire.messages import (
    FromDevice,
    FromServer,
    Heartbeat,
    RateLimits,
    RenewalRequest,
    Revoked,
)
from p2pdist.wire.questions import NodeAwaited, SecretsRequest
from p2pdist.wire.requests import Bundle
from p2pdist.wire.tasks import Assignment, TaskResult

_log = get_logger()


class ControlPlane:
    """The admin server's side of every link.

    Attributes:
        swarms: Who takes part in which artifact's swarm, and what is known to be bad.

    Args:
        key: The admin server's identity.
        authority: The fleet's CA.
        identity: Returns the admin server's present TLS identity.
        export: Returns the metadata that a node lacks.
        torrent: Returns an artifact's torrent, or None.
        origin: Returns the origin.
        streams: What byte streams neighbours may open.
        refused: Called with the host of a stranger who was turned away, and the reason.
        stun: Tells neighbours whom to ask how NATs show them.
        assigning: Called when nodes have other work, before they are told.
    """

    def __init__(
        self,
        settings: PlaneSettings,
        *,
        key: IdentityKey,
        authority: FleetAuthority,
        identity: Callable[[], TlsIdentity],
        store: PlaneStore,
        threads: trio.CapacityLimiter,
        export: Callable[[Mapping[str, int]], Bundle],
        torrent: Callable[[InfoHash], bytes | None],
        origin: Callable[[], OriginSwarm],
        streams: StreamTable,
        refused: Callable[[str, str], None],
        stun: StunDesk,
        assigning: Callable[[], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._key = key
        self._identity = identity
        self._store = store
        self._threads = threads
        self._origin = origin
        self._streams = streams
        self._stun = stun
        self._links: dict[NodeId, Link] = {}
        self.reach = Reach(key.node, self._links)
        self._versions: Mapping[str, int] = {}
        self.swarms = Swarms(key.node, origin, self._links)
        self._revoked: set[NodeId] = set()
        self.directory = Directory(authority.fleet, rates=settings.rates, heartbeat_s=settings.heartbeat_s)
        self._clones = CloneGuard(store, threads)
        self._complaints = Complaints()
        self._desk = Desk(key, store, threads, self.reach.send, self.reach.way, self._origin_of)
        self._teller = Teller(self.directory, self._desk, store, threads, assigning)
        self.waker = Waker(key, self.directory, self._desk, store, threads, self.reach.carrier, self._teller)
        self.admission = Admission(
            key=key,
            authority=authority,
            store=store,
            threads=threads,
            directory=self.directory,
            open_envelope=self._desk.open,
            life_s=settings.certificate_life_s,
            refused=refused,
        )
        self.answers = Answers(
            key.node, self.directory, self._desk, self.admission, lambda node: node in self.waker.resting
        )
        self._requests = {**self.admission.requests, **Supply(export, torrent).requests}
        self.callees = Callees(
            identity=identity,
            requests=self._requests,
            on_link=self._carry,
            reached=lambda node: self.reach.neighbour(node) is not None,
            unwanted=lambda node: node in self._revoked,
            renew=self.admission.renew,
        )

    # What the programs around it say ---------------------------------------------------------------

    async def catalog_changed(self, catalog: Catalog, versions: Mapping[str, int]) -> None:
        """New metadata is published, or the online roles were signed again."""
        known = self.directory.catalog
        self.directory.catalog = catalog
        self._versions = dict(versions)
        self.callees.look(catalog, _now())
        await broadcast(self._links.values(), MetadataVersions(versions=self._versions), not_sent)
        for node in self._links:
            self._tell_way(node)
        if known is None or (known.releases, known.grants) != (catalog.releases, catalog.grants):
            await self._teller.everybody()

    async def orders_changed(self) -> None:
        """A deployment was made or stopped, or a grant has ended."""
        self.callees.look(self.directory.catalog, _now())
        orders = await trio.to_thread.run_sync(self._store.orders, limiter=self._threads)
        self.directory.set_orders(orders)
        await self._teller.everybody()

    async def tasks_changed(self) -> Mapping[NodeId, Sequence[Assignment]]:
        """Runs of tasks were begun or have ended; returns what each node has to do, this server included."""
        return await self._teller.assigned()

    async def rates_changed(self, rates: Mapping[GroupPath, RateLimits]) -> None:
        """The groups have other limits now."""
        self.directory.set_rates(rates)
        await self._teller.everybody()

    async def groups_changed(self) -> None:
        """Groups were moved: look at every attached device and at the deployments afresh, then tell."""
        nodes = [*self.directory.nodes(), *self.waker.resting]
        orders, devices = await trio.to_thread.run_sync(self._store.look, nodes, limiter=self._threads)
        self.directory.set_orders(orders)
        for device in devices:
            if self.directory.get(device.node) is not None:
                self.directory.learn(device)
            self.waker.learn(device)
        await self._teller.everybody()

    async def device_changed(self, node: NodeId) -> None:
        """A device was moved to another group, or revoked."""
        device = await trio.to_thread.run_sync(self._store.device, node, limiter=self._threads)
        if device is None:
            return
        self.waker.learn(device)
        if device.revoked is not None:
            self._revoked.add(node)
            await self._desk.send(device, Revoked(reason=device.revoked))
            self._detach(node)
            link = self._links.get(node)
            if link is not None:
                await link.aclose(f"revoked: {device.revoked}")
            await self._teller.points_of_revoked()
        elif self.directory.get(node) is not None:
            self.directory.learn(device)
            await self._teller.one(node, known=None)

    def attached(self) -> Mapping[NodeId, NodeId | None]:
        """Return every device that can be reached now, and the point that carries it (None: direct)."""
        return {node: self.reach.carrier(node) for node in self.directory.nodes()}

    async def tell(self, node: NodeId, message: FromServer) -> bool:
        """Tell a node something, which comes for it if it rests; False when there is no way to it now."""
        await self.waker.call(node)
        return (device := self.directory.get(node)) is not None and await self._desk.send(device, message)

    # Running -----------------------------------------------------------------------------------------

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the fleet until cancelled; reports the bound address once links are accepted."""
        await self.waker.load()
        await self.orders_changed()
        await self.tasks_changed()
        await self._teller.points_of_revoked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._desk.run, self._taken)
            nursery.start_soon(self._clones.watch, self.reach.claimed)
            nursery.start_soon(self.reach.run)
            nursery.start_soon(self.callees.run)
            nursery.start_soon(self.waker.run)
            address = await nursery.start(self._serve)
            nursery.start_soon(partial(self.swarms.run, port=address[1]))
            task_status.started(address)

    async def _serve(self, *, task_status: Any) -> None:
        await serve_links(
            host=self._settings.host,
            port=self._settings.port,
            identity=self._identity,
            requests=self._requests,
            streams=self._streams,
            on_link=self._carry,
            revoked=lambda node: node in self._revoked,
            task_status=task_status,
        )

    async def _carry(self, link: Link) -> None:
        assert link.remote is not None, "strangers have no control stream"
        node = link.remote.node
        device = await self._learn(node)
        older = self._links.get(node)
        if older is not None:
            await self._clones.check(device, link)
        self._links[node] = link
        if older is not None:
            await older.aclose("a newer link of this node has come")
        exchange = self.reach.linked(node, link)
        self.directory.learn(device)
        self._origin().learn([node])
        _log.info("link.attached", node=node, name=device.name, host=link.remote_host)
        self._stun.arrived(link)
        try:
            send_frame(link, MetadataVersions(versions=dict(self._versions)))
            self._tell_way(node)
            carries_others = self.directory.role(node, _now()) == "point"
            async for frame in paced_frames(link, carries_others=carries_others):
                await self._frame(node, link, exchange, frame)
        finally:
            self._stun.gone(link)
            if self._links.get(node) is link:
                del self._links[node]
                self.swarms.forget(node)
                self.reach.gone(node)
                for each in (node, *self.reach.moved()):
                    if self.reach.neighbour(each) is None:
                        self._detach(each)
                _log.info("link.detached", node=node, name=device.name)

    def _tell_way(self, node: NodeId) -> None:
        """Tell a gateway that it stands right below the admin server: it may carry others."""
        if self.directory.grant(node, _now(), "gateway") is not None:
            send_frame(self._links[node], Way(nodes=[self._key.node]))

    async def _learn(self, node: NodeId) -> Device:
        device = await trio.to_thread.run_sync(self._store.device, node, limiter=self._threads)
        if device is None:
            raise TrustError(f"{node} is not enrolled here", hint="enrol it with a token")
        if device.revoked is not None:
            self._revoked.add(node)
            raise TrustError(f"{node} is revoked: {device.revoked}", hint="ask the fleet's operator")
        return device

    def _detach(self, node: NodeId) -> None:
        if node in self._links:
            self.swarms.forget(node)
        self.waker.left(node)
        self._desk.forget(node)
        self.directory.forget(node)

    # Frames ------------------------------------------------------------------------------------------

    async def _frame(self, node: NodeId, link: Link, exchange: Exchange, frame: AnyFrame) -> None:
        if self._links.get(node) is not link and not isinstance(frame, Routed):
            return  # a newer link has taken over, and says how things are
        match frame:
            case Announce():
                self.swarms.announced(node, link, frame, self.directory.grant(node, _now()))
            case Arrived(stamp=stamp):
                self.reach.arrived(node, stamp)
                await self._follow_moves()
            case Attached():
                await self._attached(node, frame)
            case Routed(envelope=envelope):
                await self._open(node, exchange, envelope)
            case Taken():
                exchange.taken(frame)
            case ContentRefused():
                _log.warning("content.refused", by=frame.by, source=frame.source, reason=frame.reason)
            case _:
                _log.warning("frame.unexpected", frame=type(frame).__name__, node=node)

    async def _attached(self, neighbour: NodeId, frame: Attached) -> None:
        """A distribution point says whom it carries; only one with a grant is believed."""
        if any(self.directory.role(NodeId(n), _now()) != "point" for n in (neighbour, frame.carrier)):
            _log.warning("attached.refused", node=frame.carrier, reason="it has no valid seed grant")
            return
        self.reach.heard(neighbour, frame)
        await self._follow_moves()

    async def _follow_moves(self) -> None:
        """Take in who can be reached now, and who cannot. What was missed meanwhile is told."""
        for node in self.reach.moved():
            if self.reach.neighbour(node) is None:
                self._detach(node)
            elif self.directory.get(node) is None:
                try:
                    device = await self._learn(node)
                except TrustError as error:
                    _log.warning("attached.refused", node=node, reason=str(error))
                    if node in self._revoked:
                        await self.device_changed(node)  # it was on its way when it was revoked
                    continue
                if self.reach.neighbour(node) is not None:
                    self.directory.learn(device)
                    await self._teller.one(node, known=None)
            self._desk.again(node)

    async def _open(self, neighbour: NodeId, exchange: Exchange, envelope: Envelope) -> None:
        """Take in what a node says. Whoever forwards it answers for nothing in it, and is believed nothing:
        only an envelope that opens proves where its sender can be reached.
        """
        node, settled = NodeId(envelope.sender), partial(exchange.settle, exchange.arrived())
        try:
            device = self.directory.get(node) or await self._learn(node)
            message = self._desk.open(envelope, device)
        except (TrustError, PeerError) as error:
            self._complaints.refused(envelope, neighbour, error)
            settled()
            return
        if message is not None:
            if self.directory.get(node) is None:
                self.directory.learn(device)
            if self._desk.is_newest(device, envelope.counter):
                self.reach.proved(node, neighbour)
        await self._desk.take(device, message, settled)

    def _origin_of(self, node: NodeId) -> tuple[Receiver, str]:
        receiver: Receiver = "point" if self.directory.role(node, _now()) == "point" else "device"
        return receiver, self.reach.carrier(node) or ""

    # Messages ----------------------------------------------------------------------------------------

    async def _taken(self, device: Device, message: FromDevice) -> None:
        match message:
            case Heartbeat(revision=revision, platform=platform, name=name, opened=opened):
                self._desk.opened(device.node, opened)
                known = self.directory.get(device.node)
                self.waker.heard(device.node, message)
                if known is not None and (known.platform, known.name) != (platform, name):
                    self.directory.learn(msgspec.structs.replace(known, platform=platform, name=name))
                await self.answers.came(device.node)
                await self._teller.one(device.node, known=revision)
            case TaskResult():
                self.answers.vault.forget(message.task, node=device.node, run=message.run)
                await self.tasks_changed()
            case RenewalRequest() | SecretsRequest() | NodeAwaited():
                await self.answers.give(device.node, message)


def _now() -> int:
    return int(time.time())
