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
import nacl.utils
import trio

from p2pdist import limits
from p2pdist.core.scope import covers
from p2pdist.core.waking import GiveUp, SendWake, Waking
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.pulse import Pulse
from p2pdist.net.wakes import WakeSender, open_wake_sender
from p2pdist.server.control.desk import Desk
from p2pdist.server.control.devices import Device, Directory
from p2pdist.store.waking import WakeRecord
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.wakes import WakeKey
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.messages import SendWakes
from p2pdist.wire.wakes import Wake, WakeOrder, WakePlace, WakeReason

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


class Waker:
    """The admin server's side of resting devices.

    Args:
        key: The admin server's identity.
        directory: What each node should know.
        desk: Sends orders to points.
        store: What outlives a restart.
        threads: Limits how many threads use the store at once.
        carrier: Returns who carries a node now, if that is a point.
    """

    def __init__(
        self,
        key: IdentityKey,
        directory: Directory,
        desk: Desk,
        store: WakeStore,
        threads: trio.CapacityLimiter,
        carrier: Callable[[NodeId], NodeId | None],
    ) -> None:
        self._key = key
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
        self._datagrams: dict[NodeId, tuple[bytes, bytes | None]] = {}
        self._began: dict[NodeId, float] = {}
        self._waking: Waking | None = None
        self._counter = self._reserved = 0
        self._to_look = False
        self._news = trio.Event()
        self._came_pulse = Pulse()

    @property
    def resting(self) -> frozenset[NodeId]:
        """The devices that rest, as far as is known."""
        return frozenset(self._resting)

    def learn(self, device: Device) -> None:
        """The store says something new of a device; it is woken if that changes what it should know."""
        if device.node not in self._resting:
            return
        if device.revoked is not None:
            self._forget(device.node)
            return
        self._resting[device.node] = device
        self._look(device, int(time.time()))

    def heard(self, node: NodeId, place: WakePlace | None, *, attached: bool) -> None:
        """A node has said what it has opened, and where it can be woken."""
        if not attached:
            self._heard_late(node)
            return
        self._came(node)
        record = self._records.get(node)
        if place is None:
            if record is not None:
                self._forget(node)
            return
        via = self._carrier(node) or ""
        if record is None and len(self._records) >= limits.RESTING_KNOWN_MAX:
            return
        if record is None or (record.place, record.via, record.knows) != (place, via, b""):
            self._keep(WakeRecord(node=node, place=place, via=via, knows=b""))

    def left(self, device: Device) -> None:
        """A node is not attached any more: from now on it is looked after here, if it can be woken."""
        record = self._records.get(device.node)
        if record is None or device.revoked is not None:
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
        self._datagrams.pop(node, None)
        self._began.setdefault(node, trio.current_time())
        self._news.set()
        return True

    async def call(self, node: NodeId) -> None:
        """Have a resting device come for a session, and wait for it, for seconds."""
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

    def _came(self, node: NodeId) -> None:
        began = self._began.get(node)
        if began is not None:
            _log.info("device.came", node=node, seconds=round(trio.current_time() - began, 3))
        self._stop_waking(node)
        self._owed.pop(node, None)
        self._resting.pop(node, None)
        self._came_pulse.fire()

    def _stop_waking(self, node: NodeId) -> None:
        if self._waking is not None:
            self._waking.handle_answered(node)
        for each in (self._began, self._reasons, self._datagrams):
            each.pop(node, None)

    def _keep(self, record: WakeRecord) -> None:
        self._records[record.node] = self._unsaved[record.node] = record
        self._news.set()

    def _forget(self, node: NodeId) -> None:
        self._came(node)
        self._records.pop(node, None)
        self._unsaved[node] = None
        self._news.set()

    async def _carry_out(self, waking: Waking, sender: WakeSender) -> None:
        orders: dict[NodeId, list[WakeOrder]] = {}
        while (command := waking.poll_command()) is not None:
            match command:
                case GiveUp(node=node):
                    _log.info("device.not_come", node=node)
                    self._began.pop(node, None)
                    self._datagrams.pop(node, None)
                case SendWake(node=node, attempt=attempt) if device := self._resting.get(node):
                    order = await self._order(device)
                    if order is None:
                        continue
                    points = self._points(device)
                    if attempt == 1 or attempt >= _POINTS_AGAIN_FROM:
                        for point in points:
                            orders.setdefault(point, []).append(order)
                    if not points or attempt >= _STRAIGHT_FROM:
                        sender.to(order.magic or order.datagram, order.endpoints)
        for point, wanted in orders.items():
            for start in range(0, len(wanted), limits.WAKE_ORDERS_MAX):
                await self._send(point, wanted[start : start + limits.WAKE_ORDERS_MAX])

    async def _send(self, point: NodeId, orders: list[WakeOrder]) -> None:
        device = self._directory.get(point)
        if device is not None:
            await self._desk.send(device, SendWakes(orders=orders))

    def _points(self, device: Device) -> list[NodeId]:
        """Return who is asked to wake a device: who carried it last, if that can be, or others."""
        now = int(time.time())
        last = NodeId(self._records[device.node].via)
        if last and self._may_wake(last, device, now):
            return [last]
        grants = self._directory.catalog.grants if self._directory.catalog is not None else {}
        return [node for node in sorted(grants) if self._may_wake(node, device, now)][:_POINTS]

    def _may_wake(self, point: NodeId, device: Device, now: int) -> bool:
        grant = self._directory.grant(point, now, "push")
        return (
            grant is not None and covers(grant.scope, device.group) and self._directory.get(point) is not None
        )

    async def _order(self, device: Device) -> WakeOrder | None:
        """Return what wakes a device: the same in all attempts, so that a repeated one is recognised."""
        place = self._records[device.node].place
        if device.node not in self._datagrams:
            reason = self._reasons.get(device.node, "synchronise")
            try:
                plain = await self._seal(device, reason, from_sleep=False)
                magic = await self._seal(device, reason, from_sleep=True) if place.macs else None
            except P2PDistError as error:
                _log.error("wake.not_sealed", node=device.node, reason=str(error))
                return None
            self._datagrams[device.node] = plain, magic
        plain, magic = self._datagrams[device.node]
        return WakeOrder(
            node=device.node,
            endpoints=[Endpoint(host=host, port=place.port) for host in place.addresses],
            port=place.port,
            datagram=plain,
            macs=place.macs,
            magic=magic,
        )

    async def _seal(self, device: Device, reason: WakeReason, *, from_sleep: bool) -> bytes:
        if self._counter >= self._reserved:
            first = await trio.to_thread.run_sync(
                self._store.reserve_counters, limits.WAKE_COUNTERS, limiter=self._threads
            )
            self._counter, self._reserved = first, first + limits.WAKE_COUNTERS
        self._counter += 1
        wake = Wake(
            counter=self._counter,
            expires=int(time.time()) + limits.WAKE_LIFE_S,
            reason=reason,
            from_sleep=from_sleep,
        )
        return WakeKey(self._key, device.public).seal(wake, nacl.utils.random(24))

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
