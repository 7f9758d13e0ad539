"""A session's way to better paths: attempts beside the path that it has, one after the other.

Both ends have a :class:`Punching` beside their conversation. The initiator *leads*: it begins an attempt at
once, another one when the path that came of it is lost, and one now and then while there is none. The device
*follows*. Each end attaches the stream that it gets to the session, which moves by itself, and falls back by
itself. See :mod:`p2pdist.wire.punching` for what they say to each other.

aiortc is imported with the first attempt, on the island's thread.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio

from p2pdist import limits
from p2pdist.core.paths import is_loopback, may_ask, path_kind, pause_s
from p2pdist.core.session import PathKind
from p2pdist.errors import P2PDistError, PeerError, Unavailable, sole_error
from p2pdist.net.conversations import Conversation
from p2pdist.net.pulse import Pulse
from p2pdist.net.rtc.island import Island
from p2pdist.net.rtc.punch import Exchange, open_punched
from p2pdist.net.rtc.report import PunchFailed, PunchReport
from p2pdist.net.rtc.stream import PunchedStream
from p2pdist.net.sessions import SessionStream
from p2pdist.wire import codec
from p2pdist.wire.punching import Begin, Described, GivenUp, PunchSignal
from p2pdist.wire.stun import Endpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt that is over: ``path`` is what came of it, None for nothing."""

    number: int
    path: PathKind | None
    seconds: float
    report: PunchReport


class _Signalling:
    """What the other side has said in one attempt."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.began = now
        self.theirs: Described | None = None
        self.given_up = ""
        self.changed = Pulse()

    async def described(self) -> Described:
        """Wait for the other side's description. Raises Unavailable when it says that there is none."""
        while self.theirs is None:
            if self.given_up:
                raise Unavailable(f"the other side gave up: {self.given_up}")
            await self.changed.wait()
        return self.theirs


