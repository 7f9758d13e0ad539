"""A link after its handshake: frames, requests and the end, over any trio stream.

    opened ── established ── ended ── closed

It is *established* when both sides have said that they want it, *ended* when nothing more can be sent
or will arrive, and *closed* when the connection is gone too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, Unavailable, UsageError
from p2pdist.net.answering import Answerer, RequestTable
from p2pdist.net.asking import Asker, again
from p2pdist.net.carrier import Carrier
from p2pdist.net.control import PATH, ControlStream, FrameIterator
from p2pdist.net.events import (
    AnswerStarted,
    BodyEnded,
    BodyReceived,
    PingAnswered,
    RequestStarted,
    SessionEnded,
    SessionEvent,
    SessionReady,
    StreamEvent,
    StreamReset,
)
from p2pdist.net.framing import pack_frame, unpack_frame
from p2pdist.net.http2 import Session
from p2pdist.net.opening import Opening
from p2pdist.net.pulse import Pulse
from p2pdist.trust.certificates import NodeCertificate
from p2pdist.wire.frames import AnyFrame

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """What a link has done so far, and what waits on it now.

    Bytes are those of HTTP/2, before encryption. ``requests`` are those with an answer in either
    direction. ``round_trip_s`` is from the last keepalive; None before the first.
    """

    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    frames_waiting: int
    frames_unread: int
    requests: int
    requests_under_way: int
    round_trip_s: float | None


class Link:
    """A connection with one neighbour, on which both sides say what they want and one side asks.

    Made by :func:`~p2pdist.net.link.open_link` and :func:`~p2pdist.net.link.serve_links`.

    Args:
        stream: A connection on which everything is secured already.
        dialler: Whether this side opened it.
        remote: What the neighbour's certificate says.
        remote_host: Its address as this side sees it.
        local_host: Our address on this connection.
        requests: What this side answers.
        member: Whether frames flow: both sides have shown a certificate.
        refusal: Why this side refuses everything, if it does.
        sever: Cuts the connection at once, without waiting.

    Attributes:
        remote: None for a stranger.
        remote_host: The neighbour's address.
        local_host: Our address.
    """

    __slots__ = (
        "_answerer",
        "_asker",
        "_carrier",
        "_control",
        "_frames_received",
        "_frames_sent",
        "_inbox",
        "_opening",
        "_room",
        "_session",
        "local_host",
        "remote",
        "remote_host",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        *,
        dialler: bool,
        remote: NodeCertificate | None,
        remote_host: str,
        local_host: str,
        requests: RequestTable,
        member: bool,
        refusal: P2PDistError | None = None,
        sever: Callable[[], object],
    ) -> None:
        self.remote = remote
        self.remote_host = remote_host
        self.local_host = local_host
        self._session = Session(dialler=dialler)
        self._carrier = Carrier(stream, self._session, self, dialler=dialler, peer=self.peer, sever=sever)
        self._control = ControlStream(self._session)
        self._asker = Asker(self._session, self._carrier.wake, self.peer) if dialler else None
        self._answerer = Answerer(
            self, self._session, self._carrier.wake, requests, stranger=not member, refusal=refusal
        )
        self._opening = Opening(self._session, self._control, self._answerer, member=member)
        self._inbox = Pulse()
        self._room = Pulse()
        self._frames_sent = self._frames_received = 0
        if dialler and member:
            self._control.open(self._session.open(PATH))

    def __repr__(self) -> str:
        return f"<Link with {self.peer}{' (ended)' if self._carrier.end else ''}>"

    @property
    def peer(self) -> str:
        """How errors and logs name the other side."""
        return f"{self.remote.node if self.remote else 'a stranger'} at {self.remote_host}"

    @property
    def refused(self) -> bool:
        """Whether this side answers nothing that the neighbour asks."""
        return self._answerer.refusal is not None

    @property
    def busy(self) -> bool:
        """Whether a request of the neighbour is being worked on."""
        return self._answerer.running > 0

    @property
    def end_reason(self) -> str:
        """Why the link has ended; empty while it lives."""
        return self._carrier.end.what if self._carrier.end is not None else ""

    @property
    def fell_silent(self) -> bool:
        """Whether the link has ended because nothing was heard of the neighbour any more."""
        return self._carrier.silent

    # Frames --------------------------------------------------------------------------------------

    async def send(self, frame: AnyFrame) -> None:
        """Queue a frame; wait first while the neighbour is too slow for what is queued already.

        Returning does not mean that it has arrived. Cancellation leaves it unsent.

        Raises:
            Unavailable: the link has ended, before or while waiting.
            UsageError: the frame is too large, or this link carries no frames.
        """
        packed = pack_frame(frame)
        await trio.lowlevel.checkpoint()
        while not self._may_queue(len(packed)):
            await self._room.wait()
        self._queue(packed)

    def send_nowait(self, frame: AnyFrame) -> None:
        """Queue a frame without waiting.

        Raises:
            Unavailable: the queue is full, or the link has ended.
            UsageError: the frame is too large, or this link carries no frames.
        """
        packed = pack_frame(frame)
        if not self._may_queue(len(packed)):
            raise Unavailable(f"{self.peer} does not read fast enough", hint="send less, or drop the link")
        self._queue(packed)

    def frames(self) -> AsyncIterator[AnyFrame]:
        """Iterate over the neighbour's frames. One task at a time; leaving early needs no clean-up.

        What arrived before the end is still delivered. The iterator ends when the link was closed by
        either side or got lost (see :attr:`end_reason`).

        Raises:
            PeerError: the neighbour broke the protocol.
            Unavailable: the neighbour closed the link for a reason that it gave.
        """
        return FrameIterator(self._next_frame)

    # Requests ------------------------------------------------------------------------------------

    async def request(
        self, path: str, body: Any, answer_type: type[T], *, timeout_s: float = limits.REQUEST_TIMEOUT_S
    ) -> T:
        """Ask the neighbour, and return its validated answer. Only the dialler asks.

        Args:
            path: What is asked, such as ``/bundle``.
            body: The question's structure.
            answer_type: The answer's type.
            timeout_s: Seconds without a byte of the answer after which it is given up. A long answer
                may take longer in all, at :data:`~p2pdist.limits.LINK_RATE_MIN_BYTES_PER_S` at least.

        Raises:
            Unavailable: no answer in time, or the link ended.
            PeerError: the answer is malformed or too large.
            P2PDistError: what the neighbour says went wrong, in the family that it names.

        Cancellation tells the neighbour that the answer is not needed any more.
        """
        if self._asker is None:
            raise UsageError("only the side that dialled asks on a link", hint="send a frame instead")
        with self._carrier.awaiting():
            return await self._asker.request(path, body, answer_type, timeout_s=timeout_s)

    def awaiting(self) -> AbstractContextManager[None]:
        """Wait for something of the neighbour in the block: if it falls silent, it is gone in seconds.

        For the side that dialled. A request does it by itself.
        """
        return self._carrier.awaiting()

    # Life ----------------------------------------------------------------------------------------

    async def wait_established(self) -> None:
        """Wait until the neighbour has accepted the link. Raises what ended it, if that came first."""
        await self._opening.wait_decided()
        if self._carrier.end is not None and (self._carrier.loud or not self._opening.accepted):
            raise again(self._carrier.end)

    async def wait_ended(self) -> None:
        """Wait until the link has ended, however."""
        while self._carrier.end is None:
            await self._inbox.wait()

    async def aclose(self, reason: str = "") -> None:
        """Say goodbye and end the link; return when it is closed. Can be repeated.

        Takes at most :data:`~p2pdist.limits.LINK_CLOSE_S`. Cancellation closes it at once.

        Args:
            reason: Why, if it is the neighbour's fault; it travels to it.
        """
        await self._carrier.aclose(reason)

    def abort(self, reason: str) -> None:
        """End the link at once: nothing more is sent, and no frame that has not been read is delivered."""
        self._control.drop_unread()
        self._carrier.abort(Unavailable(f"the link with {self.peer} was cut: {reason}"))

    def statistics(self) -> LinkStatistics:
        """Return a snapshot of the link's counters."""
        asked, asking = (self._asker.asked, self._asker.under_way) if self._asker is not None else (0, 0)
        return LinkStatistics(
            frames_sent=self._frames_sent,
            frames_received=self._frames_received,
            bytes_sent=self._carrier.bytes_sent,
            bytes_received=self._carrier.bytes_received,
            frames_waiting=self._control.frames_waiting,
            frames_unread=self._control.frames_unread,
            requests=asked + self._answerer.answered,
            requests_under_way=asking + self._answerer.under_way,
            round_trip_s=self._carrier.round_trip_s,
        )

    # For the doors ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self, *, watched: bool = False) -> AsyncIterator[None]:
        """Carry the link for as long as the block runs, and close it afterwards.

        An exception of the block comes out as it is. Cancellation says goodbye if that is possible
        within :data:`~p2pdist.limits.LINK_CLOSE_S`.

        Args:
            watched: Whether somebody else calls :meth:`watch`.
        """
        async with self._carrier.running() as nursery:
            if not watched:
                nursery.start_soon(self._keep_watch)
            yield

    def watch(self, now: float) -> None:
        """Look at the link's silence and deadlines; call it every :data:`~p2pdist.limits.LINK_WATCH_S`."""
        if self._carrier.end is not None:
            return
        stuck = self._control.stuck_s(now)
        if stuck >= limits.LINK_DEAD_AFTER_S:
            self.abort(f"it has read nothing for {stuck:.0f} s")
        elif self._expired():
            self.abort("its certificate has expired")
        else:
            self._answerer.expire(now)
            self._carrier.keep_alive(now)

    async def _keep_watch(self) -> None:
        while True:
            await trio.sleep(limits.LINK_WATCH_S)
            self.watch(trio.current_time())

    # What the carrier tells ------------------------------------------------------------------------

    def happened(self, event: SessionEvent, nursery: trio.Nursery) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        match event:
            case SessionReady():
                self._opening.ready()
            case RequestStarted(stream=stream, path=path) if path == PATH:
                self._opening.asked(stream)
            case PingAnswered() | SessionEnded():
                pass  # the carrier's own
            case _ if event.stream == self._control.stream:
                self._handle_control(event)
            case _ if self._asker is not None:
                self._asker.handle(event)
            case _:
                self._answerer.handle(event, nursery)

    def output(self) -> bytes:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        return self._control.output()

    def sent(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        self._answerer.sent()
        self._room.fire()

    def ended(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        if self._asker is not None and self._carrier.end is not None:
            self._asker.end(self._carrier.end)
        self._answerer.end()
        self._opening.decide(False)
        self._inbox.fire()
        self._room.fire()

    # The control stream ----------------------------------------------------------------------------

    def _handle_control(self, event: StreamEvent) -> None:
        match event:
            case AnswerStarted(status=status):
                self._opening.answered(status)
            case BodyReceived(data=data) if not self._opening.accepted:
                self._opening.explained(data)
            case BodyReceived(data=data):
                self._control.feed(data)
                self._inbox.fire()
            case BodyEnded() | StreamReset():
                refusal = self._opening.refusal()
                ended = refusal or Unavailable(f"{self.peer} closed the control stream")
                self._carrier.finish(ended, loud=refusal is not None)

    async def _next_frame(self) -> AnyFrame | None:
        await trio.lowlevel.checkpoint()
        while (packed := self._control.take()) is None:
            if self._carrier.end is not None:
                if self._carrier.loud:
                    raise again(self._carrier.end)
                return None
            await self._inbox.wait()
        self._carrier.wake()
        try:
            frame = unpack_frame(packed)
        except PeerError as error:
            named = PeerError(f"{self.peer} sent what is no frame: {error.what}", hint=error.hint)
            self._control.drop_unread()
            self._carrier.finish(named, loud=True, farewell=error.what)
            raise named from error
        self._frames_received += 1
        return frame

    def _may_queue(self, count: int) -> bool:
        if self._carrier.end is not None:
            raise again(self._carrier.end)
        if not self._control.stream:
            raise UsageError(f"the link with {self.peer} carries no frames", hint="enrol first")
        return self._control.has_room(count)

    def _queue(self, packed: bytes) -> None:
        self._control.queue(packed)
        self._frames_sent += 1
        self._carrier.wake()

    def _expired(self) -> bool:
        if self.remote is None:
            return False
        return time.time() > self.remote.not_after.timestamp() + limits.CLOCK_SKEW_S
