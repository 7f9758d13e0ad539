"""The byte streams of one link, whoever opened them: how they come to be, and who serves them.

    ours     wanted  ── the other side accepts ── a byte stream
    theirs   offered ── our handler accepts ───── a byte stream

Nobody sends a byte before the other side has accepted: what the stream is for stands in its header.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, Unavailable
from p2pdist.logs import get_logger
from p2pdist.net.asking import again
from p2pdist.net.bytestream import ByteStream, reason_of, refusal_in
from p2pdist.net.events import (
    AnswerStarted,
    BodyEnded,
    BodyReceived,
    RequestStarted,
    StreamBroken,
    StreamEvent,
    StreamReset,
)
from p2pdist.net.http2 import Session
from p2pdist.net.pulse import Pulse
from p2pdist.wire import codec

if TYPE_CHECKING:
    from p2pdist.net.established import Link

_log = get_logger()


@dataclass(frozen=True, slots=True)
class StreamHandler:
    """What serves the byte streams on one path.

    Attributes:
        kind: The type of the opening, which says what the stream is for.
        serve: Gets the link, the validated opening and the stream that is offered, which it accepts or
            refuses. The stream is closed when it returns. What it raises of
            :class:`~p2pdist.errors.P2PDistError` travels to the other side: before the stream is
            accepted as the reason of the refusal, afterwards as that of its end. It is cancelled when
            the link closes, and when the other side gives up before the stream is accepted.
    """

    kind: Any
    serve: Callable[[Link, Any, OfferedStream], Awaitable[None]]


StreamTable: TypeAlias = Mapping[str, StreamHandler]
"""By path, such as ``/session``. Never for strangers."""


@dataclass(frozen=True, slots=True)
class Served:
    """What serves the byte streams on one path, as :class:`StreamHandler`, whatever carries them."""

    kind: Any
    serve: Callable[[Any, OfferedStream], Awaitable[None]]


class OfferedStream:
    """A byte stream that the other side wants to have with us."""

    __slots__ = ("_accepted", "_number", "_streams", "scope", "stream")

    def __init__(self, streams: ByteStreams, number: int) -> None:
        self._streams = streams
        self._number = number
        self.scope = trio.CancelScope()
        self.stream: ByteStream | None = None

    def accept(self) -> ByteStream:
        """Accept it. The stream is closed when its handler returns. Raises Unavailable if it is gone."""
        if self.stream is None:
            self.stream = self._streams.accept(self._number)
        return self.stream

    def handle(self, event: StreamEvent) -> None:
        """Take in what happened before it was accepted: whatever it is, the stream is gone."""
        self._streams.forget(self._number)
        self.scope.cancel()

    def sent(self) -> None:
        """See :meth:`.bytestream.ByteStream.sent`."""

    def end(self, error: P2PDistError) -> None:
        """See :meth:`.bytestream.ByteStream.end`."""
        self.scope.cancel()


class _WantedStream:
    """A byte stream that we want to have with the other side, until it has accepted or refused."""

    __slots__ = ("_body", "_peer", "_status", "error", "progress", "refused", "stream")

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._status = 0
        self._body = bytearray()
        self.refused = False
        self.stream: ByteStream | None = None
        self.error: P2PDistError | None = None
        self.progress = Pulse()

    def handle(self, event: StreamEvent) -> None:
        match event:
            case AnswerStarted(status=status):
                self._status = status
            case BodyReceived(data=data):
                self._body += data
                if len(self._body) > limits.REQUEST_BYTES_MAX:
                    self.end(PeerError(f"{self._peer} refuses with more than is allowed"))
            case BodyEnded():
                self.refused = True
                self.end(refusal_in(bytes(self._body), self._peer))
            case StreamBroken(problem=problem):
                self.end(refusal_in(problem, self._peer))
            case StreamReset():
                self.end(Unavailable(f"{self._peer} gave the stream up", hint="try again"))

    def sent(self) -> None:
        """Nothing of it is sent yet."""

    def end(self, error: P2PDistError) -> None:
        self.error = self.error or error
        self.progress.fire()


class ByteStreams:
    """See the module.

    Args:
        peer: How to name the other side in errors.
        session: The link's session.
        wake: Called when the session has something to send.
        table: What is served, by path.
        turn_away: Answers a stream of the other side with an error.
        most: How many there may be at once, in each direction.
    """

    __slots__ = (
        "_busy",
        "_ended",
        "_entries",
        "_freed",
        "_most",
        "_peer",
        "_session",
        "_table",
        "_turn_away",
        "_wake",
    )

    def __init__(
        self,
        peer: str,
        session: Session,
        wake: Callable[[], None],
        table: Mapping[str, Served],
        turn_away: Callable[[int, str, P2PDistError], None],
        *,
        most: int = limits.LINK_BYTE_STREAMS_MAX,
    ) -> None:
        self._peer = peer
        self._most = most
        self._session = session
        self._wake = wake
        self._table = table
        self._turn_away = turn_away
        self._entries: dict[int, _WantedStream | OfferedStream | ByteStream] = {}
        self._busy = 0
        self._freed = Pulse()
        self._ended: P2PDistError | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    async def open(self, path: str, opening: Any, *, timeout_s: float) -> ByteStream:
        """Open a byte stream. See :meth:`.established.Link.open_stream`; the caller closes it."""
        data = codec.encode(opening, bytes_max=limits.LINK_OPENING_BYTES_MAX)
        await trio.lowlevel.checkpoint()
        if self._ended is not None:
            raise again(self._ended)
        peer = self._peer
        if sum(map(self._session.opened_here, self._entries)) >= self._most:
            raise Unavailable(f"{self._most} streams to {peer} are open already", hint="close one")
        number = self._session.open(path, data)
        wanted = self._entries[number] = _WantedStream(peer)
        self._wake()
        try:
            with trio.move_on_after(timeout_s):
                while wanted.stream is None and wanted.error is None:
                    await wanted.progress.wait()
            if wanted.error is not None:
                raise again(wanted.error)
            if wanted.stream is None:
                raise Unavailable(
                    f"{peer} did not accept {path} within {timeout_s:g} s", hint="try again later"
                )
        except BaseException:
            if wanted.refused:  # we have nothing to say either, and give up nothing
                self._entries.pop(number, None)
                self._session.send(number, b"", end=True)
                self._wake()
            else:
                self.forget(number)
            raise
        return wanted.stream

    def offered(self, event: RequestStarted, nursery: trio.Nursery) -> None:
        """The other side wants a stream on a path of the table. Its handler runs in *nursery*."""
        handler = self._table[event.path]
        entry = self._entries[event.stream] = OfferedStream(self, event.stream)
        nursery.start_soon(self._serve, entry, handler, event)

    def handle(self, event: StreamEvent) -> None:
        """Take in what happened on one of the streams."""
        entry = self._entries[event.stream]
        if isinstance(entry, _WantedStream) and isinstance(event, AnswerStarted) and event.status == 200:
            entry.stream = self._entries[event.stream] = self._stream(event.stream)
            entry.progress.fire()
        else:
            entry.handle(event)

    def sent(self) -> None:
        """Some of what was queued on the link has left."""
        for entry in self._entries.values():
            entry.sent()

    def end(self, error: P2PDistError) -> None:
        """The link has ended: every stream breaks, and no other is opened."""
        self._ended = error
        for entry in self._entries.values():
            entry.end(error)

    def accept(self, number: int) -> ByteStream:
        """See :meth:`OfferedStream.accept`."""
        if self._ended is not None or number not in self._entries:
            raise Unavailable(f"{self._peer} gave the stream up")
        self._session.answer(number, 200)
        self._wake()
        stream = self._entries[number] = self._stream(number)
        return stream

    def forget(self, number: int) -> None:
        """Give a stream up that nobody accepted."""
        if self._entries.pop(number, None) is not None:
            self._session.reset(number)
            self._wake()

    def _stream(self, number: int) -> ByteStream:
        return ByteStream(self._session, number, wake=self._wake, peer=self._peer, left=self._entries.pop)

    async def _serve(self, offered: OfferedStream, handler: Served, event: RequestStarted) -> None:
        with offered.scope:
            try:
                while self._busy >= self._most:
                    await self._freed.wait()
                self._busy += 1
                try:
                    error = await self._run(offered, handler, event)
                    if offered.stream is None:
                        if self._entries.pop(event.stream, None) is not None:
                            error = error or Unavailable(f"nobody took the stream on {event.path}")
                            self._turn_away(event.stream, event.path, error)
                    elif error is not None:
                        offered.stream.abort(error)
                    else:
                        await offered.stream.aclose()
                finally:
                    self._busy -= 1
                    self._freed.fire()
            finally:
                if offered.stream is None:
                    self.forget(event.stream)
                else:
                    offered.stream.abort(Unavailable(f"{event.path} was ended"))

    async def _run(
        self, offered: OfferedStream, handler: Served, event: RequestStarted
    ) -> P2PDistError | None:
        path, peer = event.path, self._peer
        try:
            opening: Any = codec.decode(event.opening, handler.kind, bytes_max=limits.LINK_OPENING_BYTES_MAX)
            await handler.serve(opening, offered)
        except Exception as error:  # noqa: BLE001  # one stream's handler: its defect must not end the link
            reason = reason_of(error)
            if reason is None:
                _log.exception("stream.failed", path=path, peer=peer)
                return Unavailable(f"{path} failed", hint="the log of the serving node says why")
            _log.info("stream.broken", path=path, peer=peer, reason=str(reason))
            return reason
        return None
