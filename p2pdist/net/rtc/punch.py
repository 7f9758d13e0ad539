"""From two nodes that can only signal to a stream between them."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import trio
from msgspec import structs

from p2pdist import limits
from p2pdist.core.paths import is_loopback
from p2pdist.errors import Unavailable, UsageError
from p2pdist.net.rtc.description import Candidate, Description, encode_description, parse_description
from p2pdist.net.rtc.events import (
    Checked,
    Connect,
    Connected,
    Event,
    Gathered,
    Order,
    PhaseFinished,
    Received,
)
from p2pdist.net.rtc.island import Island, Resident
from p2pdist.net.rtc.report import Phase, PunchFailed, PunchReport, TriedCandidate, TriedPair
from p2pdist.net.rtc.stream import PunchedStream

Exchange = Callable[[bytes], Awaitable[bytes]]
"""The signalling: takes our description to the other side and returns theirs, *when both sides are to
start*. They must start together (within some 50 ms): a NAT that hears the other side before its own may
lose the attempt. Whoever stands between them, the gateway, waits for both and then answers both."""


async def open_punched(
    island: Island,
    exchange: Exchange,
    *,
    controlling: bool,
    stun_servers: Sequence[tuple[str, int]] = (),
    hosts: Sequence[str] | None = None,
    passive: bool = False,
    ports: Sequence[int] = (0,),
    limit_s: float = limits.PUNCH_S,
) -> PunchedStream:
    """Connect to another node directly, through the NATs between.

    Both sides call it, at about the same time, one of them *controlling*.

    Args:
        island: Where the path lives; it must be open for as long as the stream.
        exchange: The signalling, sealed end to end between the two nodes.
        controlling: Whether this side picks the pair of addresses. A NAT that moves to another port later
            is survived only if the side that is open to everybody controls.
        stun_servers: Whom to ask how the NAT shows us: IP addresses and ports of gateways.
        hosts: Our own addresses to try; by default those of :func:`~.addresses.host_addresses`.
        passive: Whether this side may begin nothing: it asks no STUN server, and calls only the addresses
            from which the other side has called it. The other side must not be passive, too.
        ports: The UDP ports that this side may use; 0 is the system's choice. Each attempt, and then its
            path, has one of them at each address.
        limit_s: When to give up.

    Returns:
        The stream; it belongs to the caller, who closes it. Its ``report`` says how it came about.

    Raises:
        PunchFailed: no path came about; its ``report`` says what was tried and why not.
        PeerError: the other side's description is malformed, or it broke the protocol.
        TrustError: whoever answered does not hold the certificate that the description names.
        UsageError: a STUN server or one of *hosts* is not an IP address.
        Exception: whatever *exchange* raises.

    Cancellation, as every error, closes the sockets of the attempt before it goes on.
    """
    for host in (*(host for host, _ in stun_servers), *(hosts or ())):
        _check_address(host)
    attempt = _Attempt(island, _maker(controlling, hosts, () if passive else stun_servers, passive, ports))
    try:
        with trio.move_on_after(limit_s):
            ours = await attempt.gathered()
            began = trio.current_time()
            answer = await exchange(encode_description(ours))
            attempt.seconds[Phase.EXCHANGE] = trio.current_time() - began
            theirs = parse_description(answer, expected="controlled" if controlling else "controlling")
            return await attempt.connected(theirs)
        failure = f"{_NOT_DONE[attempt.phase]} within {limit_s:g} s"
        await attempt.give_up()  # before the report: it tells what became of the pairs
        raise PunchFailed(attempt.report(failure))
    except BaseException:
        await attempt.give_up()
        raise


def callable_candidates(theirs: Sequence[Candidate], *, ours: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates of the other side that we call: all, but loopback only from loopback.

    Otherwise a peer could make us send packets to services of our own machine.
    """
    if any(is_loopback(candidate.host) for candidate in ours):
        return tuple(theirs)
    return tuple(candidate for candidate in theirs if not is_loopback(candidate.host))


