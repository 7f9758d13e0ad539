"""An asyncio event loop in a thread of its own, for libraries that want asyncio.

A *resident* is an object with one coroutine that lives on the island. Trio sends it orders and gets its
events; both cross by a :class:`Handover`, which wakes the other side once however much there is, and
refuses what exceeds its cap. Neither side ever waits for the other inside its own loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.logs import get_logger

_log = get_logger("island")

Item = TypeVar("Item")
Event = TypeVar("Event")
Order = TypeVar("Order")
Order_contra = TypeVar("Order_contra", contravariant=True)


class Handover(Generic[Item]):
    """A bounded queue from one thread into the loop of another, with one wake-up at a time.

    Args:
        schedule: Runs a function in the receiving loop soon; callable from any thread.
        deliver: Takes each item there, in order.
        bytes_max: How many bytes may wait.
    """

    __slots__ = ("_bytes_max", "_deliver", "_items", "_lock", "_schedule", "_waiting_bytes", "_woken")

    def __init__(
        self,
        schedule: Callable[[Callable[[], None]], object],
        deliver: Callable[[Item], None],
        *,
        bytes_max: int,
    ) -> None:
        self._schedule = schedule
        self._deliver = deliver
        self._bytes_max = bytes_max
        self._items: deque[tuple[Item, int]] = deque()
        self._waiting_bytes = 0
        self._woken = False
        self._lock = threading.Lock()

    def put(self, item: Item, size_bytes: int = 0) -> bool:
        """Queue *item*; return False, and drop it, where it does not fit or the receiving loop is gone."""
        with self._lock:
            if self._waiting_bytes + size_bytes > self._bytes_max:
                return False
            self._waiting_bytes += size_bytes
            self._items.append((item, size_bytes))
            wake, self._woken = not self._woken, True
        if wake:
            try:
                self._schedule(self._take)
            except (trio.RunFinishedError, RuntimeError):  # that loop has ended
                return False
        return True

    def _take(self) -> None:
        with self._lock:
            self._woken = False
            taken = list(self._items)
            self._items.clear()
            self._waiting_bytes = 0
        for item, _ in taken:
            self._deliver(item)


class Resident(Protocol[Order_contra]):
    """What lives on the island: made, run and spoken to in its thread only."""

    async def run(self) -> None:
        """Live. Ends within :data:`~p2pdist.limits.PUNCH_CLOSE_S` when it is cancelled."""

    def handle(self, order: Order_contra) -> None:
        """Carry out an order. It must not raise."""


class Stay(Generic[Order]):
    """One resident's life, seen from trio.

    Attributes:
        ended: Set when the resident's coroutine has ended and what it held is free.
        error: What it ended with; None after an orderly end or a cancellation.
    """

    __slots__ = ("_cancel", "_orders", "ended", "error")

    def __init__(self, orders: Handover[Order], cancel: Callable[[], None]) -> None:
        self._orders = orders
        self._cancel = cancel
        self.ended = trio.Event()
        self.error: BaseException | None = None

    def order(self, order: Order, size_bytes: int = 0) -> None:
        """Tell the resident to do something; nothing happens when it has ended.

        Raises:
            UsageError: too much waits already: the caller should have waited for its credit.
        """
        if not self._orders.put(order, size_bytes) and not self.ended.is_set():
            raise UsageError(f"{size_bytes} bytes more do not fit into the queue to the island")

    def cancel(self) -> None:
        """Have it end at once."""
        self._cancel()

    async def wait_ended(self) -> None:
        """Wait for its end. When cancelled, cancel it, and still wait while it frees what it holds."""
        try:
            await self.ended.wait()
        finally:
            if not self.ended.is_set():
                self.cancel()
                with trio.move_on_after(limits.ISLAND_CLOSE_S, shield=True):
                    await self.ended.wait()


class Island:
    """The loop and its thread; made by :func:`open_island`. The thread starts with the first resident."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._leave = asyncio.Event()
        self._left = trio.Event()
        self._closed = False

    def settle(
        self,
        make: Callable[[Callable[[Event, int], bool]], Resident[Order]],
        deliver: Callable[[Event], None],
        ended: Callable[[], None],
    ) -> Stay[Order]:
        """Let a resident live on the island until it ends, is cancelled, or the island closes.

        Args:
            make: Makes it, on the island. Its argument takes an event and its size in bytes, and returns
                False where more waits than :data:`~p2pdist.limits.PUNCH_WINDOW_BYTES` allows.
            deliver: Takes its events, in trio's thread. It must not raise.
            ended: Called there after the last event, when :attr:`Stay.ended` is set.

        Raises:
            UsageError: the island is closed.
        """
        if self._closed:
            raise UsageError("the island is closed", hint="keep it open for as long as its paths")
        loop = self._loop or self._start()
        events = Handover(self._token.run_sync_soon, deliver, bytes_max=_HANDOVER_BYTES_MAX)
        early: list[Order] = []  # from before it was made, within one turn of the loop
        resident: Resident[Order] | None = None
        task: asyncio.Task[None] | None = None

        async def live() -> None:
            nonlocal resident
            resident = make(events.put)
            for order in early:
                resident.handle(order)
            await resident.run()

        def begin() -> None:
            nonlocal task
            task = loop.create_task(live())
            self._tasks.add(task)
            task.add_done_callback(finish)

        def finish(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(conclude, error)

        def conclude(error: BaseException | None) -> None:
            stay.error = error
            stay.ended.set()
            ended()

        def handle(order: Order) -> None:
            if resident is None:
                early.append(order)
            elif task is not None and not task.done():
                resident.handle(order)

        def cancel() -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: _cancel_once(task))

        stay = Stay(Handover(loop.call_soon_threadsafe, handle, bytes_max=_HANDOVER_BYTES_MAX), cancel)
        loop.call_soon_threadsafe(begin)
        return stay

    async def aclose(self) -> None:
        """Cancel every resident, wait for their ends, and stop the thread."""
        if self._closed or self._loop is None or self._thread is None:
            self._closed = True
            return
        self._closed = True
        self._loop.call_soon_threadsafe(self._leave.set)
        with trio.move_on_after(limits.ISLAND_CLOSE_S, shield=True) as scope:
            await self._left.wait()
        if scope.cancelled_caught:
            _log.warning("the island did not stop; its thread is left behind")
        else:
            self._thread.join()  # it is past its last statement

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_log_unhandled)
        self._thread = threading.Thread(target=self._live, args=(self._loop,), name="island", daemon=True)
        self._thread.start()
        return self._loop

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._stay())
        finally:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._left.set)

    async def _stay(self) -> None:
        await self._leave.wait()
        for task in self._tasks:
            _cancel_once(task)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.PUNCH_CLOSE_S)


_HANDOVER_BYTES_MAX = 2 * limits.PUNCH_WINDOW_BYTES
"""A whole window, and the frames that cost no credit."""


@asynccontextmanager
async def open_island() -> AsyncIterator[Island]:
    """Own an island: its thread starts with the first resident and has ended when the block has.

    Cancellation ends every resident; that takes at most :data:`~p2pdist.limits.ISLAND_CLOSE_S`.
    """
    island = Island()
    try:
        yield island
    finally:
        await island.aclose()


def _cancel_once(task: asyncio.Task[None] | None) -> None:
    """Cancel a task that is not leaving already: a second cancellation would disturb its clean-up."""
    if task is not None and not task.cancelling():
        task.cancel()


def _log_unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Note what a library left unhandled: a task that found its path closed, a malformed datagram."""
    _log.debug(
        "unhandled on the island", message=context.get("message"), error=repr(context.get("exception"))
    )
