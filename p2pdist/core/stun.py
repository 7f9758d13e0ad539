"""What a gateway answers to STUN requests. No I/O.

Anybody can send a request with somebody else's address as its source, so the gateway must be of no use for
attacking others: *no answer is larger than its request* (see ``docs/decisions/0082``). What does not fit
shrinks to the outside endpoint alone, and then to nothing. Our own requests are padded, and always fit.

A flood must not hurt the others either: each source has a bucket of tokens, and all sources that the
gateway does not know share one more. Memory does not grow with the number of sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from p2pdist import limits
from p2pdist.core.buckets import Bucket, SourceBuckets
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.stun import (
    CHANGE_REQUEST,
    UNKNOWN_ATTRIBUTE,
    BindingAnswer,
    BindingError,
    BindingRequest,
    Endpoint,
    decode,
    encode,
    endpoint_of,
)

_IPV6_PREFIX_BYTES = 8  # one customer has at least a /64, and as many addresses as it likes


@dataclass(frozen=True, slots=True, kw_only=True)
class StunStatistics:
    """What became of all datagrams so far.

    Attributes:
        answered: With the outside endpoint.
        refused: With an error, for something that is not done here.
        malformed: No answer, because they are no Binding requests.
        unpadded: No answer, because every answer would be larger than the request.
        source_limited: Not looked at: too many from one source.
        stranger_limited: Not looked at: too many from sources that nobody knows.
        unsent: Answers that the operating system did not take.
    """

    answered: int
    refused: int
    malformed: int
    unpadded: int
    source_limited: int
    stranger_limited: int
    unsent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Send *data* from the socket that outsiders know as *origin*."""

    data: bytes
    origin: Endpoint


class StunResponder:
    """The answers of one gateway in one address family.

    Args:
        hosts: The gateway's address as outsiders know it, and a second one if it has one.
        ports: The two ports, on each address.
        known: Whether somebody at this address is known to be there, such as by a link from it: such a
            source does not share the strangers' tokens. Called for every datagram.
        key: 16 or more bytes that nobody outside can guess.
        now: The time, in monotonic seconds.

    Raises:
        UsageError: there are more addresses, of two families, not two ports, or one is there twice.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        ports: tuple[int, int],
        *,
        known: Callable[[str], bool] = lambda host: False,
        key: bytes,
        now: float,
    ) -> None:
        versions = {Endpoint(host, 0).ip.version for host in hosts}
        if not 1 <= len(set(hosts)) == len(hosts) <= 2 or len(versions) != 1 or len(set(ports)) != 2:
            raise UsageError(
                "a STUN responder has one or two different addresses of one family, and two different ports"
            )
        self._other_host = dict(zip(hosts, reversed(hosts), strict=True))
        self._other_port = dict(zip(ports, reversed(ports), strict=True))
        self._known = known
        self._sources = SourceBuckets(
            limits.STUN_SOURCES,
            per_s=limits.STUN_SOURCE_PER_S,
            burst=limits.STUN_SOURCE_BURST,
            key=key,
            now=now,
        )
        strangers = limits.STUN_STRANGERS_PER_S
        self._strangers = Bucket(per_s=strangers, burst=strangers, now=now)
        self._answered = self._refused = self._malformed = self._unpadded = 0
        self._source_limited = self._stranger_limited = self._unsent = 0

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where it answers, as outsiders know it, the first address and port first."""
        return tuple(Endpoint(host, port) for host in self._other_host for port in self._other_port)

    def statistics(self) -> StunStatistics:
        """Count what happened so far."""
        return StunStatistics(
            answered=self._answered,
            refused=self._refused,
            malformed=self._malformed,
            unpadded=self._unpadded,
            source_limited=self._source_limited,
            stranger_limited=self._stranger_limited,
            unsent=self._unsent,
        )

    def handle_datagram(self, data: bytes, host: str, port: int, local: Endpoint, now: float) -> Reply | None:
        """Return what to answer, never more than there is of *data*; None: nothing.

        In a flood most datagrams end at the first test, which is therefore the cheapest.

        Args:
            data: A datagram, whatever it is.
            host: The address that it claims to come from, as sockets say it.
            port: The port that it claims to come from.
            local: At which of :attr:`endpoints` it arrived.
            now: The time, in monotonic seconds.
        """
        known = self._known(host)
        if not known and not self._strangers.has(now):
            self._stranger_limited += 1
            return None
        source = endpoint_of(host, port)
        if not self._sources.take(source.ip.packed[:_IPV6_PREFIX_BYTES], now):
            self._source_limited += 1
            return None
        try:
            request = decode(data)
        except PeerError:
            self._malformed += 1
            return None
        if not isinstance(request, BindingRequest):
            self._malformed += 1
            return None
        origin, answers = self._answers(request, source, local)
        fitting = next((each for each in map(encode, answers) if len(each) <= len(data)), None)
        if fitting is None:
            self._unpadded += 1
            return None
        self._answered += isinstance(answers[0], BindingAnswer)
        self._refused += isinstance(answers[0], BindingError)
        if not known:
            self._strangers.take(now)
        return Reply(data=fitting, origin=origin)

    def handle_unsent(self) -> None:
        """The operating system did not take an answer; nothing is done about it, the asker asks again."""
        self._unsent += 1

    def _answers(
        self, request: BindingRequest, source: Endpoint, local: Endpoint
    ) -> tuple[Endpoint, Sequence[BindingAnswer | BindingError]]:
        """Return where an answer comes from, and the answers that say it all, or less, best first."""
        transaction, unknown = request.transaction, request.unknown
        if request.change_address and len(self._other_host) == 1:
            unknown += (CHANGE_REQUEST,)
        if unknown:
            return local, [BindingError(transaction=transaction, code=UNKNOWN_ATTRIBUTE, unknown=unknown)]
        other = Endpoint(self._other_host[local.host], self._other_port[local.port])
        origin = Endpoint(
            other.host if request.change_address else local.host,
            other.port if request.change_port else local.port,
        )
        return origin, [
            BindingAnswer(transaction=transaction, mapped=source, origin=origin, other=other),
            BindingAnswer(transaction=transaction, mapped=source),
        ]