_NOT_DONE = {
    Phase.GATHER: "this machine's addresses were not found out",
    Phase.EXCHANGE: "the other side did not say how it can be reached",
    Phase.ICE: "no pair of addresses let packets through in both directions (UDP is blocked on the way, or"
    " both sides' NATs use another port for each address)",
    Phase.DTLS: "the two sides did not agree on keys",
    Phase.SCTP: "the channel did not open",
}


class _Attempt:
    """One attempt seen from trio: its path on the island, and what it has come to."""

    def __init__(
        self, island: Island, make: Callable[[Callable[[Event, int], bool]], Resident[Order]]
    ) -> None:
        self.stream = PunchedStream()
        self.seconds: dict[Phase, float] = {}
        self._description: Description | None = None
        self._local: Sequence[TriedCandidate] = ()
        self._remote: Sequence[TriedCandidate] = ()
        self._pair: tuple[TriedCandidate, TriedCandidate] | None = None
        self._pairs: Sequence[TriedPair] = ()
        self._changed = trio.Event()
        self._stay = island.settle(make, self._deliver, self._conclude)
        self.stream.attach(self._stay)

    @property
    def phase(self) -> Phase:
        """The first phase that is not finished."""
        return next((phase for phase in Phase if phase not in self.seconds), Phase.SCTP)

    def report(self, failure: str = "") -> PunchReport:
        """Return what has been tried so far."""
        return PunchReport(
            local=self._local,
            remote=self._remote,
            pair=self._pair,
            pairs=self._pairs,
            seconds=dict(self.seconds),
            failure=failure,
        )

    async def gathered(self) -> Description:
        """Wait for our own description."""
        await self._wait_finished(Phase.GATHER)
        assert self._description is not None
        return self._description

    async def connected(self, theirs: Description) -> PunchedStream:
        """Call the other side, and wait until the channel is open."""
        assert self._description is not None
        called = callable_candidates(theirs.candidates, ours=self._description.candidates)
        theirs = structs.replace(theirs, candidates=called)
        self._remote = _tried(theirs)
        self._stay.order(Connect(theirs))
        await self._wait_finished(Phase.SCTP)
        self.stream.report = self.report()
        return self.stream

    async def give_up(self) -> None:
        """End the path, and wait until nothing of it is left."""
        self._stay.cancel()
        await self._stay.wait_ended()

    async def _wait_finished(self, phase: Phase) -> None:
        while phase not in self.seconds:
            if self._stay.ended.is_set():
                error = self.stream.failure or Unavailable("the attempt was ended")
                if isinstance(error, Unavailable):
                    raise PunchFailed(self.report(str(error))) from error
                raise error
            await self._changed.wait()

    def _deliver(self, event: Event) -> None:
        match event:
            case Received(message):
                self.stream.receive_nowait(message)
                return
            case PhaseFinished(phase=phase, seconds=seconds):
                self.seconds[phase] = seconds
            case Gathered(description=description):
                self._description = description
                self._local = _tried(description)
            case Checked(pairs=pairs):
                self._pairs = pairs
            case Connected(local=local, remote=remote, tried=tried):
                self._pair = (local, remote)
                self._remote = tried
        self._wake()

    def _conclude(self) -> None:
        self.stream.fail(self._stay.error)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _maker(
    controlling: bool,
    hosts: Sequence[str] | None,
    stun_servers: Sequence[tuple[str, int]],
    passive: bool,
    ports: Sequence[int],
) -> Callable[[Callable[[Event, int], bool]], Resident[Order]]:
    """Return what makes the path on the island. Only there, and only then, aiortc is imported."""

    def make(tell: Callable[[Event, int], bool]) -> Resident[Order]:
        from p2pdist.net.rtc.addresses import host_addresses
        from p2pdist.net.rtc.path import Path

        own = host_addresses() if hosts is None else hosts
        return Path(
            tell, controlling=controlling, hosts=own, stun_servers=stun_servers, passive=passive, ports=ports
        )

    return make


def _tried(description: Description) -> Sequence[TriedCandidate]:
    return [TriedCandidate(kind=c.kind, host=c.host, port=c.port) for c in description.candidates]


def _check_address(host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise UsageError(f"{host[:80]!r} is not an IP address", hint="look the name up first") from error
