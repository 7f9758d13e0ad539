"""The stream that a session gets: a punched path in trio's hands."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from p2pdist.errors import PeerError, Unavailable
from p2pdist.net.rtc import credit
from p2pdist.net.rtc.events import Finish, Order, Send
from p2pdist.net.rtc.island import Stay
from p2pdist.net.rtc.report import PunchReport


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStatistics:
    """What went over a path."""

    sent_bytes: int
    received_bytes: int
    unread_bytes: int
    """Received and not read yet; at most :data:`~p2pdist.limits.PUNCH_WINDOW_BYTES`."""


class PunchedStream(trio.abc.Stream):
    """A reliable, ordered stream over a punched path. One task receives, one sends.

    :func:`~p2pdist.net.rtc.punch.open_punched` makes it. ``BrokenResourceError`` has as its cause why the
    path ended: :class:`~p2pdist.errors.Unavailable` for a path or a peer that is gone (also at the other
    side's abort), :class:`~p2pdist.errors.PeerError` for a peer that broke the protocol. Cancelling
    :meth:`receive_some` loses nothing; cancelling :meth:`send_all` leaves unknown how much was sent.

    Attributes:
        report: How the path came about.
        failure: Why the path has ended, also after an orderly end; None while it stands.
    """

    def __init__(self) -> None:
        self.report = PunchReport()
        self._stay: Stay[Order] | None = None
        self._flow = credit.Flow()
        self._inbox: deque[bytes] = deque()
        self._begun = 0  # bytes of the first item that were read already
        self.failure: BaseException | None = None
        self._closed = False
        self._changed = trio.Event()
        self._sending = _OneTask("send")
        self._receiving = _OneTask("receive")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at least a byte; empty after the other side's orderly end.

        Raises:
            BrokenResourceError: the path has ended otherwise.
            ClosedResourceError: this side has closed it.
        """
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be positive")
        await trio.lowlevel.checkpoint()
        with self._receiving():
            while not self._inbox:
                self._check_open()
                if self._flow.peer_closed and not isinstance(self.failure, PeerError):
                    return b""
                self._check_whole()
                await self._changed.wait()
            self._check_open()
            return self._take(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*, as far as the other side's reader keeps up, and at most a window ahead of it.

        Raises:
            BrokenResourceError: the path has ended, or the other side reads no more.
            ClosedResourceError: this side has closed it.
        """
        with self._sending():
            await trio.lowlevel.checkpoint()
            rest = memoryview(data).cast("B")
            self._check_sendable()
            while rest:
                part = rest[: await self._wait_sendable()]
                self._order(Send(self._flow.send(part)), len(part))
                rest = rest[len(part) :]

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is credit. Raises what :meth:`send_all` raises."""
        with self._sending():
            await trio.lowlevel.checkpoint()
            await self._wait_sendable()

    async def aclose(self) -> None:
        """End the path; the other side gets everything that was sent, and then the end.

        It waits for that while some of it arrives every :data:`~p2pdist.limits.PUNCH_CLOSE_S`. Cancelled, it
        ends the path at once, and the other side gets an error. Nothing of the path is left afterwards.
        """
        first, self._closed = not self._closed, True
        self._wake()
        try:
            await trio.lowlevel.checkpoint()
            if first and self.failure is None:
                self._order(Send(credit.CLOSE), len(credit.CLOSE))
                self._order(Finish())
        finally:
            if self._stay is not None:
                await self._stay.wait_ended()

    def statistics(self) -> StreamStatistics:
        """Return what has gone over it so far."""
        return StreamStatistics(
            sent_bytes=self._flow.sent_bytes,
            received_bytes=self._flow.received_bytes,
            unread_bytes=sum(map(len, self._inbox)) - self._begun,
        )

    def attach(self, stay: Stay[Order]) -> None:
        """Tell it which path it stands for; for the one who makes it."""
        self._stay = stay

    def receive_nowait(self, message: bytes) -> None:
        """Take a message of the channel; for the one who hands over events."""
        if self.failure is not None:
            return
        try:
            frame = credit.parse_frame(message)
            self._flow.receive(frame)
        except PeerError as error:
            self.fail(error)
            return
        if isinstance(frame, credit.Data):
            self._inbox.append(frame.data)
        self._wake()

    def fail(self, error: BaseException | None) -> None:
        """Take note that the path has ended or has to; for the one who hands over events."""
        if self.failure is None:
            self.failure = error or Unavailable("the punched path was closed")
        if self._stay is not None:
            self._stay.cancel()
        self._wake()

    async def _wait_sendable(self) -> int:
        while True:
            self._check_sendable()
            if self._flow.sendable_bytes:
                return self._flow.sendable_bytes
            await self._changed.wait()

    def _take(self, max_bytes: int | None) -> bytes:
        first = self._inbox[0]
        end = len(first) if max_bytes is None else min(self._begun + max_bytes, len(first))
        taken, self._begun = first[self._begun : end], end
        if end == len(first):
            self._inbox.popleft()
            self._begun = 0
            if (grant := self._flow.consume(len(first))) and self.failure is None:
                self._order(Send(grant), len(grant))
        return taken

    def _order(self, order: Order, size_bytes: int = 0) -> None:
        if self._stay is not None:
            self._stay.order(order, size_bytes)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this side has closed the stream")

    def _check_whole(self) -> None:
        if self.failure is not None:
            raise trio.BrokenResourceError(str(self.failure)) from self.failure

    def _check_sendable(self) -> None:
        self._check_open()
        self._check_whole()
        if self._flow.peer_closed:
            raise trio.BrokenResourceError("the other side has closed the stream")

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _OneTask:
    """Keeps a second task out of what one task at a time may do."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._busy = False

    @contextmanager
    def __call__(self) -> Iterator[None]:
        if self._busy:
            raise trio.BusyResourceError(f"another task is waiting to {self._what}")
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
