"""A session's stream as a trio stream: :class:`~p2pdist.core.session.Session` driven over real paths.

Each path has one task that reads and one that writes. A path on which nothing is heard for
:data:`p2pdist.limits.SESSION_SILENT_S` is given up; so are those that break the rules, and then the session.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from p2pdist import limits
from p2pdist.core.session import PathKind, Session
from p2pdist.errors import P2PDistError, PeerError, Unavailable, sole_error
from p2pdist.net.framing import PREFIX_BYTES, FrameSplitter
from p2pdist.net.pulse import Pulse
from p2pdist.wire import codec
from p2pdist.wire.paths import PathFrame, Ping, Pong

_READ_BYTES = 64 * limits.KIB
_LAST_WORDS_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatistics:
    """One path of a session, as it is now.

    ``round_trip_s`` is the last one measured, None before the first. ``used`` says whether new bytes go
    over it.
    """

    kind: PathKind
    used: bool
    bytes_sent: int
    bytes_received: int
    round_trip_s: float | None


class _Path:
    """A path and what is known of it."""

    def __init__(self, stream: trio.abc.Stream, kind: PathKind, now: float) -> None:
        self.stream = stream
        self.kind: PathKind = kind
        self.scope = trio.CancelScope()
        self.over = trio.Event()
        self.heard_at = now
        self.writing = False
        self.pinged: tuple[int, float] | None = None
        self.pong: int | None = None
        self.round_trip_s: float | None = None
        self.bytes_sent = self.bytes_received = 0


class SessionStream(trio.abc.HalfCloseableStream):
    """One end of a session. Made by :func:`open_session`; one task sends, one receives.

    Sending and receiving raise ``trio.BrokenResourceError`` when the session has failed; its cause is the
    :class:`~p2pdist.errors.P2PDistError` that says why.
    """

    def __init__(self, session: Session, new_paths: trio.MemorySendChannel[tuple[int, _Path]]) -> None:
        self._session = session
        self._new_paths = new_paths
        self._paths: dict[int, _Path] = {}
        self._numbers = itertools.count(1)
        self._pings = itertools.count(1)
        self._changed = Pulse()
        self._over = False

    # The stream ----------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*; wait while the other side does not read. Cancellation may leave a part of it sent."""
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            await self.wait_send_all_might_not_block()
            room = self._session.room
            self._session.write(bytes(rest[:room]))
            rest = rest[room:]
            self._changed.fire()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send."""
        while not self._session.room:
            self._check()
            await self._changed.wait()
        self._check()

    async def send_eof(self) -> None:
        """Say that nothing follows; the other direction stays open."""
        await trio.lowlevel.checkpoint()
        self._check()
        self._session.write_end()
        self._changed.fire()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come; empty at the end of the other side's stream. Cancellation loses nothing."""
        await trio.lowlevel.checkpoint()
        while True:
            data = self._session.read(max_bytes or _READ_BYTES)
            if data:
                self._changed.fire()  # there is room for more, which the other side is to know
                return data
            if self._session.at_end:
                return b""
            self._check()
            await self._changed.wait()

    async def aclose(self) -> None:
        """Give the session up, unless both sides have ended their streams. Can be repeated."""
        if not self._session.done:
            self._session.reset("it was closed")
        self._changed.fire()
        await trio.lowlevel.checkpoint()

    # Paths ---------------------------------------------------------------------------------------------

    @property
    def path(self) -> PathKind | None:
        """The kind of the path that is used now; None while there is none."""
        return self._session.path

    @property
    def failure(self) -> PeerError | Unavailable | None:
        """Why the session is over before its end; None while it is not."""
        return self._session.failure

    async def wait_path(self, *kinds: PathKind) -> PathKind:
        """Wait until a path of one of these kinds is in use. Raises BrokenResourceError."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check()
            used = self._session.path
            if used is not None and used in kinds:
                return used
            await self._changed.wait()

    async def wait_done(self) -> None:
        """Wait until both sides have everything that the other has sent. Raises BrokenResourceError."""
        await trio.lowlevel.checkpoint()
        while not self._session.done:
            self._check()
            await self._changed.wait()

    def attach(self, stream: trio.abc.Stream, kind: PathKind) -> trio.Event:
        """Use another path, from now until it ends. The stream belongs to the session.

        Returns:
            An event that is set when the path has ended.

        Raises:
            PeerError: the session has too many paths already.
        """
        number = next(self._numbers)
        self._session.handle_path_opened(number, kind)
        path = self._paths[number] = _Path(stream, kind, trio.current_time())
        self._new_paths.send_nowait((number, path))
        return path.over

    def statistics(self) -> tuple[PathStatistics, ...]:
        """Return the paths that stand now, the best first."""
        ranked = sorted(self._paths.items(), key=lambda each: each[0] != self._session.active)
        return tuple(
            PathStatistics(
                kind=path.kind,
                used=number == self._session.active,
                bytes_sent=path.bytes_sent,
                bytes_received=path.bytes_received,
                round_trip_s=path.round_trip_s,
            )
            for number, path in ranked
        )

    # Inside --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._session.failure is not None:
            raise trio.BrokenResourceError(str(self._session.failure)) from self._session.failure

    async def _carry(self, number: int, path: _Path) -> None:
        try:
            with path.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, number, path)
                    nursery.start_soon(self._watch, path)
                    await self._read(number, path)
                    nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, P2PDistError):
            pass  # the path is gone; the session knows what that means
        finally:
            del self._paths[number]
            path.over.set()
            self._session.handle_path_closed(number, trio.current_time())
            self._changed.fire()
            await self._leave(path)

    async def _leave(self, path: _Path) -> None:
        """Close a path. At the session's end the last word has to arrive, which TCP sees to by itself."""
        if self._over and path.kind != "relayed":
            with trio.move_on_after(_LAST_WORDS_S, shield=True):
                await path.stream.aclose()
        await trio.aclose_forcefully(path.stream)

    async def _read(self, number: int, path: _Path) -> None:
        splitter = FrameSplitter(limits.SESSION_FRAME_BYTES_MAX)
        while data := await path.stream.receive_some(_READ_BYTES):
            path.heard_at = trio.current_time()
            path.bytes_received += len(data)
            for packed in splitter.feed(bytes(data)):
                frame: PathFrame = codec.decode(packed, PathFrame, bytes_max=limits.SESSION_FRAME_BYTES_MAX)
                self._take(number, path, frame)
            self._changed.fire()

    def _take(self, number: int, path: _Path, frame: PathFrame) -> None:
        match frame:
            case Ping(number=ping):
                path.pong = ping
            case Pong(number=ping):
                if path.pinged is not None and path.pinged[0] == ping:
                    path.round_trip_s = trio.current_time() - path.pinged[1]
                    path.pinged = None
            case _:
                with suppress(PeerError):  # which the session remembers, and tells the other side
                    self._session.handle_frame(number, frame)

    async def _write(self, number: int, path: _Path) -> None:
        while True:
            frame = self._next(number, path)
            if frame is None:
                await self._changed.wait()
                continue
            data = codec.encode(frame, bytes_max=limits.SESSION_FRAME_BYTES_MAX)
            path.writing = True
            await path.stream.send_all(len(data).to_bytes(PREFIX_BYTES, "big") + data)
            path.writing = False
            path.bytes_sent += PREFIX_BYTES + len(data)
            self._changed.fire()  # whoever waits for the last word

    def _next(self, number: int, path: _Path) -> PathFrame | None:
        if path.pong is not None:
            pong, path.pong = path.pong, None
            return Pong(number=pong)
        if path.pinged is None and trio.current_time() - path.heard_at >= limits.SESSION_PING_S:
            path.pinged = next(self._pings), trio.current_time()
            return Ping(number=path.pinged[0])
        return self._session.poll_frame(number)

    async def _watch(self, path: _Path) -> None:
        """Wake the writer when it is time to ask, and end a path that stays silent."""
        while True:
            silence = trio.current_time() - path.heard_at
            if silence >= limits.SESSION_SILENT_S:
                path.scope.cancel()
            elif silence >= limits.SESSION_PING_S:
                self._changed.fire()
            until = limits.SESSION_PING_S if silence < limits.SESSION_PING_S else limits.SESSION_SILENT_S
            await trio.sleep_until(path.heard_at + until)

    async def _keep_time(self) -> None:
        while True:
            deadline = self._session.next_deadline()
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await self._changed.wait()
            self._session.handle_time(trio.current_time())
            if self._session.failure is not None:
                self._changed.fire()
                return

    async def _say_last_words(self) -> None:
        """Let the paths carry what is still to be said: that everything has come, or why it is over."""
        if not self._session.done:
            self._session.reset("it was closed")
        self._changed.fire()
        with trio.move_on_after(_LAST_WORDS_S) as scope:
            scope.shield = True
            while self._paths and not (self._session.speechless and not self._writing()):
                await self._changed.wait()
        self._over = True

    def _writing(self) -> bool:
        return any(path.writing for path in self._paths.values())


