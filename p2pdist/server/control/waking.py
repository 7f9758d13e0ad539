"""Wakes resting devices when there is something for them: by a point on their network, or straight.

What a device knew when it went is kept as a digest of its desired state. When anything changes, those whose
state is another now are woken, one after the other. The distribution point that carried a device last sends
the datagrams, and repeats them until the device comes, if it has the duty ``push``; else another one in whose
scope the device stands. Without one, and when they bring nothing, the admin server sends them itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.scope import covers
from p2pdist.core.waking import GiveUp, SendWake, Waking
from p2pdist.core.ways import WayName, Ways, after_reaching, after_trying
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.magic import send_magic
from p2pdist.net.pulse import Pulse
from p2pdist.net.wakes import WakeSender, open_wake_sender, segments
from p2pdist.server.control.desk import Desk
from p2pdist.server.control.devices import Device, Directory
from p2pdist.server.control.wakeseals import Sealed, WakeSealer
from p2pdist.store.waking import WakeRecord
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.messages import Heartbeat, SendWakes
from p2pdist.wire.wakes import WAKE_PORT, WakeOrder, WakePlace, WakeReason

_log = get_logger()

_POINTS = 3  # asked at once to wake one device, beside the one that carried it last
_STRAIGHT_FROM = 4  # that attempt on the admin server sends itself, too: points have had two seconds
_POINTS_AGAIN_FROM = 6  # ... and points are asked again: by then the first may have lost its link
_SAVE_AGAIN_S = 5.0


class WakeStore(Protocol):
    """What is needed of the store. Blocking; called in a worker thread."""

    def wake_places(self) -> tuple[Sequence[WakeRecord], Sequence[Device]]:
        """Return the devices that can be woken."""

    def save_wake_places(self, changes: Mapping[NodeId, WakeRecord | None], now: int) -> None:
        """Save what has changed; None: the device does not rest any more."""

    def reserve_counters(self, count: int) -> int:
        """Reserve *count* counters; returns the number before the first. Never the same twice."""


class Telling(Protocol):
    """Who tells attached nodes; see :class:`~p2pdist.server.control.telling.Teller`."""

    told_everybody: Callable[[], None]


class Waker:
    """The admin server's side of resting devices.

    Args:
        key: The admin server's identity.
        directory: What each node should know.
        desk: Sends orders to points.
        store: What outlives a restart.
        threads: Limits how many threads use the store at once.
        carrier: Returns who carries a node now, if that is a point.
        teller: Says when something has changed that may concern every node.
    """

    def __init__(
        self,
        key: IdentityKey,
        directory: Directory,
        desk: Desk,
        store: WakeStore,
        threads: trio.CapacityLimiter,
        carrier: Callable[[NodeId], NodeId | None],
        teller: Telling,
    ) -> None:
        teller.told_everybody = self.look
        self._sealer = WakeSealer(key, store.reserve_counters, threads)
        self._directory = directory
        self._desk = desk
        self._store = store
        self._threads = threads
        self._carrier = carrier
        self._records: dict[NodeId, WakeRecord] = {}
        self._resting: dict[NodeId, Device] = {}
        self._unsaved: dict[NodeId, WakeRecord | None] = {}
        self._owed: dict[NodeId, bytes] = {}  # what they know if they have opened all the same what was sent
        self._reasons: dict[NodeId, WakeReason] = {}
        self._sealed: dict[NodeId, Sealed] = {}
        self._began: dict[NodeId, float] = {}
        self._waking: Waking | None = None
        self._to_look = False
        self._news = trio.Event()
        self._came_pulse = Pulse()

    @property
    def resting(self) -> frozenset[NodeId]:
        """The devices that rest, as far as is known."""
        return frozenset(self._resting)

    def ways(self, node: NodeId) -> Ways:
        """Return what was counted of the ways on which a device was woken."""
        record = self._records.get(node)
        return record.ways if record is not None else {}

    def learn(self, device: Device) -> None:
        """The store says something new of a device; it is woken if that changes what it should know."""
        if device.node not in self._resting:
            return
        if device.revoked is not None:
            self._forget(device.node)
            return
        self._resting[device.node] = device
        self._look(device, int(time.time()))

    def heard(self, node: NodeId, heartbeat: Heartbeat) -> None:
        """A node has said what it has opened, where it can be woken, and what woke it."""
        if self._directory.get(node) is None:
            self._heard_late(node)
            return
        self._came(node, heartbeat.woken)
        place, record = heartbeat.wake, self._records.get(node)
        if place is None:
            if record is not None:
                self._forget(node)
            return
        via = self._carrier(node) or ""
        if record is None and len(self._records) >= limits.RESTING_KNOWN_MAX:
            return
        if record is None or (record.place, record.via, record.knows) != (place, via, b""):
            ways = record.ways if record is not None else {}
            self._keep(WakeRecord(node=node, place=place, via=via, knows=b"", ways=ways))

    def left(self, node: NodeId) -> None:
        """A node is about not to be attached any more: it is looked after here, if it can be woken."""
        record, device = self._records.get(node), self._directory.get(node)
        if record is None or device is None or device.revoked is not None:
            return
        told, owed = self._directory.digest_told(device.node), self._desk.owes(device.node)
        self._keep(msgspec.structs.replace(record, knows=b"" if owed else told))
        self._resting[device.node] = device
        if owed:
            self._owed[device.node] = told
            self.wake(device.node, "synchronise")

    def look(self) -> None:
        """Something has changed: wake the devices that should know something else than they do, soon."""
        self._to_look = True
        self._news.set()

    def wake(self, node: NodeId, reason: WakeReason) -> bool:
        """Have a resting device come; False when it is none."""
        if node not in self._resting or self._waking is None:
            return False
        try:
            self._waking.handle_wanted(node, trio.current_time())
        except Unavailable as error:
            _log.warning("device.not_woken", node=node, reason=str(error))
            return False
        self._reasons[node] = reason
        self._sealed.pop(node, None)
        self._began.setdefault(node, trio.current_time())
        self._news.set()
        return True

    async def boot(self, device: Device, via: str, macs: Sequence[str]) -> int:
        """Have a machine that is off begin, by Wake-on-LAN; it need not have said that it rests.

        Packets go out on the segments of distribution points near it, repeated while it does not come, and
        once on those of the admin server.

        Args:
            via: Who carried it last; empty: its own link with the admin server.
            macs: The hardware addresses of its interfaces.

        Returns:
            How many points are at it.

        Raises:
            Unavailable: no datagram can be sealed for it now.
        """
        place = WakePlace(port=WAKE_PORT, addresses=[], macs=list(macs))
        record = WakeRecord(node=device.node, place=place, via=via, knows=b"")
        sealed = await self._sealer.seal(device, record, "synchronise")
        points = self._points(device, NodeId(via))
        for point in points:
            await self._send(point, [sealed.order])
        near = await trio.to_thread.run_sync(segments)
        with open_wake_sender() as sender:
            send_magic(sender, macs, near)
        return len(points)

    async def call(self, node: NodeId) -> None:
        """Have a device come for a session if it rests, and wait for it, for seconds."""
        if not self.wake(node, "session"):
            return
        with trio.move_on_after(limits.WAKE_AWAITED_S):
            while node in self._resting:
                await self._came_pulse.wait()

    async def load(self) -> None:
        """Take in what was known before a restart."""
        self._waking = Waking(trio.current_time())
        records, devices = await trio.to_thread.run_sync(self._store.wake_places, limiter=self._threads)
        self._records = {record.node: record for record in records}
        self._resting = {
            device.node: device
            for device in devices
            if device.node in self._records and self._directory.get(device.node) is None
        }

    async def run(self) -> None:
        """Wake until cancelled."""
        assert self._waking is not None, "load() comes first"
        waking = self._waking
        with open_wake_sender() as sender:
            while True:
                self._news = trio.Event()
                if self._to_look:
                    await self._look_at_all()
                await self._carry_out(waking, sender)
                await self._save()
                deadline = waking.next_deadline()
                if self._unsaved:
                    again = trio.current_time() + _SAVE_AGAIN_S
                    deadline = min(again, deadline) if deadline is not None else again
                with trio.move_on_at(deadline if deadline is not None else float("inf")):
                    await self._news.wait()
                waking.handle_tick(trio.current_time())

    # Parts -------------------------------------------------------------------------------------------

    async def _look_at_all(self) -> None:
        self._to_look = False
        now = int(time.time())
        for number, node in enumerate(list(self._resting)):
            if number % 64 == 0:  # some milliseconds
                await trio.lowlevel.checkpoint()
            if (device := self._resting.get(node)) is not None:
                self._look(device, now)

    def _look(self, device: Device, now: int) -> None:
        record = self._records[device.node]
        if record.knows != self._directory.digest(device, now) and device.node not in self._began:
            self.wake(device.node, "deployment")

    def _heard_late(self, node: NodeId) -> None:
        """What a node said before it went came after its going: it may be owed nothing, and is let rest."""
        record = self._records.get(node)
        if record is None or node not in self._owed or self._desk.owes(node):
            return
        self._keep(msgspec.structs.replace(record, knows=self._owed.pop(node)))
        self._stop_waking(node)

    def _came(self, node: NodeId, woken: int) -> None:
        began, sealed, record = self._began.get(node), self._sealed.get(node), self._records.get(node)
        if began is not None:
            seconds = trio.current_time() - began
            way = sealed.way(woken) if sealed is not None else None
            _log.info("device.came", node=node, seconds=round(seconds, 3), way=way or "by itself")
            if way is not None and record is not None:
                ways = after_reaching(record.ways, way, int(1_000 * seconds))
                self._keep(msgspec.structs.replace(record, ways=ways))
        self._stop_waking(node)
        self._owed.pop(node, None)
        self._resting.pop(node, None)
        self._came_pulse.fire()

    def _stop_waking(self, node: NodeId) -> None:
        if self._waking is not None:
            self._waking.handle_answered(node)
        for each in (self._began, self._reasons, self._sealed):
            each.pop(node, None)

    def _keep(self, record: WakeRecord) -> None:
        self._records[record.node] = self._unsaved[record.node] = record
        self._news.set()

    def _forget(self, node: NodeId) -> None:
        self._came(node, 0)
        self._records.pop(node, None)
        self._unsaved[node] = None
        self._news.set()

    async def _carry_out(self, waking: Waking, sender: WakeSender) -> None:
        orders: dict[NodeId, list[WakeOrder]] = {}
        while (command := waking.poll_command()) is not None:
            match command:
                case GiveUp(node=node):
                    _log.info("device.not_come", node=node)
                    self._stop_waking(node)
                case SendWake(node=node, attempt=attempt) if device := self._resting.get(node):
                    sealed = self._sealed.get(node) or await self._seal(device)
                    if sealed is None or node not in self._resting:  # it has come meanwhile
                        continue
                    points, straight = self._ways(device, sealed, attempt)
                    for point in points:
                        orders.setdefault(point, []).append(sealed.order)
                    if points:
                        self._tried(node, "point")
                        if sealed.order.magic is not None:
                            self._tried(node, "magic")
                    if straight:
                        self._tried(node, "straight")
                        sender.to(sealed.straight, sealed.order.endpoints)
        for point, wanted in orders.items():
            for start in range(0, len(wanted), limits.WAKE_ORDERS_MAX):
                await self._send(point, wanted[start : start + limits.WAKE_ORDERS_MAX])

    async def _send(self, point: NodeId, orders: list[WakeOrder]) -> None:
        device = self._directory.get(point)
        if device is not None:
            await self._desk.send(device, SendWakes(orders=orders))

    def _points(self, device: Device, last: NodeId) -> list[NodeId]:
        """Return who is asked to wake a device: who carried it last, if that can be, or others."""
        now = int(time.time())
        if last and self._may_wake(last, device, now):
            return [last]
        grants = self._directory.catalog.grants if self._directory.catalog is not None else {}
        return [node for node in sorted(grants) if self._may_wake(node, device, now)][:_POINTS]

    def _may_wake(self, point: NodeId, device: Device, now: int) -> bool:
        grant = self._directory.grant(point, now, "push")
        return (
            grant is not None and covers(grant.scope, device.group) and self._directory.get(point) is not None
        )

    def _ways(self, device: Device, sealed: Sealed, attempt: int) -> tuple[Sequence[NodeId], bool]:
        """Return which points are asked in an attempt, and whether the admin server sends itself."""
        points = self._points(device, NodeId(self._records[device.node].via))
        asks = attempt == 1 or attempt >= _POINTS_AGAIN_FROM
        straight = not points or sealed.straight_first or attempt >= _STRAIGHT_FROM
        return (points if asks else ()), straight

    def _tried(self, node: NodeId, way: WayName) -> None:
        """Count a way, once for all attempts."""
        sealed, record = self._sealed[node], self._records[node]
        if way not in sealed.tried:
            sealed.tried.add(way)
            self._keep(msgspec.structs.replace(record, ways=after_trying(record.ways, way)))

    async def _seal(self, device: Device) -> Sealed | None:
        record, reason = self._records[device.node], self._reasons.get(device.node, "synchronise")
        try:
            sealed = await self._sealer.seal(device, record, reason)
        except P2PDistError as error:
            _log.error("wake.not_sealed", node=device.node, reason=str(error))
            return None
        if device.node in self._resting:
            self._sealed[device.node] = sealed
        return sealed

    async def _save(self) -> None:
        changes, self._unsaved = self._unsaved, {}
        if not changes:
            return
        try:
            await trio.to_thread.run_sync(
                self._store.save_wake_places, changes, int(time.time()), limiter=self._threads
            )
        except P2PDistError as error:
            _log.error("wake_places.not_stored", reason=str(error))
            self._unsaved = changes | self._unsaved
