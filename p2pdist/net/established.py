"""A link after its handshake: frames, requests and the end, over any trio stream.

    opened ── established ── ended ── closed

It is *established* when both sides have said that they want it, *ended* when nothing more can be sent
or will arrive, and *closed* when the connection is gone too.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.net.answering import RequestTable
from p2pdist.net.asking import again
from p2pdist.net.bytestream import ByteStream, closing
from p2pdist.net.carrier import Carrier
from p2pdist.net.control import PATH, ControlStream
from p2pdist.net.events import (
    AnswerStarted,
    BodyEnded,
    BodyReceived,
    PaceSet,
    PingAnswered,
    RequestStarted,
    SessionEnded,
    SessionEvent,
    SessionReady,
    StreamEvent,
    StreamReset,
)
from p2pdist.net.exchanges import Exchanges
from p2pdist.net.flushing import Flusher
from p2pdist.net.frameflow import FrameFlow, FrameIterator
from p2pdist.net.http2 import Session
from p2pdist.net.opening import Opening
from p2pdist.net.streaming import StreamTable
from p2pdist.trust.certificates import NodeCertificate
from p2pdist.wire.frames import AnyFrame

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """What a link has done so far, and what waits on it now.

    Bytes are those of HTTP/2, before encryption. ``requests`` are those with an answer in either
    direction, ``streams`` the byte streams that are open now. ``round_trip_s`` is from the last
    keepalive; None before the first.
    """

    frames_sent: int
    frames_received: int
    bytes_sent: int
    bytes_received: int
    frames_waiting: int
    frames_unread: int
    requests: int
    requests_under_way: int
    streams: int
    round_trip_s: float | None


class Link:
    """A connection with one neighbour, on which both sides say and ask what they want.

    Made by :func:`~p2pdist.net.link.open_link` and :func:`~p2pdist.net.link.serve_links`.

    Args:
        stream: A connection on which everything is secured already.
        dialler: Whether this side opened it.
        remote: What the neighbour's certificate says.
        remote_host: Its address as this side sees it.
        local_host: Our address on this connection.
        requests: What this side answers.
        streams: What byte streams it serves.
        member: Whether frames flow: both sides have shown a certificate.
        refusal: Why this side refuses everything, if it does.
        sever: Cuts the connection at once, without waiting.
        flusher: What sends for many links at once, if that is run.

    Attributes:
        remote: None for a stranger.
        remote_host, local_host: The neighbour's address, and ours.
    """

    __slots__ = (
        "_carrier",
        "_control",
        "_exchanges",
        "_frames",
        "_opening",
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
        streams: StreamTable,
        member: bool,
        refusal: P2PDistError | None = None,
        sever: Callable[[], object],
        flusher: Flusher | None = None,
    ) -> None:
        self.remote = remote
        self.remote_host = remote_host
        self.local_host = local_host
        self._session = Session(dialler=dialler)
        self._carrier = Carrier(
            stream, self._session, self, dialler=dialler, peer=self.peer, sever=sever, flusher=flusher
        )
        self._control = ControlStream(self._session)
        self._frames = FrameFlow(self._control, self._carrier, self.peer)
        self._exchanges = Exchanges(
            self,
            self._session,
            self._carrier.wake,
            requests=requests,
            streams=streams,
            stranger=not member,
            refusal=refusal,
        )
        self._opening = Opening(self._session, self._control, self._exchanges.answerer, member=member)
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
        return self._exchanges.answerer.refusal is not None

    @property
    def busy(self) -> bool:
        """Whether a request of the neighbour is being worked on."""
        return self._exchanges.answerer.running > 0

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
        await self._frames.send(frame)

    def send_nowait(self, frame: AnyFrame) -> None:
        """Queue a frame without waiting.

        Raises:
            Unavailable: the queue is full, or the link has ended.
            UsageError: the frame is too large, or this link carries no frames.
        """
        self._frames.send_nowait(frame)

    def push(self, packed: bytes) -> None:
        """Queue a frame that is packed already, and send it at once if the connection takes it.

        For what goes to many links; see :func:`p2pdist.net.broadcast.broadcast`. Raises what
        :meth:`send_nowait` does.
        """
        self._frames.push(packed)

    def frames(self) -> AsyncIterator[AnyFrame]:
        """Iterate over the neighbour's frames. One task at a time; leaving early needs no clean-up.

        What arrived before the end is still delivered. The iterator ends when the link was closed by
        either side or got lost (see :attr:`end_reason`).

        Raises:
            PeerError: the neighbour broke the protocol.
            Unavailable: the neighbour closed the link for a reason that it gave.
        """
        return FrameIterator(self._frames.next)

    # Requests and byte streams -------------------------------------------------------------------

    async def request(
        self, path: str, body: Any, answer_type: type[T], *, timeout_s: float = limits.REQUEST_TIMEOUT_S
    ) -> T:
        """Ask the neighbour, and return its validated answer.

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
        async with self._carrier.awaiting():
            return await self._exchanges.request(path, body, answer_type, timeout_s=timeout_s)

    @asynccontextmanager
    async def open_stream(
        self, path: str, opening: Any, *, timeout_s: float = limits.REQUEST_TIMEOUT_S
    ) -> AsyncIterator[ByteStream]:
        """Open a byte stream to the neighbour; the block has it, and leaving the block closes it.

        The neighbour has accepted it when the block begins. What the block raises breaks the stream
        off, with one of our own errors as the reason that the neighbour is told; it comes out as it is.

        Args:
            path: What serves it there, such as ``/session``.
            opening: What it is for; at most :data:`~p2pdist.limits.LINK_OPENING_BYTES_MAX` packed.
            timeout_s: Seconds for the neighbour to accept it.

        Raises:
            Unavailable: it was not accepted in time, too many streams are open, or the link ended.
            PeerError: the neighbour's answer makes no sense.
            P2PDistError: why the neighbour refuses it, in the family that it names.
        """
        async with self._carrier.awaiting():
            stream = await self._exchanges.open_stream(path, opening, timeout_s=timeout_s)
        async with closing(stream):
            yield stream

    def awaiting(self) -> AbstractAsyncContextManager[None]:
        """Wait for something of the neighbour in the block: if it falls silent, it is gone in seconds.

        A request does it by itself, and a byte stream until it is accepted.
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
        await self._carrier.wait_ended()

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
        return LinkStatistics(
            frames_sent=self._frames.sent,
            frames_received=self._frames.received,
            bytes_sent=self._carrier.bytes_sent,
            bytes_received=self._carrier.bytes_received,
            frames_waiting=self._control.frames_waiting,
            frames_unread=self._control.frames_unread,
            requests=self._exchanges.requests,
            requests_under_way=self._exchanges.requests_under_way,
            streams=self._exchanges.streams_open,
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

    def set_pace(self, seconds: float) -> None:
        """Tell the neighbour after how much silence it may ask for a sign of life, and give us up soon."""
        self._session.set_pace(round(seconds))
        self._carrier.push()

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
            self._exchanges.answerer.expire(now)
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
            case PaceSet() | PingAnswered() | SessionEnded():
                pass  # the carrier's own
            case _ if event.stream == self._control.stream:
                self._handle_control(event)
            case _:
                self._exchanges.handle(event, nursery)

    def output(self) -> bytes:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        return self._control.output()

    def sent(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        self._exchanges.sent()
        self._frames.left()

    def ended(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        if self._carrier.end is not None:
            self._exchanges.end(self._carrier.end)
        self._opening.decide(False)
        self._frames.end()

    # The control stream ----------------------------------------------------------------------------

    def _handle_control(self, event: StreamEvent) -> None:
        match event:
            case AnswerStarted(status=status):
                self._opening.answered(status)
            case BodyReceived(data=data) if not self._opening.accepted:
                self._opening.explained(data)
            case BodyReceived(data=data):
                self._frames.arrived(data)
            case BodyEnded() | StreamReset():
                refusal = self._opening.refusal()
                ended = refusal or Unavailable(f"{self.peer} closed the control stream")
                self._carrier.finish(ended, loud=refusal is not None)

    def _expired(self) -> bool:
        remote = self.remote
        return remote is not None and time.time() > remote.not_after.timestamp() + limits.CLOCK_SKEW_S
