"""Frames on a link, with whoever waits for them: readers for the next one, senders for room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.net.asking import again
from p2pdist.net.carrier import Carrier
from p2pdist.net.control import ControlStream
from p2pdist.net.framing import pack_frame, unpack_frame
from p2pdist.net.pulse import Pulse
from p2pdist.wire.frames import AnyFrame


class FrameFlow:
    """See the module; the methods are those of :class:`.established.Link`.

    Args:
        control: The link's control stream.
        carrier: What carries it.
        peer: How errors name the other side.

    Attributes:
        sent, received: How many frames so far.
    """

    __slots__ = ("_carrier", "_control", "_inbox", "_peer", "_room", "received", "sent")

    def __init__(self, control: ControlStream, carrier: Carrier, peer: str) -> None:
        self._control = control
        self._carrier = carrier
        self._peer = peer
        self._inbox = Pulse()
        self._room = Pulse()
        self.sent = self.received = 0

    async def send(self, frame: AnyFrame) -> None:
        """Queue a frame; wait first while the neighbour is too slow for what is queued already."""
        packed = pack_frame(frame)
        await trio.lowlevel.checkpoint()
        while not self._may_queue(len(packed)):
            await self._room.wait()
        self._queue(packed)

    def send_nowait(self, frame: AnyFrame) -> None:
        """Queue a frame without waiting."""
        packed = pack_frame(frame)
        if not self._may_queue(len(packed)):
            raise self._too_slow()
        self._queue(packed)

    def push(self, packed: bytes) -> None:
        """Queue a packed frame, and send it at once if that needs no wait."""
        if not self._may_queue(len(packed)):
            raise self._too_slow()
        self._control.queue(packed)
        self.sent += 1
        self._carrier.push()

    async def next(self) -> AnyFrame | None:
        """Return the next frame; None when there will be no other. Raises what the link's end is."""
        if self._control.frames_unread or self._carrier.end is not None:
            await trio.lowlevel.checkpoint()  # otherwise waiting is one
        while (packed := self._control.take()) is None:
            if self._carrier.end is not None:
                if self._carrier.loud:
                    raise again(self._carrier.end)
                return None
            await self._inbox.wait()
        if self._control.window_opened:
            self._carrier.wake()
        try:
            frame = unpack_frame(packed)
        except PeerError as error:
            named = PeerError(f"{self._peer} sent what is no frame: {error.what}", hint=error.hint)
            self._control.drop_unread()
            self._carrier.finish(named, loud=True, farewell=error.what)
            raise named from error
        self.received += 1
        return frame

    def arrived(self, data: bytes) -> None:
        """Bytes of the control stream have arrived. Raises PeerError when they can be no frames."""
        self._control.feed(data)
        self._inbox.fire()

    def left(self) -> None:
        """Bytes have left: there may be room for more."""
        self._room.fire()

    def end(self) -> None:
        """The link has ended: nobody waits any more."""
        self._inbox.fire()
        self._room.fire()

    def _may_queue(self, count: int) -> bool:
        if self._carrier.end is not None:
            raise again(self._carrier.end)
        if not self._control.stream:
            raise UsageError(f"the link with {self._peer} carries no frames", hint="enrol first")
        return self._control.has_room(count)

    def _too_slow(self) -> Unavailable:
        return Unavailable(f"{self._peer} does not read fast enough", hint="send less, or drop the link")

    def _queue(self, packed: bytes) -> None:
        self._control.queue(packed)
        self.sent += 1
        self._carrier.wake()


class FrameIterator:
    """Iterates over what *take* returns until it returns None; leaving it early needs no clean-up."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[], Awaitable[AnyFrame | None]]) -> None:
        self._take = take

    def __aiter__(self) -> FrameIterator:
        return self

    async def __anext__(self) -> AnyFrame:
        frame = await self._take()
        if frame is None:
            raise StopAsyncIteration
        return frame
