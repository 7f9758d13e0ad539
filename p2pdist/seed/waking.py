"""A distribution point with the duty ``push`` wakes devices for the admin server, on its own network.

It can neither make wakes nor read them: it repeats the datagrams that it got, to the device's addresses, then
to everybody on its segments, until the device is carried here or all attempts are over.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from p2pdist import limits
from p2pdist.core.scope import grant_valid
from p2pdist.core.waking import SendWake, Waking
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.magic import send_magic
from p2pdist.net.wakes import Segment, WakeSender, open_wake_sender, segments
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.messages import SendWakes
from p2pdist.wire.wakes import WakeOrder

_log = get_logger()

_SEGMENT_FROM = 2  # that attempt on, the whole segment is told: the device may have another address by now
_MAGIC_FROM = 3  # that attempt on, it may be asleep


class PointWaker:
    """See the module.

    Args:
        grant: Returns this point's grant.
        carries: Whether a device is carried here now.
    """

    def __init__(self, grant: Callable[[], SeedGrant | None], carries: Callable[[NodeId], bool]) -> None:
        self._grant = grant
        self._carries = carries
        self._orders: dict[NodeId, WakeOrder] = {}
        self._waking: Waking | None = None
        self._news = trio.Event()

    def take(self, message: SendWakes) -> None:
        """The admin server wants devices woken."""
        if not grant_valid(self._grant(), "push", int(time.time())):
            _log.warning("wakes.refused", reason="this distribution point has no grant with the duty push")
            return
        if self._waking is None:
            self._waking = Waking(trio.current_time())
        for order in message.orders:
            node = NodeId(order.node)
            self._orders[node] = order
            try:
                self._waking.handle_wanted(node, trio.current_time())
            except Unavailable as error:
                _log.warning("device.not_woken", node=node, reason=str(error))
                self._orders.pop(node, None)
        self._news.set()

    async def run(self) -> None:
        """Wake until cancelled. Nothing is opened before the first order comes."""
        while self._waking is None:
            self._news = trio.Event()
            await self._news.wait()
        waking = self._waking
        with open_wake_sender() as sender:
            while True:
                self._news = trio.Event()
                await self._carry_out(waking, sender)
                deadline = waking.next_deadline()
                with trio.move_on_at(deadline if deadline is not None else float("inf")):
                    await self._news.wait()
                waking.handle_tick(trio.current_time())

    async def _carry_out(self, waking: Waking, sender: WakeSender) -> None:
        near: list[Segment] | None = None
        while (command := waking.poll_command()) is not None:
            node = command.node
            if not isinstance(command, SendWake) or self._carries(node):
                waking.handle_answered(node)
                self._orders.pop(node, None)
                continue
            if near is None and command.attempt >= _SEGMENT_FROM:
                near = list(await trio.to_thread.run_sync(segments))
            try:
                _send(self._orders[node], command.attempt, sender, near or [])
            except P2PDistError as error:
                _log.warning("device.not_woken", node=node, reason=str(error))


def _send(order: WakeOrder, attempt: int, sender: WakeSender, near: list[Segment]) -> None:
    datagram = order.datagram
    if order.magic is not None and attempt >= _MAGIC_FROM:
        send_magic(sender, order.macs[: limits.WAKE_ADDRESSES_MAX], near)
        datagram = order.magic
    sender.to(datagram, order.endpoints)
    if attempt >= _SEGMENT_FROM:
        sender.to_segments(datagram, order.port, near)
