"""What a gateway's observer answers, and what it learns. No I/O.

The source of a datagram can be invented. So a node first gets a connection id, which depends on its address,
and shows itself with that: what is noted came from an address where the id was received. The port is not in
it: libtorrent uses one id for both observers, and a symmetric NAT shows it at another port to each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from p2pdist import limits
from p2pdist.core.buckets import SourceBuckets
from p2pdist.errors import PeerError
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.observation import Connect, decode_request, encode_connected, encode_noted
from p2pdist.wire.stun import endpoint_of

_IPV6_PREFIX_BYTES = 8  # one customer has at least a /64


class Observer:
    """The answers of all observers of one gateway.

    Args:
        seen: Takes a token, the number of the observer, and from where the datagram came.
        key: 16 or more bytes that nobody outside can guess.
        now: The time, in monotonic seconds.
    """

    def __init__(self, seen: Callable[[str, int, Endpoint], None], *, key: bytes, now: float) -> None:
        self._seen = seen
        self._key = key
        self._sources = SourceBuckets(
            limits.STUN_SOURCES,
            per_s=limits.OBSERVER_SOURCE_PER_S,
            burst=limits.OBSERVER_SOURCE_BURST,
            key=key,
            now=now,
        )

    def handle_datagram(self, data: bytes, host: str, port: int, observer: int, now: float) -> bytes | None:
        """Return what to answer, never more than there is of *data*; None: nothing.

        Args:
            data: A datagram, whatever it is.
            host: The address that it claims to come from, as sockets say it.
            port: The port that it claims to come from.
            observer: The number of the observer that has it.
            now: The time, in monotonic seconds.
        """
        source = endpoint_of(host, port)
        packed = source.ip.packed
        if not self._sources.take(packed[:_IPV6_PREFIX_BYTES], now):
            return None
        try:
            request = decode_request(data)
        except PeerError:
            return None
        epoch = int(now // limits.OBSERVER_ID_S)
        if isinstance(request, Connect):
            return encode_connected(request.transaction, self._connection(packed, epoch))
        if request.connection not in (self._connection(packed, epoch), self._connection(packed, epoch - 1)):
            return None
        if 1 <= port <= 65_535:
            self._seen(request.token, observer, Endpoint(host=source.host, port=port))
        return encode_noted(request.transaction)

    def _connection(self, address: bytes, epoch: int) -> int:
        digest = hashlib.blake2b(
            address + epoch.to_bytes(8, "big", signed=True), digest_size=8, key=self._key
        ).digest()
        return int.from_bytes(digest, "big")
