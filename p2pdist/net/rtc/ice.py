"""ICE by aioice, with what our network wants and without what strangers could do to it.

What differs from :class:`aioice.Connection`:

* its own addresses are given, not guessed;
* a *passive* side checks only the addresses from which a check of the other side came (RFC 8445,
  section 7.3.1.4), so that it begins nothing, and a stateful firewall before it lets through what it sends;
* a check of the other side makes ours go out again at once, so that a side that starts some
  milliseconds early does not lose half a second;
* the STUN request is padded: our responder never answers with more bytes than it got, so that it
  cannot be used to flood somebody else (aioice's own request has 20 bytes, the smallest answer 32);
* a stranger gets no answer: no errors for checks without the credentials, which would make each of our
  sockets an amplifier too;
* nothing but STUN is taken from an address that has not shown the credentials, so that a stranger can
  neither disturb the handshake nor fill the queue; the queue and the list of pairs are bounded.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

import aioice.ice
from aioice import Candidate, stun
from aioice.candidate import candidate_foundation, candidate_priority
from aioice.ice import CandidatePair

from p2pdist import limits

SocketAddress = tuple[str, int]

_COMPONENT = 1
_HEADER_BYTES = 4  # of an attribute


class IceConnection(aioice.Connection):
    """One ICE session with one component.

    Args:
        controlling: Whether this side nominates.
        hosts: Our addresses.
        stun_servers: Whom to ask how the NAT shows us; IP addresses.
        passive: Whether this side calls nobody who has not called it. Then :meth:`connect` does not fail: how
            long to wait to be called is up to the caller.
        ports: Which UDP ports to use, one at each of our addresses; 0 is the system's choice.
    """

    def __init__(
        self,
        *,
        controlling: bool,
        hosts: Sequence[str],
        stun_servers: Sequence[SocketAddress],
        passive: bool = False,
        ports: Sequence[int] = (0,),
    ) -> None:
        super().__init__(ice_controlling=controlling)
        self._passive = passive
        self._hosts = hosts
        self._ports = ports
        self._stun_servers = stun_servers
        self._known: set[SocketAddress] = set()
        self._repeated: set[CandidatePair] = set()
        self._pairs: dict[CandidatePair, None] = {}
        self._seen: dict[tuple[int, SocketAddress], SocketAddress] = {}

    @property
    def nominated(self) -> CandidatePair | None:
        """The pair in use."""
        return self._nominated.get(_COMPONENT)

    @property
    def pairs(self) -> Sequence[CandidatePair]:
        """Every pair that was there, also those that were dropped when another one worked."""
        return list(self._pairs)

    def seen_by_peer(self, pair: CandidatePair) -> Candidate:
        """Return what the other side sees of us on *pair*: our own candidate, unless a NAT stands between."""
        base = pair.local_candidate
        seen = self._seen.get((pair.protocol.id, pair.remote_addr), (base.host, base.port))
        known = [each for each in self.local_candidates if (each.host, each.port) == seen]
        return known[0] if known else make_candidate("prflx", *seen, base=(base.host, base.port))

    def told(self, protocol: aioice.ice.StunProtocol, by: SocketAddress, seen: SocketAddress) -> None:
        """The other side, or a STUN server, says at which address it sees one of our sockets."""
        if self.knows(by):
            self._seen[protocol.id, by] = seen

    async def expect(self, candidates: Sequence[Candidate]) -> None:
        """Take in all the candidates of the other side."""
        for candidate in candidates:
            await self.add_remote_candidate(candidate)
        if not self._passive:  # for which every pair is still to come, with a check
            await self.add_remote_candidate(None)

    def _pair_remote_candidate(self, remote_candidate: Candidate) -> None:
        """Have a candidate checked, which a passive side only does when a check comes from there."""
        if not self._passive:
            super()._pair_remote_candidate(remote_candidate)

    def sort_check_list(self) -> None:
        """Keep the pairs in mind: aioice drops those that it needs no more."""
        super().sort_check_list()
        self._pairs.update(dict.fromkeys(self._check_list))

    def knows(self, address: SocketAddress) -> bool:
        """Whether the other side has named *address*, or has shown its credentials from there."""
        if address not in self._known:
            self._known = {(candidate.host, candidate.port) for candidate in self.remote_candidates}
        return address in self._known

    def abort(self) -> None:
        """Close the sockets at once."""
        for protocol in self._protocols:
            protocol.transport.abort()

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: int = 5
    ) -> list[Candidate]:
        """Bind a socket to each of our addresses, and ask the STUN servers about it."""
        for host in self._hosts:
            opened = await self._bind(host)
            if opened is None:
                continue  # the address went away, or every port is taken
            transport, protocol = opened
            bound = transport.get_extra_info("socket")
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.PUNCH_SOCKET_BYTES)
            protocol.local_candidate = make_candidate("host", *bound.getsockname()[:2])
            self._protocols.append(protocol)
        candidates = [protocol.local_candidate for protocol in self._protocols]
        for seen in await self._ask_servers():
            if not any((seen.host, seen.port) == (other.host, other.port) for other in candidates):
                candidates.append(seen)
        return candidates[: limits.PUNCH_CANDIDATES_MAX]

    async def _bind(self, host: str) -> tuple[asyncio.DatagramTransport, _Protocol] | None:
        """Open a socket at one of our ports, any of them: a firewall may still know the last one's peer."""
        loop = asyncio.get_running_loop()
        for port in random.sample(self._ports, len(self._ports)):
            with suppress(OSError):
                return await loop.create_datagram_endpoint(lambda: _Protocol(self), local_addr=(host, port))
        return None

    async def _ask_servers(self) -> Sequence[Candidate]:
        """Return the server-reflexive candidates; those of slow servers are left out."""
        tasks = [
            asyncio.create_task(_ask_server(protocol, server))
            for protocol in self._protocols
            for server in self._stun_servers
            if (":" in protocol.local_candidate.host) == (":" in server[0])
        ]
        if not tasks:
            return []
        try:
            patience_s = limits.PUNCH_GATHER_S
            waiting = set(tasks)
            while waiting:
                done, waiting = await asyncio.wait(
                    waiting, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                patience_s = min(patience_s, *map(_grace_s, done))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return [seen for task in tasks if not task.cancelled() and (seen := task.result())]

    def data_received(self, data: bytes, component: int) -> None:
        """Queue a datagram for DTLS, if it is one and there is room."""
        if data and self._queue.qsize() < limits.PUNCH_DATAGRAMS_MAX:
            super().data_received(data, component)

    def check_incoming(
        self, message: stun.Message, addr: SocketAddress, protocol: aioice.ice.StunProtocol
    ) -> None:
        """Take a check with the right credentials, unless the other side has too many addresses."""
        if "PRIORITY" in message.attributes and (
            self.knows(addr) or len(self._check_list) < limits.PUNCH_PAIRS_MAX
        ):
            super().check_incoming(message, addr, protocol)
            self._repeat_check(protocol, addr)

    def _repeat_check(self, protocol: aioice.ice.StunProtocol, addr: SocketAddress) -> None:
        """Check a pair again at once that is being checked already (RFC 8445, section 7.3.1.4).

        The other side's packets come through now; our first may have met its NAT before that, and the
        second would only follow after half a second. Once per pair, or the two would do it forever.
        """
        for pair in self._check_list:
            if (
                pair.protocol is protocol
                and pair.remote_addr == addr
                and pair.state is CandidatePair.State.IN_PROGRESS
                and pair not in self._repeated
            ):
                self._repeated.add(pair)
                if pair.task is not None:
                    pair.task.cancel()
                pair.task = None
                self.check_start_task(pair)

    def respond_error(
        self,
        request: stun.Message,
        addr: SocketAddress,
        protocol: aioice.ice.StunProtocol,
        error_code: tuple[int, str],
    ) -> None:
        """Answer an error to the other side, and nothing to strangers."""
        if error_code[0] not in (400, 401):
            super().respond_error(request, addr, protocol, error_code)


class _Protocol(aioice.ice.StunProtocol):
    """One socket: STUN from everybody, data from the other side only."""

    receiver: IceConnection

    def datagram_received(self, data: bytes | str, addr: tuple[object, ...]) -> None:
        assert isinstance(data, bytes)
        address = (str(addr[0]), int(str(addr[1])))
        if not _looks_like_stun(data):
            if self.receiver.knows(address):
                self.receiver.data_received(data, _COMPONENT)
            return
        try:
            message = stun.parse_message(data)
        except (ValueError, struct.error):
            return  # aioice would pass the one on as data and be thrown by the other
        seen = message.attributes.get("XOR-MAPPED-ADDRESS")
        if seen and message.transaction_id in self.transactions:
            self.receiver.told(self, address, (str(seen[0]), int(seen[1])))
        super().datagram_received(data, addr)


def make_candidate(kind: str, host: str, port: int, *, base: SocketAddress | None = None) -> Candidate:
    """Return a candidate with the priority of its kind (RFC 8445, section 5.1.2)."""
    related_host, related_port = base or (None, None)
    return Candidate(
        foundation=candidate_foundation(kind, "udp", related_host or host),
        component=_COMPONENT,
        transport="udp",
        priority=candidate_priority(_COMPONENT, kind),
        host=host,
        port=port,
        type=kind,
        related_address=related_host,
        related_port=related_port,
    )


async def _ask_server(protocol: aioice.ice.StunProtocol, server: SocketAddress) -> Candidate | None:
    """Return how *server* sees the socket (RFC 8489), or None if it does not tell."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    # SOFTWARE may say anything and is understood or ignored by every server; PADDING (RFC 5780) is not.
    padding = limits.PUNCH_STUN_BYTES - len(bytes(request)) - _HEADER_BYTES
    request.attributes["SOFTWARE"] = "p2pdist".ljust(padding)
    try:
        response, _ = await protocol.request(request, server)
    except stun.TransactionError:
        return None
    if "XOR-MAPPED-ADDRESS" not in response.attributes:
        return None
    host, port = response.attributes["XOR-MAPPED-ADDRESS"]
    local = protocol.local_candidate
    return make_candidate("srflx", host, port, base=(local.host, local.port))


def _grace_s(answered: asyncio.Task[Candidate | None]) -> float:
    """Return how much longer to wait for others, now that one server has answered, or could not be asked."""
    seen = answered.result()
    if seen is None:
        return limits.PUNCH_GATHER_S
    translated = (seen.host, seen.port) != (seen.related_address, seen.related_port)
    return limits.PUNCH_GATHER_GRACE_S if translated else limits.PUNCH_GATHER_OPEN_S


def _looks_like_stun(data: bytes) -> bool:
    """Whether it is STUN among what a WebRTC socket gets (RFC 7983)."""
    return len(data) >= stun.HEADER_LENGTH and data[0] < 4
