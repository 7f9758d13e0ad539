"""Moves a session's bytes over a trio stream, notices when the other side is gone, and says goodbye.

Two tasks do it: one reads, one writes. The reader waits for nobody but the network: what consumers do
not take is held back by flow control. The writer alone sends; everybody else queues in the session and
wakes it. The end comes once, for one reason: closed here, closed by the other side, lost, or broken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Protocol

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, Unavailable
from p2pdist.net.asking import printable
from p2pdist.net.events import PaceSet, PingAnswered, SessionEnded, SessionEvent
from p2pdist.net.flushing import Flusher
from p2pdist.net.http2 import Session
from p2pdist.net.pulse import Pulse
from p2pdist.net.secure import SecureStream
from p2pdist.net.silence import Silence
from p2pdist.net.tls import failure

_READ_BYTES: Final = 64 * limits.KIB
_ACCEPTOR_KEEPALIVE_S: Final = 1.5 * limits.LINK_KEEPALIVE_S  # so that one side's pings do for both
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


class Owner(Protocol):
    """Who hears what the carrier finds out. None of these may wait."""

    def happened(self, event: SessionEvent, nursery: trio.Nursery) -> None:
        """Something arrived; tasks for it may be started in *nursery*. May raise PeerError."""

    def output(self) -> bytes:
        """Return the session's next bytes to send."""

    def sent(self) -> None:
        """The bytes have left."""

    def ended(self) -> None:
        """The end has come; :attr:`Carrier.end` says why."""


