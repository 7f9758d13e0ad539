"""HTTP/2 for one link, without I/O: bytes in, events out, bytes to send.

A thin layer over ``h2`` (RFC 9113) that knows what a link needs: which streams are requests and which
is the control stream, how much of each may be buffered, and what a peer may not do. The adapter feeds
:meth:`Session.receive` and sends whatever :meth:`Session.pending` returns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from p2pdist import limits
from p2pdist.errors import PeerError, Unavailable

_STREAM_WINDOW_BYTES = 2 * limits.MIB  # twice the largest frame, so that a whole one always fits
_LINK_WINDOW_BYTES = 4 * limits.MIB
_DISTURBANCES_MAX = 1_000  # resets and pings without content, before a peer counts as hostile


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOpened:
    """The peer opened a stream for *path*."""

    stream: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadReceived:
    """The answer to our request begins."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReceived:
    """Content of a stream. ``credit`` is what to acknowledge once it was used."""

    stream: int
    data: bytes
    credit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnded:
    """The peer has sent everything on this stream."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The stream is gone without an end."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowOpened:
    """More may be sent, on some stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnded:
    """The peer says that it will not go on, and why."""

    reason: str


SessionEvent: TypeAlias = (
    StreamOpened | HeadReceived | DataReceived | StreamEnded | StreamReset | WindowOpened | LinkEnded
)


@dataclass(slots=True)
class Session:
    """One side of a link's HTTP/2 connection."""

    dialler: bool
    _h2: h2.connection.H2Connection = field(init=False)
    _disturbances: int = 0

    def __post_init__(self) -> None:
        config = h2.config.H2Configuration(client_side=self.dialler, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=self.dialler,
            initial_values={
                codes.ENABLE_PUSH: 0,
                codes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
                codes.MAX_CONCURRENT_STREAMS: limits.LINK_STREAMS_MAX,
                codes.MAX_HEADER_LIST_SIZE: 4 * limits.KIB,
                codes.HEADER_TABLE_SIZE: 0,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_LINK_WINDOW_BYTES - 65_535)

    def receive(self, data: bytes) -> list[SessionEvent]:
        """Take in bytes from the peer.

        Raises:
            PeerError: they break the protocol, or flood it. The link must end.
        """
        try:
            events = self._h2.receive_data(data)
        except (h2.exceptions.ProtocolError, ValueError, KeyError) as error:
            raise PeerError(f"the peer broke HTTP/2 ({error or type(error).__name__})") from error
        result: list[SessionEvent] = []
        for event in events:
            translated = self._translate(event)
            if translated is not None:
                result.append(translated)
        return result

    def pending(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        return bytes(self._h2.data_to_send())

    def open(self, path: str) -> int:
        """Open a stream; its content follows by :meth:`send`.

        Raises:
            Unavailable: too many are open.
        """
        headers = [(":method", "POST"), (":path", path), (":scheme", "https"), (":authority", "p2pdist")]
        try:
            stream: int = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream, headers)
        except (h2.exceptions.TooManyStreamsError, h2.exceptions.NoAvailableStreamIDError) as error:
            raise Unavailable("too many requests are under way on this link", hint="try again") from error
        except h2.exceptions.ProtocolError as error:
            raise Unavailable("the link has ended") from error
        return stream

    def answer(self, stream: int, status: int) -> None:
        """Begin to answer a stream that the peer opened."""
        self._attempt(lambda: self._h2.send_headers(stream, [(":status", str(status))]))

    def room(self, stream: int) -> int:
        """Return how many bytes may be sent on *stream* now."""
        try:
            window: int = self._h2.local_flow_control_window(stream)
            chunk: int = self._h2.max_outbound_frame_size
        except h2.exceptions.ProtocolError as error:
            raise Unavailable("the stream has ended") from error
        return max(0, min(window, chunk))

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send at most :meth:`room` bytes. Raises Unavailable when the stream or link has ended."""
        self._attempt(lambda: self._h2.send_data(stream, data, end_stream=end))

    def credit(self, stream: int, count: int) -> None:
        """Tell the peer that *count* received bytes were used."""
        if count:
            self._attempt(lambda: self._h2.acknowledge_received_data(count, stream))

    def reset(self, stream: int) -> None:
        """Give a stream up; harmless if it is gone already."""
        try:
            self._h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return

    def ping(self) -> None:
        """Ask for a sign of life; any byte that arrives is one."""
        self._attempt(lambda: self._h2.ping(b"p2pdist\0"))

    def close(self, reason: str) -> None:
        """Say that we will not go on, and why."""
        code = h2.errors.ErrorCodes.NO_ERROR
        try:
            self._h2.close_connection(code, additional_data=reason.encode()[:1_000])
        except h2.exceptions.ProtocolError:
            return

    def _attempt(self, action: object) -> None:
        try:
            action()  # type: ignore[operator]  # a lambda without arguments, always
        except (h2.exceptions.ProtocolError, KeyError) as error:
            raise Unavailable("the stream or the link has ended") from error

    def _translate(self, event: h2.events.Event) -> SessionEvent | None:
        match event:
            case h2.events.RequestReceived():
                return StreamOpened(stream=event.stream_id, path=_header(event.headers, ":path"))
            case h2.events.ResponseReceived():
                status = _header(event.headers, ":status")
                return HeadReceived(stream=event.stream_id, status=int(status) if status.isdigit() else 0)
            case h2.events.DataReceived():
                if not event.data:
                    self._disturbed()
                return DataReceived(
                    stream=event.stream_id, data=event.data, credit=event.flow_controlled_length
                )
            case h2.events.StreamEnded():
                return StreamEnded(stream=event.stream_id)
            case h2.events.StreamReset():
                self._disturbed()
                return StreamReset(stream=event.stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                return WindowOpened()
            case h2.events.ConnectionTerminated():
                reason = (event.additional_data or b"").decode(errors="replace")
                return LinkEnded(reason=reason or "the peer closed the link")
            case h2.events.PingReceived():
                self._disturbed()
                return None
            case _:
                return None

    def _disturbed(self) -> None:
        self._disturbances += 1
        if self._disturbances > _DISTURBANCES_MAX:
            raise PeerError("the peer floods the link with resets, pings or empty frames")

    def calm(self) -> None:
        """Forget past disturbances: the link has been in good use for a while."""
        self._disturbances = 0


def _header(headers: object, name: str) -> str:
    for key, value in headers:  # type: ignore[attr-defined]  # h2 hands out a list of pairs
        if key == name:
            return str(value)
    return ""
