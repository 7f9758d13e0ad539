"""One HTTP/2 connection (RFC 9113) between two nodes, over ``h2``. No I/O and no clock.

Either side opens streams, and the other answers them: the dialler's have odd numbers, the acceptor's
even ones. (The RFC leaves the acceptor's to server push. What both sides agree on by ALPN is not ``h2``
but a protocol of ours, which extends HTTP/2 in this; see ``docs/decisions/0022``.) Bytes from the other
side go into :meth:`Session.receive`, which returns what happened; bytes for the other side come out of
:meth:`Session.output`, for as long as the other side's windows and our appetite allow.

Invariants:

- What is received and not yet :meth:`consumed <Session.consumed>` is at most
  :data:`~p2pdist.limits.LINK_WINDOW_BYTES` for each stream, unless another window is asked for. Space on
  the whole connection is given back on receipt, so that one slow stream never holds up another.
- Control traffic (resets, pings, settings, headers, empty data) fills a bucket of
  :data:`~p2pdist.limits.LINK_OVERHEAD_BYTES`, which content in either direction and time
  (:meth:`Session.forgive`) empty again. When it overflows, the other side is flooding us.
- Whatever the other side sends, :meth:`Session.receive` raises nothing but PeerError.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from hyperframe.frame import GoAwayFrame, SettingsFrame

from p2pdist import limits
from p2pdist.errors import PeerError, Unavailable
from p2pdist.net import headers
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
    StreamBroken,
    StreamReset,
)
from p2pdist.net.h2settings import PACE, PeerSettings, own_settings

CHUNK_BYTES: Final = 16 * limits.KIB - 9
"""Body bytes in one DATA frame, so that the frame with its header fills one TLS record."""

_OUTBOX_BYTES_MAX: Final = 128 * limits.KIB  # answers to control traffic that the other side does not read
_CREDIT_BYTES: Final = 64 * limits.KIB  # window space is given back in portions of this size
_WINDOW_INITIAL: Final = 65_535  # of every connection (RFC 9113, 6.9.2)
_FRAME_HEAD_BYTES: Final = 9  # length (3), type, flags, stream (4)
_SETTINGS_FRAME: Final = 4
_REASON_BYTES_MAX: Final = 200


class _Connection(h2.connection.H2Connection):
    """``h2`` with bounds for many long-lived connections."""

    MAX_CLOSED_STREAMS = 256
    DEFAULT_MAX_HEADER_LIST_SIZE = limits.LINK_HEADER_BYTES_MAX


class _Outgoing:
    """What waits to be sent on one stream."""

    __slots__ = ("bytes", "ended", "parts")

    def __init__(self) -> None:
        self.parts: deque[memoryview] = deque()
        self.bytes = 0
        self.ended = False

    def take(self, count: int) -> bytes:
        taken = []
        while count and self.parts:
            part = self.parts[0]
            taken.append(part[:count])
            if len(part) <= count:
                self.parts.popleft()
            else:
                self.parts[0] = part[count:]
            count -= len(taken[-1])
        data = b"".join(taken)
        self.bytes -= len(data)
        return data


class Session:
    """One side of a connection.

    Args:
        dialler: Whether this side opened the connection.
        window_bytes: What may be received on one stream and not yet be consumed.

    Attributes:
        urgent: The stream whose bytes are sent before those of the others, which take turns.
    """

    __slots__ = (
        "_closed",
        "_content",
        "_counted",
        "_dialler",
        "_greeting",
        "_h2",
        "_outbox",
        "_outgoing",
        "_overhead",
        "_owed",
        "_ready",
        "_resets",
        "urgent",
    )

    def __init__(self, *, dialler: bool, window_bytes: int = limits.LINK_WINDOW_BYTES) -> None:
        self.urgent = 0
        self._dialler = dialler
        self._h2 = _Connection(h2.config.H2Configuration(client_side=dialler, header_encoding=None))
        self._h2.local_settings = own_settings(dialler=dialler, window_bytes=window_bytes)
        self._h2.remote_settings = PeerSettings(dialler=not dialler)
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(limits.LINK_TRANSIT_BYTES - _WINDOW_INITIAL)
        self._outbox = bytearray()
        self._outgoing: dict[int, _Outgoing] = {}
        self._owed: dict[int, int] = {0: 0}  # consumed and not given back, by stream that still receives
        self._ready = False
        self._greeting: bytes | None = b"" if dialler else None
        self._closed = False
        self._content = 0  # body bytes in both directions
        self._counted = 0  # of them, those that have emptied the bucket
        self._overhead = 0  # the bucket
        self._resets = 0

    # Towards the other side --------------------------------------------------------------------

    def open(self, path: str, opening: bytes = b"") -> int:
        """Open a stream and return its number.

        Args:
            path: What is asked for.
            opening: What stands beside it in the header, for a byte stream.

        Raises:
            Unavailable: the other side allows no more streams now, or the session is over.
        """
        try:
            stream: int = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, headers.asking(path, opening))
        except h2.exceptions.H2Error as error:
            raise Unavailable(f"no stream for {path} can be opened ({error})") from None
        self._owed[stream] = 0
        return stream

    def opened_here(self, stream: int) -> bool:
        """Whether this side opened *stream*, or would have."""
        return stream % 2 == int(self._dialler)

    def answer(self, stream: int, status: int) -> None:
        """Begin the answer on a stream of the other side. Nothing happens if the stream is gone."""
        try:
            self._h2.send_headers(stream, headers.answering(status))
        except h2.exceptions.H2Error:
            self._outgoing.pop(stream, None)

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Queue body bytes. The caller watches :meth:`waiting`; nothing here limits it."""
        if not data and not end:
            return
        outgoing = self._outgoing.setdefault(stream, _Outgoing())
        if data:
            outgoing.parts.append(memoryview(data))
            outgoing.bytes += len(data)
        outgoing.ended = outgoing.ended or end

    def waiting(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes wait to be sent on *stream*."""
        outgoing = self._outgoing.get(stream)
        return (len(outgoing.parts), outgoing.bytes) if outgoing is not None else (0, 0)

    def unfinished(self, stream: int) -> bool:
        """Whether something, if only the end, waits to be sent on *stream*."""
        return stream in self._outgoing

    def reset(self, stream: int) -> None:
        """Give a stream up; what waits on it is dropped. Nothing happens if it is gone."""
        self._forget(stream)
        try:
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.H2Error:
            return

    def break_off(self, stream: int, problem: bytes) -> None:
        """Give a stream up and say why. Like :meth:`reset`, but our half must be open, and begun."""
        self._forget(stream)
        with suppress(h2.exceptions.H2Error):
            self._h2.send_headers(stream, headers.breaking(problem), end_stream=True)
        self.reset(stream)

    def consumed(self, stream: int, count: int) -> bool:
        """Say that *count* received bytes of *stream* are out of the way, so that more may come.

        Returns:
            Whether there is something to send now.
        """
        return stream in self._owed and self._give_back(stream, count, portion=_CREDIT_BYTES)

    def ping(self) -> None:
        """Ask for a sign of life, which comes as PingAnswered. Nothing happens when the session is over."""
        try:
            self._h2.ping(b"p2pdist?")
        except h2.exceptions.H2Error:
            return

    def set_pace(self, seconds: int) -> None:
        """Say after how many seconds of silence this side may be asked for a sign of life."""
        if not self._closed:
            self._outbox += self._h2.data_to_send()
            self._outbox += SettingsFrame(settings={PACE: seconds}).serialize()

    def forgive(self) -> None:
        """Some seconds have passed: forget some of the other side's control traffic."""
        self._overhead = max(0, self._overhead - limits.LINK_OVERHEAD_FORGIVEN_BYTES)
        self._resets = max(0, self._resets - 1)
        _ = self._h2.open_inbound_streams  # h2 lets go of finished streams when it counts the open ones

    def close(self, reason: str = "") -> None:
        """Say goodbye (GOAWAY), once. What waits on streams is dropped; nothing can be sent afterwards.

        Args:
            reason: What the other side did wrong; empty if nothing.
        """
        if self._closed:
            return
        self._closed = True
        self._outgoing.clear()
        self._outbox += self._h2.data_to_send()
        # Not through h2, which would take nothing in afterwards: what is on its way to us has to be
        # read, or the connection's end resets it, and with it what is on its way to the other side.
        self._outbox += GoAwayFrame(
            last_stream_id=self._h2.highest_inbound_stream_id,
            error_code=h2.errors.ErrorCodes.PROTOCOL_ERROR if reason else h2.errors.ErrorCodes.NO_ERROR,
            additional_data=reason.encode()[:_REASON_BYTES_MAX],
        ).serialize()

    def output(self) -> bytes:
        """Return the next bytes to send, about one chunk; empty when there is nothing to do."""
        if not self._closed:
            self._outbox += self._h2.data_to_send()
            while len(self._outbox) < CHUNK_BYTES and self._pump():
                self._outbox += self._h2.data_to_send()
        data = bytes(self._outbox)
        self._outbox.clear()
        return data

    # From the other side -----------------------------------------------------------------------

    def receive(self, data: bytes) -> list[SessionEvent]:
        """Take in bytes, and return what they say.

        Raises:
            PeerError: they are not HTTP/2 as it was agreed, or a flood. The session is over;
                :meth:`close` says why.
        """
        self._overhead += len(data)
        if self._greeting is not None:
            self._check_greeting(data)
        self._outbox += self._h2.data_to_send()  # a goodbye from the other side would clear it there
        try:
            happened = self._h2.receive_data(data)
        except h2.exceptions.H2Error as error:
            self._h2.data_to_send()  # a goodbye without our reason
            raise PeerError(f"broke HTTP/2 ({str(error) or type(error).__name__})") from error
        events: list[SessionEvent] = []
        for event in happened:
            self._translate(event, events)
        answers = self._h2.data_to_send()
        if not self._closed:
            self._outbox += answers
        self._check_flood()
        return events

    def _check_greeting(self, data: bytes) -> None:
        """See whether the acceptor begins with its settings (RFC 9113, 3.4).

        ``h2`` would take any other text for the head of a long frame, and wait for the rest of it.
        """
        assert self._greeting is not None
        greeting = self._greeting = self._greeting + data[:_FRAME_HEAD_BYTES]
        if len(greeting) >= _FRAME_HEAD_BYTES:
            if greeting[0] or greeting[3] != _SETTINGS_FRAME or any(greeting[5:_FRAME_HEAD_BYTES]):
                raise PeerError("does not answer in HTTP/2")
            self._greeting = None

    def _translate(self, event: h2.events.Event, events: list[SessionEvent]) -> None:
        match event:
            case h2.events.DataReceived():
                self._take_data(event, events)
            case h2.events.RequestReceived():
                self._owed[event.stream_id] = 0
                path, opening = headers.path_of(event.headers), headers.opening_of(event.headers)
                events.append(RequestStarted(stream=event.stream_id, path=path, opening=opening))
            case h2.events.ResponseReceived():
                events.append(AnswerStarted(stream=event.stream_id, status=headers.status_of(event.headers)))
            case h2.events.TrailersReceived() if problem := headers.problem_of(event.headers):
                events.append(StreamBroken(stream=event.stream_id, problem=problem))
            case h2.events.StreamEnded():
                self._owed.pop(event.stream_id, None)
                self._resets = max(0, self._resets - 1)
                events.append(BodyEnded(stream=event.stream_id))
            case h2.events.StreamReset():
                self._resets += 1
                self._forget(event.stream_id)
                events.append(StreamReset(stream=event.stream_id, code=int(event.error_code or 0)))
            case h2.events.RemoteSettingsChanged():
                if not self._ready:
                    self._ready = True
                    events.append(SessionReady())
                if PACE in event.changed_settings:
                    events.append(PaceSet(seconds=event.changed_settings[PACE].new_value))
            case h2.events.ConnectionTerminated():
                reason = (event.additional_data or b"")[:_REASON_BYTES_MAX].decode(errors="replace")
                events.append(SessionEnded(code=int(event.error_code or 0), reason=reason))
            case h2.events.PingAckReceived():
                events.append(PingAnswered())
            case _:  # windows, pings, priorities, trailers: h2 has dealt with them
                pass

    def _take_data(self, event: h2.events.DataReceived, events: list[SessionEvent]) -> None:
        stream, length, data = event.stream_id, event.flow_controlled_length, bytes(event.data)
        self._give_back(0, length, portion=limits.LINK_TRANSIT_BYTES // 4)
        self.consumed(stream, length - len(data))  # padding
        self._content += len(data)
        self._overhead -= len(data)
        if data:
            events.append(BodyReceived(stream=stream, data=data))

    def _give_back(self, stream: int, count: int, *, portion: int) -> bool:
        """Open the window of *stream* (0: of the connection) again, in portions."""
        self._owed[stream] += count
        if self._owed[stream] < portion:
            return False
        try:
            self._h2.increment_flow_control_window(self._owed[stream], stream or None)
        except h2.exceptions.H2Error:
            return False  # it is over
        self._owed[stream] = 0
        return True

    def _check_flood(self) -> None:
        earned = limits.LINK_OVERHEAD_RATIO * (self._content - self._counted)
        self._counted = self._content
        self._overhead = max(0, self._overhead - earned)
        if self._overhead > limits.LINK_OVERHEAD_BYTES:
            raise PeerError("floods the link with control traffic")
        if self._resets > limits.LINK_RESETS_MAX:
            raise PeerError("opens requests only to give them up")
        if len(self._outbox) > _OUTBOX_BYTES_MAX:
            raise PeerError("does not read the answers to what it sends")

    def _pump(self) -> bool:
        """Move one chunk of one stream into ``h2``. Returns False when all wait for windows."""
        urgent = (self.urgent,) if self.urgent in self._outgoing else ()
        for stream in (*urgent, *self._outgoing):
            outgoing = self._outgoing[stream]
            count = min(self._window(stream), CHUNK_BYTES, outgoing.bytes)
            if count <= 0 and outgoing.bytes:
                continue
            data = outgoing.take(count)
            del self._outgoing[stream]
            if outgoing.bytes:
                self._outgoing[stream] = outgoing  # behind the others
            self._content += len(data)
            try:
                self._h2.send_data(stream, data, end_stream=outgoing.ended and not outgoing.bytes)
            except (h2.exceptions.H2Error, KeyError):  # KeyError: an end alone, of a stream that h2 forgot
                self._outgoing.pop(stream, None)  # the stream is over: nobody waits for this any more
            return True
        return False

    def _window(self, stream: int) -> int:
        try:
            window: int = self._h2.local_flow_control_window(stream)
        except h2.exceptions.H2Error:
            return CHUNK_BYTES  # the stream is over: what waits is taken, and refused on sending
        return window

    def _forget(self, stream: int) -> None:
        self._outgoing.pop(stream, None)
        self._owed.pop(stream, None)
