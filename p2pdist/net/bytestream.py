"""A byte stream over a link, as a trio stream. No tasks of its own.

Its two halves end independently. What arrives and is not read is bounded by HTTP/2's window of the
stream, what waits to be sent by :data:`~p2pdist.limits.LINK_STREAM_QUEUE_BYTES` and one portion more.
Breaking it off tells the other side why, in trailers before the reset.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, Unavailable
from p2pdist.net.asking import error_of, problem_of
from p2pdist.net.events import BodyEnded, BodyReceived, StreamBroken, StreamEvent, StreamReset
from p2pdist.net.http2 import Session
from p2pdist.net.pulse import Pulse
from p2pdist.wire import codec
from p2pdist.wire.requests import Problem

_PORTION_BYTES: Final = 64 * limits.KIB  # read, or queued, at once
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class ByteStream(trio.abc.HalfCloseableStream):
    """See the module. One task may receive and one may send at the same time.

    A stream that is broken raises ``trio.BrokenResourceError``, whose cause says why in our own
    families; nothing more is read from it, unless its other half had ended already. How long it may be
    idle is its owner's business.

    Args:
        session: The link's session.
        number: The stream's, in the session.
        wake: Called when the session has something to send.
        peer: How to name the other side in errors.
        left: Called once, when this side has done with the stream.
    """

    __slots__ = (
        "_arrived",
        "_closed",
        "_error",
        "_input_over",
        "_left",
        "_more",
        "_number",
        "_output_over",
        "_peer",
        "_receiving",
        "_room",
        "_sending",
        "_session",
        "_wake",
    )

    def __init__(
        self,
        session: Session,
        number: int,
        *,
        wake: Callable[[], None],
        peer: str,
        left: Callable[[int], object],
    ) -> None:
        self._session = session
        self._number = number
        self._wake = wake
        self._peer = peer
        self._left = left
        self._arrived = bytearray()
        self._input_over = self._output_over = self._closed = False
        self._error: P2PDistError | None = None
        self._more = Pulse()
        self._room = Pulse()
        self._receiving = _Alone("another task receives from this stream")
        self._sending = _Alone("another task sends on this stream")

    # For whoever uses it ---------------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Return what has arrived, at least one byte; empty when the other side has said everything.

        Cancellation loses nothing.

        Raises:
            BrokenResourceError: the other side broke the stream off, or the link ended.
            ClosedResourceError: this side has closed it.
        """
        most = _PORTION_BYTES if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving.alone():
            await trio.lowlevel.checkpoint()
            while not self._arrived:
                self._check_open()
                if self._input_over:
                    return bytearray()
                self._check_whole()
                await self._more.wait()
            self._check_open()
            return self._take(most)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Queue *data*; wait while the other side does not take what is queued already.

        Returning does not mean that it has arrived. Cancellation may leave a part of it unsent.

        Raises:
            BrokenResourceError: the other side takes nothing more, or the link ended.
            ClosedResourceError: this side has closed the stream, or this half of it.
        """
        rest = memoryview(data)
        with self._sending.alone():
            await trio.lowlevel.checkpoint()
            self._check_may_send()
            while rest:
                await self._wait_room()
                self._session.send(self._number, bytes(rest[:_PORTION_BYTES]))
                self._wake()
                rest = rest[_PORTION_BYTES:]

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room in the queue. Raises what :meth:`send_all` raises."""
        with self._sending.alone():
            await trio.lowlevel.checkpoint()
            await self._wait_room()

    async def send_eof(self) -> None:
        """Say that nothing follows in this direction. Can be repeated; raises what sending raises."""
        with self._sending.alone():
            await trio.lowlevel.checkpoint()
            if self._closed or not self._output_over:
                self._check_may_send()
                self._end_output()

    async def aclose(self) -> None:
        """Say that nothing follows, and close both halves. Can be repeated.

        Waits until what is queued has left, unless the other side takes nothing for
        :data:`~p2pdist.limits.REQUEST_TIMEOUT_S`. Cancellation closes it at once.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._close()
        try:
            if not self._output_over and self._error is None:
                self._end_output()
            await self._wait_left()
        finally:
            if not self._done():
                self._session.reset(self._number)
            self._wake()
            self._left(self._number)

    def abort(self, error: P2PDistError) -> None:
        """Break the stream off: what is queued is dropped, and the other side is told *error*.

        Nothing happens if this side has closed it already.
        """
        if self._closed:
            return
        self._close()
        if not self._output_over or self._session.unfinished(self._number):
            problem = problem_of(error, chars_max=limits.LINK_REASON_CHARS_MAX)
            self._session.break_off(self._number, codec.encode(problem))
        elif not self._input_over:
            self._session.reset(self._number)  # where everything is said, nothing can be added
        self._wake()
        self._left(self._number)

    # For the link ----------------------------------------------------------------------------------

    def handle(self, event: StreamEvent) -> None:
        """Take in what happened on the stream."""
        match event:
            case BodyReceived(data=data):
                if not self._closed and self._error is None:
                    self._arrived += data
            case BodyEnded():
                self._input_over = self._error is None
            case StreamBroken(problem=problem):
                self._fail(refusal_in(problem, self._peer))
            case StreamReset():
                self._fail(Unavailable(f"{self._peer} gave the stream up"))
        self._more.fire()
        self._room.fire()

    def sent(self) -> None:
        """Some of what was queued on the link has left."""
        self._room.fire()

    def end(self, error: P2PDistError) -> None:
        """The link has ended because of *error*."""
        self._fail(error)
        self._more.fire()
        self._room.fire()

    # Inside ------------------------------------------------------------------------------------------

    def _fail(self, error: P2PDistError) -> None:
        self._error = self._error or error
        if not self._input_over:
            self._arrived.clear()

    def _take(self, most: int) -> bytearray:
        taken = self._arrived[:most]
        del self._arrived[:most]
        self._session.consumed(self._number, len(taken))
        self._wake()
        return taken

    def _end_output(self) -> None:
        self._output_over = True
        self._session.send(self._number, b"", end=True)
        self._wake()

    def _close(self) -> None:
        self._closed = True
        self._arrived.clear()
        self._more.fire()
        self._room.fire()

    def _done(self) -> bool:
        """Whether both sides have said everything."""
        return self._input_over and self._output_over and not self._session.unfinished(self._number)

    async def _wait_room(self) -> None:
        while True:
            self._check_may_send()
            if self._session.waiting(self._number)[1] < limits.LINK_STREAM_QUEUE_BYTES:
                return
            await self._room.wait()

    async def _wait_left(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._error is None and self._session.unfinished(self._number):
            _, before = self._session.waiting(self._number)
            with trio.move_on_after(limits.REQUEST_TIMEOUT_S) as scope:
                while self._error is None and self._session.waiting(self._number)[1] == before:
                    if not self._session.unfinished(self._number):
                        return
                    await self._room.wait()
            if scope.cancelled_caught:
                return

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this side has closed the stream")

    def _check_whole(self) -> None:
        if self._error is not None:
            raise trio.BrokenResourceError(str(self._error)) from self._error

    def _check_may_send(self) -> None:
        self._check_open()
        if self._output_over:
            raise trio.ClosedResourceError("this side has said that nothing follows")
        self._check_whole()


@asynccontextmanager
async def closing(stream: ByteStream) -> AsyncIterator[ByteStream]:
    """Close the stream with the block; what the block raises, the other side is told as the reason."""
    try:
        yield stream
    except BaseException as error:
        stream.abort(reason_of(error) or Unavailable("the stream was given up"))
        raise
    await stream.aclose()


def reason_of(error: BaseException) -> P2PDistError | None:
    """Return what the other side may be told of *error*; None if it is a defect or a cancellation."""
    if isinstance(error, P2PDistError):
        return error
    if isinstance(error, BaseExceptionGroup):
        reasons = [reason_of(each) for each in error.exceptions]
        return reasons[0] if all(reasons) else None
    if isinstance(error, _GONE):
        cause = reason_of(error.__cause__) if error.__cause__ is not None else None
        return cause or Unavailable("the connection behind the stream was lost")
    return None


def refusal_in(problem: bytes, peer: str) -> P2PDistError:
    """Return what *peer* says went wrong; a PeerError if that makes no sense."""
    try:
        said: Problem = codec.decode(problem, Problem)
    except PeerError as error:
        return PeerError(f"{peer} refuses without a valid reason: {error.what}")
    return error_of(said)


class _Alone:
    """Lets one task in at a time, and refuses the others."""

    __slots__ = ("_taken", "_why")

    def __init__(self, why: str) -> None:
        self._taken = False
        self._why = why

    @contextmanager
    def alone(self) -> Iterator[None]:
        if self._taken:
            raise trio.BusyResourceError(self._why)
        self._taken = True
        try:
            yield
        finally:
            self._taken = False