@asynccontextmanager
async def open_session() -> AsyncIterator[SessionStream]:
    """Open one end of a session, which has no path yet; leaving the block or cancelling it ends it.

    The other side hears that it was closed, unless both streams have ended and arrived. That takes
    2 s at most.
    """
    try:
        async with trio.open_nursery() as nursery:
            new_paths, coming = trio.open_memory_channel[tuple[int, _Path]](limits.SESSION_PATHS_MAX)
            stream = SessionStream(Session(trio.current_time()), new_paths)
            scope = trio.CancelScope(shield=True)
            nursery.start_soon(_hold_paths, stream, coming, scope)
            try:
                yield stream
            finally:
                await stream._say_last_words()
                scope.cancel()
    except BaseExceptionGroup as group:
        raise sole_error(group) from None


async def _hold_paths(
    stream: SessionStream, coming: trio.MemoryReceiveChannel[tuple[int, _Path]], scope: trio.CancelScope
) -> None:
    """Carry the paths until *scope* is cancelled.

    It is shielded, so that last words go out while the session's owner is being cancelled.
    """
    with scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream._keep_time)
            async for number, path in coming:
                nursery.start_soon(stream._carry, number, path)
    for path in tuple(stream._paths.values()):  # those that came too late to be carried
        path.over.set()
        await trio.aclose_forcefully(path.stream)
