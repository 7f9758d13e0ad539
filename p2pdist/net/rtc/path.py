"""One punched path on the island: aiortc's transports, driven through their phases by one coroutine."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, cast

import aioice
from aioice.ice import CandidatePair

from p2pdist import limits
from p2pdist.core.paths import CandidateKind, PairOutcome
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.rtc.description import Candidate, Description
from p2pdist.net.rtc.events import (
    Checked,
    Connect,
    Connected,
    Event,
    Finish,
    Gathered,
    Order,
    PhaseFinished,
    Received,
    Send,
)
from p2pdist.net.rtc.ice import IceConnection, SocketAddress, make_candidate
from p2pdist.net.rtc.report import Phase, TriedCandidate, TriedPair
from p2pdist.net.rtc.sctp import Association
from p2pdist.net.rtc.transports import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceTransport,
    RTCSctpCapabilities,
)

_SCTP_PORT = 5000  # RFC 8841: any number; both sides run one association
_DTLS_DIGEST = "sha-256"
_LEAVE_S = 1.0  # for datagrams that the kernel does not take at once
_SILENT_PULSES_MAX = round(limits.PUNCH_DEAD_AFTER_S / limits.PUNCH_PULSE_S)


class Path:
    """A path's life, as a resident of the island.

    Args:
        tell: Takes an event and its size in bytes; False when more waits than there may be.
        controlling: Whether this side nominates the pair.
        hosts: Our addresses.
        stun_servers: Whom to ask how the NAT shows us.
        passive: Whether this side calls nobody who has not called it.
        ports: Which UDP ports to use; see :class:`~p2pdist.net.rtc.ice.IceConnection`.
    """

    def __init__(
        self,
        tell: Callable[[Event, int], bool],
        *,
        controlling: bool,
        hosts: Sequence[str],
        stun_servers: Sequence[SocketAddress],
        passive: bool = False,
        ports: Sequence[int] = (0,),
    ) -> None:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._controlling = controlling
        self._certificate = RTCCertificate.generateCertificate()
        self._ice = IceConnection(
            controlling=controlling, hosts=hosts, stun_servers=stun_servers, passive=passive, ports=ports
        )
        self._dtls = RTCDtlsTransport(cast(RTCIceTransport, _Datagrams(self._ice)), [self._certificate])
        self._sctp = Association(self._dtls, self._break)
        self._channel = self._sctp.open_channel()
        self._remote: asyncio.Future[Description] = self._loop.create_future()
        self._open: asyncio.Future[None] = self._loop.create_future()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._dtls.on("statechange", self._on_state)
        self._channel.on("open", self._on_open)
        self._channel.on("close", self._on_close)
        self._channel.on("message", self._on_message)

    async def run(self) -> None:
        """Gather, connect when told to, and stay until the path ends.

        Raises:
            Unavailable: no way was found, or the other side is gone.
            TrustError: whoever answered is not whom the description names.
            PeerError: the other side broke the protocol.
        """
        try:
            await self._timed(Phase.GATHER, self._gather())
            remote = await self._remote
            await self._timed(Phase.ICE, self._call(remote))
            await self._timed(Phase.DTLS, self._encrypt(remote))
            await self._timed(Phase.SCTP, self._associate())
            await self._stay()
        finally:
            await self._leave()

    def handle(self, order: Order) -> None:
        """Carry out an order, as far as the path has come."""
        match order:
            case Connect(remote):
                if not self._remote.done():
                    self._remote.set_result(remote)
            case Send(message):
                if self._channel.readyState == "open":
                    self._channel.send(message)
            case Finish():
                self._finish()

    async def _timed(self, phase: Phase, work: Awaitable[None]) -> None:
        began = self._loop.time()
        await work
        self._tell(PhaseFinished(phase=phase, seconds=self._loop.time() - began), 0)

    async def _gather(self) -> None:
        await self._ice.gather_candidates()
        candidates = tuple(
            described
            for candidate in self._ice.local_candidates
            if (described := _described(candidate)) is not None
        )
        if not candidates:
            raise Unavailable(
                "this machine has no network address that another one might reach, or no free port there"
            )
        description = Description(
            role="controlling" if self._controlling else "controlled",
            username=self._ice.local_username,
            password=self._ice.local_password,
            fingerprint=self._fingerprint(),
            candidates=candidates,
        )
        self._tell(Gathered(description=description), 0)

    def _fingerprint(self) -> bytes:
        (text,) = (f.value for f in self._certificate.getFingerprints() if f.algorithm == _DTLS_DIGEST)
        return bytes.fromhex(text.replace(":", ""))

    async def _call(self, remote: Description) -> None:
        """Find a pair of addresses that works."""
        self._ice.remote_username, self._ice.remote_password = remote.username, remote.password
        await self._ice.expect([make_candidate(c.kind, c.host, c.port) for c in remote.candidates])
        try:
            await self._ice.connect()
        except ConnectionError as error:
            raise Unavailable("no pair of addresses let a packet through") from error
        finally:
            self._tell(Checked(pairs=self._checked()), 0)
        pair = self._ice.nominated
        if pair is None:
            raise Unavailable("the pair of addresses that worked was lost again")
        tried = [_tried(candidate) for candidate in self._ice.remote_candidates]
        self._tell(
            Connected(
                local=_tried(self._ice.seen_by_peer(pair)), remote=_tried(pair.remote_candidate), tried=tried
            ),
            0,
        )

    def _checked(self) -> Sequence[TriedPair]:
        chosen = self._ice.nominated
        return [
            TriedPair(
                local=_tried(pair.local_candidate),
                remote=_tried(pair.remote_candidate),
                outcome=_outcome(pair, chosen),
            )
            for pair in self._ice.pairs[: limits.PUNCH_PAIRS_TOLD_MAX]
        ]

    async def _encrypt(self, remote: Description) -> None:
        """Agree on keys with the holder of the certificate that the description names (RFC 8122)."""
        fingerprint = RTCDtlsFingerprint(algorithm=_DTLS_DIGEST, value=remote.fingerprint.hex(":"))
        await self._dtls.start(RTCDtlsParameters(fingerprints=[fingerprint]))
        if self._dtls.state == "connected":
            return
        if self._dtls.encrypted:
            raise TrustError(
                "the certificate on the punched path is not the one that the signalling named",
                hint="somebody stands between the two nodes; the path is not used",
            )
        raise Unavailable("the DTLS handshake failed")

    async def _associate(self) -> None:
        """Set up the reliable channel in it."""
        await self._sctp.start(RTCSctpCapabilities(maxMessageSize=limits.PUNCH_FRAME_BYTES + 1), _SCTP_PORT)
        await asyncio.wait([self._open, self._over], return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            self._over.result()

    async def _stay(self) -> None:
        """Give and expect signs of life until it is over."""
        silent_pulses = 0
        while not self._over.done():
            # Pulses are counted, not seconds: a process that was stopped for a while heard nothing either.
            silent_pulses = 0 if self._sctp.heard else silent_pulses + 1
            if silent_pulses >= _SILENT_PULSES_MAX:
                raise Unavailable(f"nothing came on the punched path for {limits.PUNCH_DEAD_AFTER_S:g} s")
            self._sctp.heard = False
            with suppress(ConnectionError):  # it has just ended, and will say so
                await self._sctp.pulse()
            await asyncio.wait([self._over], timeout=limits.PUNCH_PULSE_S)
        self._over.result()

    async def _leave(self) -> None:
        """Tell the other side, if it can be told, and close everything."""
        self._dtls.remove_all_listeners()
        self._channel.remove_all_listeners()
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._sctp.stop()
                await self._dtls.stop()
                await self._ice.close()
        except TimeoutError:
            pass  # a socket that cannot get rid of its last datagrams
        finally:
            self._ice.abort()

    def _break(self, error: P2PDistError) -> None:
        if not self._over.done():
            self._over.set_exception(error)

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def _finish(self) -> None:
        self._sctp.when_drained(self._end)
        self._expect_progress(since=None)

    def _expect_progress(self, *, since: int | None) -> None:
        """End where nothing more of what was sent has arrived for a while."""
        if self._sctp.acknowledged == since:
            self._end()
        else:
            again = functools.partial(self._expect_progress, since=self._sctp.acknowledged)
            self._loop.call_later(limits.PUNCH_CLOSE_S, again)

    def _on_open(self) -> None:
        if not self._open.done():
            self._open.set_result(None)

    def _on_close(self) -> None:
        self._break(Unavailable("the other side closed the punched path"))

    def _on_state(self) -> None:
        if self._dtls.state in ("closed", "failed"):
            self._break(Unavailable("the other side closed the punched path"))

    def _on_message(self, message: bytes) -> None:
        if not self._tell(Received(message), max(len(message), limits.PUNCH_FRAME_COST_MIN)):
            self._break(PeerError("more came on the punched path than there is credit for"))


class _Datagrams:
    """What DTLS wants of an ICE transport."""

    def __init__(self, ice: IceConnection) -> None:
        self._ice = ice
        self._send = ice.send
        self._recv = ice.recv

    @property
    def role(self) -> str:
        return "controlling" if self._ice.ice_controlling else "controlled"


def _described(candidate: aioice.Candidate) -> Candidate | None:
    """Return what the other side is told of a candidate; None for what a STUN server made up."""
    kind: Literal["host", "srflx"] = "srflx" if candidate.type == "srflx" else "host"
    try:
        return Candidate(kind=kind, host=candidate.host, port=candidate.port)
    except UsageError:
        return None


def _outcome(pair: CandidatePair, chosen: CandidatePair | None) -> PairOutcome:
    if pair is chosen:
        return "used"
    if pair.state is CandidatePair.State.SUCCEEDED:
        return "works"
    if chosen is not None:
        return "another was first"
    began = pair.state in (CandidatePair.State.IN_PROGRESS, CandidatePair.State.FAILED)
    return "no answer" if began else "not tried"


def _tried(candidate: aioice.Candidate) -> TriedCandidate:
    return TriedCandidate(kind=cast(CandidateKind, candidate.type), host=candidate.host, port=candidate.port)
