r"""Finding out what a NAT does, by asking a gateway (RFC 5780 section 4). A state machine without I/O.

Three sockets, so that no test opens or spoils what another one looks at::

    mapping    asks the gateway, then its other port, then its other address: is it seen at the same endpoint?
    filtering  asks the gateway only; asks it to answer from its other port and address: does that come in?
    hairpin    asks the gateway; then this one and ``mapping`` call each other at their outside endpoints

Everything that can run side by side does: there are two rounds of requests, and each ends after
4.5 seconds even if nothing comes. A filter is seen by what does *not* come, so a request is repeated as
RFC 8489 section 6.2.1 says before it counts as unanswered.

A gateway with one address and two ports can show that something depends on the port. What does not may still
depend on the address: then both possibilities are in the result. A gateway without a second port shows
the outside endpoint and nothing else.

Shape: make it; carry out what :meth:`NatProbe.poll_command` gives until it gives None; hand in datagrams
as they come, and call :meth:`NatProbe.handle_tick` when :meth:`NatProbe.next_deadline` has passed; until
:attr:`NatProbe.behaviour` is there. Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.nat import DEPENDENCES, Dependence, NatBehaviour
from p2pdist.wire.stun import (
    TRANSACTION_BYTES,
    BindingAnswer,
    BindingError,
    BindingRequest,
    Endpoint,
    decode,
    encode,
)

ProbeSocket: TypeAlias = Literal["mapping", "filtering", "hairpin"]
PROBE_SOCKETS: Final[tuple[ProbeSocket, ...]] = ("mapping", "filtering", "hairpin")

_Test: TypeAlias = Literal[
    "seen",  # where the gateway sees the socket
    "other-port",  # the same with the gateway's other port in place of the first
    "other-address",  # ... with its other address and port
    "call",  # to the outside endpoint of the other socket of a pair
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendDatagram:
    """Send it from one of the machine's sockets. If that fails, it counts as lost on the way."""

    socket: ProbeSocket
    to: Endpoint
    data: bytes


@dataclass(slots=True, kw_only=True, eq=False)
class _Question:
    """One request with its repetitions. *passed* is None while an answer may still come."""

    socket: ProbeSocket
    test: _Test
    to: Endpoint
    data: bytes
    due: float
    wait_s: float = limits.PROBE_RTO_S
    sent: int = 0
    passed: bool | None = None
    supported: bool = True
    answer: BindingAnswer | None = None