class Carrier:
    """See the module.

    Args:
        stream: A connection on which everything is secured already.
        session: What is carried.
        owner: Who hears of it.
        dialler: Whether this side opened the connection.
        peer: How errors name the other side.
        sever: Cuts the connection at once, without waiting.
        flusher: What pushes in the writer's place; it has to run.

    Attributes:
        end: Why the link has ended; None while it lives.
        loud: Whether the end is an error for whoever reads, not just an end.
        silent: Whether the end is that nothing was heard any more.
        bytes_sent, bytes_received: Of HTTP/2, before encryption.
        round_trip_s: From the last keepalive; None before the first.
    """

    __slots__ = (
        "_done",
        "_ended",
        "_farewell",
        "_flusher",
        "_outgoing",
        "_owner",
        "_paced",
        "_parked",
        "_peer",
        "_pinged_at",
        "_running",
        "_said",
        "_session",
        "_sever",
        "_silence",
        "_stream",
        "_taken",
        "_to_be_taken",
        "_unsent",
        "_waiting",
        "bytes_received",
        "bytes_sent",
        "end",
        "loud",
        "round_trip_s",
        "silent",
    )

    def __init__(
        self,
        stream: trio.abc.Stream,
        session: Session,
        owner: Owner,
        *,
        dialler: bool,
        peer: str,
        sever: Callable[[], object],
        flusher: Flusher | None,
    ) -> None:
        self._stream = stream
        self._flusher = flusher
        self._session = session
        self._owner = owner
        self._peer = peer
        self._sever = sever
        self._outgoing = Pulse()
        self._done = Pulse()
        self._ended = Pulse()
        self._parked = False  # the writer waits for something to do
        self._unsent = 0  # bytes that the stream has taken and not sent
        self._running = 2  # the reader and the writer
        self._farewell = ""
        self._said = False  # the goodbye
        self._silence = Silence(
            keepalive_s=limits.LINK_KEEPALIVE_S if dialler else _ACCEPTOR_KEEPALIVE_S,
            now=trio.current_time(),
        )
        self._taken = 0  # bytes that the other kernel had at the last look at the silence ...
        self._to_be_taken = 0  # ... and will have when our question has arrived
        self._waiting = 0  # how many wait for something of the other side
        self._paced = False  # whether the other side may be asked more often than now and then
        self._pinged_at: float | None = None
        self.end: P2PDistError | None = None
        self.loud = self.silent = False
        self.bytes_sent = self.bytes_received = 0
        self.round_trip_s: float | None = None

    def wake(self) -> None:
        """The session has something to send."""
        if self._flusher is not None and self._parked:
            self._flusher.due(self)
        else:
            self._outgoing.fire()

    def push(self) -> None:
        """Send what the session has at once, as far as that needs no wait; the writer does the rest.

        For a few bytes on an idle connection it costs half of what waking the writer does.
        """
        if not self._parked or self.end is not None or not isinstance(self._stream, SecureStream):
            self._outgoing.fire()
            return
        try:
            while data := self._owner.output():
                if not self._stream.send_nowait(data):
                    self._unsent += len(data)
                    self._outgoing.fire()  # it waits until the rest can be sent
                    return
                self._left(len(data))
        except _GONE:
            self._outgoing.fire()  # the writer finds out, too; the reader learns why

    def finish(self, error: P2PDistError, *, loud: bool = False, farewell: str = "") -> None:
        """End the link because of *error*; the first reason counts. What is queued is still sent.

        Args:
            error: What everybody who uses the link from now on is told.
            loud: Whether it is raised to who reads frames, too.
            farewell: What the other side is told that it did wrong.
        """
        if self.end is not None:
            return
        self.end = error
        self.loud = loud
        self._farewell = farewell
        self._owner.ended()
        self._ended.fire()
        self._outgoing.fire()

    async def wait_ended(self) -> None:
        """Wait until the link has ended, however."""
        while self.end is None:
            await self._ended.wait()

    def abort(self, error: P2PDistError) -> None:
        """End the link because of *error*, at once, with nothing more sent."""
        self.finish(error)
        self._sever()

    async def aclose(self, reason: str = "") -> None:
        """Say goodbye, wait for the other side's, and close. See :meth:`.established.Link.aclose`."""
        self.finish(Unavailable(f"the link with {self._peer} was closed here"), farewell=reason)
        try:
            with trio.move_on_after(limits.LINK_CLOSE_S):
                while self._running:
                    await self._done.wait()
        finally:
            self._sever()

    def keep_alive(self, now: float) -> None:
        """Ask for a sign of life when none has come for a while; give the other side up after longer."""
        self._session.forgive()
        self._listen(now)

    @asynccontextmanager
    async def awaiting(self) -> AsyncIterator[None]:
        """For as long as the block runs, somebody waits for something that only the other side can send."""
        self._waiting += 1
        self._silence.awaited(trio.current_time())
        failed: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen_closely)
                try:
                    yield
                except Exception as error:  # noqa: BLE001  # carried past the nursery, which would wrap it
                    failed = error
                nursery.cancel_scope.cancel()
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._silence.not_awaited()
        if failed is not None:
            raise failed

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        """Carry for as long as the block runs, then close. See :meth:`.established.Link.running`."""
        failed: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, nursery)
                nursery.start_soon(self._write)
                try:
                    yield nursery
                except Exception as error:  # noqa: BLE001  # carried past the nursery, which would wrap it
                    failed = error
                await self.aclose()
                nursery.cancel_scope.cancel()
        finally:
            await self._cut()
        if failed is not None:
            raise failed

    async def _read(self, nursery: trio.Nursery) -> None:
        try:
            while data := await self._stream.receive_some(_READ_BYTES):
                self._silence.heard(trio.current_time())
                self.bytes_received += len(data)
                for event in self._session.receive(bytes(data)):
                    self._handle(event, nursery)
                    if isinstance(event, SessionEnded):
                        return
                self.push()
        except PeerError as error:
            named = PeerError(f"{self._peer} {error.what}", hint=error.hint)
            self.finish(named, loud=True, farewell=error.what)
        except _GONE as error:
            self.finish(failure(self._peer, error))
        finally:
            self.finish(failure(self._peer, None))
            self._over()

    async def _write(self) -> None:
        try:
            while True:
                data = self._owner.output()
                if data or self._unsent:
                    unsent, self._unsent = self._unsent, 0
                    await self._stream.send_all(data)
                    self._left(unsent + len(data))
                elif self.end is None:
                    self._parked = True
                    await self._outgoing.wait()
                    self._parked = False
                else:
                    break
            self._session.close(self._farewell)
            await self._stream.send_all(self._session.output())
            self._said = True
        except _GONE:
            self._said = True  # or cannot be said; the reader learns why
        finally:
            self._over()

    def _left(self, count: int) -> None:
        """So many bytes are on their way."""
        self.bytes_sent += count
        self._owner.sent()

    async def _listen_closely(self) -> None:
        """Look at the silence whenever it says so; for as long as the link lives, or until cancelled."""
        while self.end is None:
            await trio.sleep_until(self._silence.next_look())
            self._listen(trio.current_time())

    def _listen(self, now: float) -> None:
        if self.end is not None:
            return
        if self._silence.asked and self._is_arriving():
            self._silence.arriving(now)
        match self._silence.look(now):
            case "gone":
                self.silent = True
                silent_s = self._silence.lasts_s(now)
                self.abort(Unavailable(f"nothing was heard from {self._peer} for {silent_s:.0f} s"))
            case "ask":
                self._taken, under_way = self._progress()
                self._to_be_taken = self._taken + under_way
                self._pinged_at = now
                self._session.ping()
                self._outgoing.fire()
            case "fine":
                pass

    def _is_arriving(self) -> bool:
        """Whether more of what stands before our question has arrived since the last look, but not all."""
        before = self._taken
        self._taken, _ = self._progress()
        return before < self._taken < self._to_be_taken

    def _progress(self) -> tuple[int, int]:
        return self._stream.progress() if isinstance(self._stream, SecureStream) else (0, 0)

    def _handle(self, event: SessionEvent, nursery: trio.Nursery) -> None:
        if self.end is not None:
            return  # only the other side's goodbye is awaited
        match event:
            case PaceSet(seconds=seconds):
                self._silence.paced(seconds)
                if not self._paced:
                    self._paced = True
                    nursery.start_soon(self._listen_closely)
            case PingAnswered():
                if self._pinged_at is not None:
                    self.round_trip_s = trio.current_time() - self._pinged_at
            case SessionEnded(reason=reason):
                said = f": {printable(reason)}" if reason else ""
                self.finish(Unavailable(f"{self._peer} closed the link{said}"), loud=bool(reason))
            case _:
                self._owner.happened(event, nursery)

    def _over(self) -> None:
        self._running -= 1
        self._done.fire()
        if not self._running and self._said:
            self._sever()  # nobody has to wait until the owner has noticed

    async def _cut(self) -> None:
        """Close the connection, with a goodbye if none was said and it can still be said."""
        self.finish(Unavailable(f"the link with {self._peer} was closed here"))
        with trio.move_on_after(limits.LINK_CLOSE_S) as scope, suppress(*_GONE, trio.BusyResourceError):
            scope.shield = True
            self._session.close(self._farewell)
            await self._stream.send_all(self._session.output())
            await self._stream.aclose()
        self._sever()