class Punching:
    """One end of the attempts of one session.

    Args:
        stream: The session, to which paths are attached.
        island: Where the paths live; open for longer than the session.
        leads: Whether this end begins the attempts.
        stun_servers: Returns whom to ask how NATs show us.
        hosts: Our own addresses to try; None for all that may be reachable.
        passive: Returns whether this end may begin nothing, and only answers who calls it.
        ports: The UDP ports of this end's paths; 0 is the system's choice.
        delay_s: How long the leader waits before its first attempt.
        on_attempt: Called after each attempt; does not block.
    """

    def __init__(
        self,
        stream: SessionStream,
        island: Island,
        *,
        leads: bool,
        stun_servers: Callable[[], Sequence[Endpoint]],
        hosts: Sequence[str] | None = None,
        passive: Callable[[], bool] = lambda: False,
        ports: Sequence[int] = (0,),
        delay_s: float = 0.0,
        on_attempt: Callable[[Attempt], object] = lambda attempt: None,
    ) -> None:
        self._stream = stream
        self._island = island
        self._leads = leads
        self._stun_servers = stun_servers
        self._hosts = hosts
        self._passive = passive
        self._ports = ports
        self._delay_s = delay_s
        self._on_attempt = on_attempt
        self._outbox, self._to_send = trio.open_memory_channel[PunchSignal](limits.PUNCH_SIGNALS_MAX)
        self._present: _Signalling | None = None
        self._scope = trio.CancelScope()
        self._news = Pulse()
        self._attempts: deque[Attempt] = deque(maxlen=limits.PUNCH_ATTEMPTS_KEPT)

    @property
    def attempts(self) -> Sequence[Attempt]:
        """The last attempts that are over, the newest last."""
        return tuple(self._attempts)

    @property
    def servers(self) -> Sequence[Endpoint]:
        """Whom this end asks how NATs show it."""
        loopback = any(map(is_loopback, self._hosts or ()))
        return [endpoint for endpoint in self._stun_servers() if may_ask(endpoint, loopback=loopback)]

    async def wait_attempted(self) -> Attempt:
        """Wait until an attempt is over; return the newest."""
        while not self._attempts:
            await self._news.wait()
        return self._attempts[-1]

    def take(self, data: bytes) -> None:
        """Take a signal of the other side.

        Raises:
            PeerError: it is none, or none that this end could get.
        """
        signal: PunchSignal = codec.decode(data, PunchSignal, bytes_max=limits.SESSION_SIGNAL_BYTES_MAX)
        present = self._present
        if isinstance(signal, Begin):
            if self._leads:
                raise PeerError("the other side begins an attempt, which is up to this one")
            if present is not None and present.number >= signal.attempt:
                raise PeerError(f"attempt {signal.attempt} comes after attempt {present.number}")
            self._present = _Signalling(signal.attempt, trio.current_time())
            self._scope.cancel()  # the attempt before
            self._news.fire()
        elif present is not None and present.number == signal.attempt:  # else of one that is over
            if isinstance(signal, Described):
                present.theirs = present.theirs or signal
            else:
                present.given_up = signal.reason or "without a reason"
            present.changed.fire()

    @asynccontextmanager
    async def beside(self, conversation: Conversation) -> AsyncIterator[None]:
        """Run beside the block, and end with it; errors of the block leave as they are."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.run, conversation)
                yield
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            raise sole_error(group) from None

    async def run(self, conversation: Conversation) -> None:
        """Keep the session on the best path that can be had, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send, conversation)
            await (self._lead() if self._leads else self._follow())

    async def _lead(self) -> None:
        failures, number = 0, 0
        await trio.sleep(self._delay_s)
        while True:
            number += 1
            self._present = _Signalling(number, trio.current_time())
            over = await self._attempt(self._present)
            opened_at = trio.current_time()
            if over is not None:
                await over.wait()
            stood = over is not None and trio.current_time() - opened_at >= limits.PUNCH_STABLE_S
            failures = 0 if stood else failures + 1
            await trio.sleep(pause_s(failures, random.random()))

    async def _follow(self) -> None:
        done: _Signalling | None = None
        while True:
            while self._present is done or self._present is None:
                await self._news.wait()
            done = self._present
            with trio.CancelScope() as self._scope:
                await self._attempt(done)

    async def _attempt(self, signalling: _Signalling) -> trio.Event | None:
        """Make one attempt; return the event of its path's end, or None."""
        try:
            stream = await open_punched(
                self._island,
                self._leading(signalling) if self._leads else self._following(signalling),
                controlling=self._leads,
                stun_servers=[endpoint.address for endpoint in self.servers],
                hosts=self._hosts,
                passive=self._passive(),
                ports=self._ports,
            )
        except P2PDistError as error:
            report = error.report if isinstance(error, PunchFailed) else PunchReport(failure=str(error))
            self._settle(signalling, None, report)
            if not self._leads:
                self._say(GivenUp(attempt=signalling.number, reason=report.failure))
            return None
        return await self._attach(signalling, stream)

    async def _attach(self, signalling: _Signalling, stream: PunchedStream) -> trio.Event | None:
        report = stream.report
        assert report.pair is not None, "a path that is open has a pair"
        kind = path_kind(report.pair[0].kind, report.pair[1].kind)
        try:
            over = self._stream.attach(stream, kind)
        except PeerError as error:  # too many paths
            await trio.aclose_forcefully(stream)
            self._settle(signalling, None, PunchReport(failure=str(error)))
            return None
        self._settle(signalling, kind, report)
        return over

    def _leading(self, signalling: _Signalling) -> Exchange:
        self._say(Begin(attempt=signalling.number))

        async def exchange(ours: bytes) -> bytes:
            theirs = await signalling.described()
            round_trip_s = trio.current_time() - signalling.began - theirs.held_s
            self._say(Described(attempt=signalling.number, description=ours))
            await trio.sleep(min(max(round_trip_s / 2, 0.0), limits.PUNCH_SKEW_S_MAX))
            return theirs.description

        return exchange

    def _following(self, signalling: _Signalling) -> Exchange:
        async def exchange(ours: bytes) -> bytes:
            held_s = trio.current_time() - signalling.began
            self._say(Described(attempt=signalling.number, description=ours, held_s=held_s))
            return (await signalling.described()).description

        return exchange

    def _say(self, signal: PunchSignal) -> None:
        """Have something said. Where the session is stalled it is not, and the attempt runs out of time."""
        with suppress(trio.WouldBlock):
            self._outbox.send_nowait(signal)

    async def _send(self, conversation: Conversation) -> None:
        """Say what is to be said. Not in the attempts: a part of a frame would break the session."""
        async for signal in self._to_send:
            try:
                await conversation.signal(codec.encode(signal, bytes_max=limits.SESSION_SIGNAL_BYTES_MAX))
            except trio.BrokenResourceError:
                return  # the session is over, which whoever uses it hears

    def _settle(self, signalling: _Signalling, path: PathKind | None, report: PunchReport) -> None:
        attempt = Attempt(
            number=signalling.number,
            path=path,
            seconds=round(trio.current_time() - signalling.began, 3),
            report=report,
        )
        self._attempts.append(attempt)
        self._on_attempt(attempt)
        self._news.fire()