class NatProbe:
    """One look at what stands between a device and a gateway.

    Args:
        gateway: The gateway's first address and port.
        local: Where each of :data:`PROBE_SOCKETS` is bound, to an address and not to all.
        random_bytes: Gives so many bytes that nobody can guess.
        now: The time.

    Raises:
        UsageError: a socket is missing, or is bound to no particular address.
    """

    def __init__(
        self,
        gateway: Endpoint,
        local: Mapping[ProbeSocket, Endpoint],
        *,
        random_bytes: Callable[[int], bytes],
        now: float,
    ) -> None:
        if set(local) != set(PROBE_SOCKETS) or any(each.ip.is_unspecified for each in local.values()):
            raise UsageError("a NAT is looked at from three sockets, each bound to an address")
        self._gateway = gateway
        self._local = dict(local)
        self._random_bytes = random_bytes
        self._other: Endpoint | None = None
        self._questions: dict[bytes, _Question] = {}
        self._commands: deque[SendDatagram] = deque()
        for socket in PROBE_SOCKETS:
            self._ask(socket, "seen", gateway, now)
        self.handle_tick(now)

    # Events ----------------------------------------------------------------------------------------

    def handle_datagram(self, socket: ProbeSocket, data: bytes, source: Endpoint, now: float) -> None:
        """Something came from *source*. What does not answer an open question changes nothing.

        Raises:
            UsageError: there is no such socket.
        """
        if socket not in self._local:
            raise UsageError(f"a NAT is not looked at from a socket {socket!r}")
        try:
            message = decode(data)
        except PeerError:
            return
        question = self._questions.get(message.transaction)
        if question is None or question.passed is not None:
            return
        match message:
            case BindingRequest() if question.test == "call" and socket != question.socket:
                question.passed = True
            case BindingAnswer() if socket == question.socket:
                self._answered(question, message, source, now)
            case BindingError() if socket == question.socket and source == question.to:
                question.passed = question.supported = False
        self.handle_tick(now)

    def handle_tick(self, now: float) -> None:
        """Time has passed."""
        for question in self._questions.values():
            if question.passed is None and question.due <= now:
                self._repeat(question, now)

    # Outputs ---------------------------------------------------------------------------------------

    def poll_command(self) -> SendDatagram | None:
        """Return what is to be sent next; None when nothing is."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self) -> float | None:
        """When :meth:`handle_tick` has something to do; None: never, the result is there."""
        return min((each.due for each in self._questions.values() if each.passed is None), default=None)

    @property
    def behaviour(self) -> NatBehaviour | None:
        """What was found out; None while questions are open."""
        return self._conclude() if self.next_deadline() is None else None

    # Questions -------------------------------------------------------------------------------------

    def _ask(
        self,
        socket: ProbeSocket,
        test: _Test,
        to: Endpoint,
        now: float,
        *,
        change_port: bool = False,
        change_address: bool = False,
    ) -> None:
        transaction = self._random_bytes(TRANSACTION_BYTES)
        request = BindingRequest(
            transaction=transaction, change_port=change_port, change_address=change_address
        )
        data = encode(request, bytes_min=limits.STUN_REQUEST_BYTES)
        self._questions[transaction] = _Question(socket=socket, test=test, to=to, data=data, due=now)

    def _repeat(self, question: _Question, now: float) -> None:
        if question.sent == limits.PROBE_REQUESTS_MAX:
            question.passed = False
            return
        question.sent += 1
        last = question.sent == limits.PROBE_REQUESTS_MAX
        question.due = now + (limits.PROBE_LAST_WAIT_S if last else question.wait_s)
        question.wait_s *= 2
        self._commands.append(SendDatagram(socket=question.socket, to=question.to, data=question.data))

    def _answered(self, question: _Question, answer: BindingAnswer, source: Endpoint, now: float) -> None:
        if question.socket == "filtering" and question.test != "seen":
            if source == question.to:  # it answered, but not from elsewhere
                question.passed = question.supported = False
            elif question.test == "other-port" or source.host != question.to.host:
                question.passed = True
            return
        if source != question.to:
            return
        question.passed, question.answer = True, answer
        if question.test == "seen":
            self._seen(question, answer, now)

    def _seen(self, question: _Question, answer: BindingAnswer, now: float) -> None:
        if self._other is None and answer.other is not None and self._is_other(answer.other):
            self._other = answer.other
        if self._other is not None and question.socket != "hairpin":
            self._ask_others(question.socket, self._other, now)
        if question.socket != "filtering":
            self._call(now)

    def _ask_others(self, socket: ProbeSocket, other: Endpoint, now: float) -> None:
        filtering = socket == "filtering"
        if other.port != self._gateway.port:
            to = self._gateway if filtering else Endpoint(self._gateway.host, other.port)
            self._ask(socket, "other-port", to, now, change_port=filtering)
        if other.host != self._gateway.host:
            to = self._gateway if filtering else other
            self._ask(socket, "other-address", to, now, change_port=filtering, change_address=filtering)

    def _call(self, now: float) -> None:
        """Once both outside endpoints are known, let the two sockets call each other there."""
        ours, theirs = self._mapped("mapping"), self._mapped("hairpin")
        if ours is None or theirs is None or ours == self._local["mapping"]:
            return
        self._ask("mapping", "call", theirs, now)
        self._ask("hairpin", "call", ours, now)

    def _is_other(self, other: Endpoint) -> bool:
        """Whether the gateway may send us there: a lie costs a stranger a dozen small requests at most."""
        ip = other.ip
        return (
            ip.version == self._gateway.ip.version
            and other.port != 0
            and not (ip.is_multicast or ip.is_unspecified)
            and ip.is_loopback == self._gateway.ip.is_loopback
        )

    # The result ------------------------------------------------------------------------------------

    def _conclude(self) -> NatBehaviour:
        answered = [socket for socket in PROBE_SOCKETS if self._mapped(socket) is not None]
        socket = answered[0] if answered else PROBE_SOCKETS[0]
        local, mapped = self._local[socket], self._mapped(socket)
        calls = [each.passed for each in self._questions.values() if each.test == "call"]
        hosts = {self._gateway.host, (self._other or self._gateway).host}
        return NatBehaviour(
            gateway=self._gateway,
            local=local,
            mapped=mapped,
            mapping=self._mapping() if mapped != local else DEPENDENCES[:1],
            filtering=_dependence(self._comes("other-address"), self._comes("other-port")),
            hairpinning=any(calls) if calls else None,
            addresses=len(hosts) if mapped is not None else 0,
        )

    def _mapping(self) -> tuple[Dependence, ...]:
        port, address = self._same("other-port"), self._same("other-address")
        return _dependence(address and port is not False, port)  # one difference proves that it depends

    def _find(self, socket: ProbeSocket, test: _Test) -> _Question | None:
        every = self._questions.values()
        return next((each for each in every if (each.socket, each.test) == (socket, test)), None)

    def _mapped(self, socket: ProbeSocket, test: _Test = "seen") -> Endpoint | None:
        question = self._find(socket, test)
        return question.answer.mapped if question is not None and question.answer is not None else None

    def _same(self, test: _Test) -> bool | None:
        """Whether the outside endpoint is the same towards elsewhere; None where that is not known."""
        first, second = self._mapped("mapping"), self._mapped("mapping", test)
        return None if first is None or second is None else first == second

    def _comes(self, test: _Test) -> bool | None:
        """Whether an answer from elsewhere comes in; None where that was not tried."""
        question = self._find("filtering", test)
        return question.passed if question is not None and question.supported else None


def _dependence(other_address: bool | None, other_port: bool | None) -> tuple[Dependence, ...]:
    """Say what it may be, from whether it holds towards another address, and another port of the same one."""
    independent = other_address or (other_address is None and other_port is not False)
    by_address = not other_address and other_port is not False
    by_port = not other_address and not other_port
    holds = zip(DEPENDENCES, (independent, by_address, by_port), strict=True)
    return tuple(dependence for dependence, may_be in holds if may_be)
