"""What a node's swarm and a gateway's observer say to each other: datagrams of BEP 15 (UDP tracker protocol).

libtorrent owns the socket of uTP, and a tracker is the only party to which it sends a datagram from there on
request. So the observer speaks as much of the protocol as makes libtorrent announce; it tracks nothing. ::

    connect     0x41727101980 (8) | 0 (4) | transaction (4)
    answer      0 (4) | transaction (4) | connection id (8)
    announce    connection id (8) | 1 (4) | transaction (4) | 82 bytes | options
    answer      1 (4) | transaction (4) | interval (4) | leechers 0 (4) | seeders 0 (4)

The options are those of BEP 41: ``2, length, text`` is the part of the tracker's URL after the port. Our text
is ``/`` and the token by which the gateway knows whose datagram it is. No answer is larger than its request.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from p2pdist import limits
from p2pdist.errors import PeerError

_MAGIC: Final = 0x41727101980
_CONNECT: Final = struct.Struct("!QII")
_CONNECTED: Final = struct.Struct("!IIQ")
_ANNOUNCED: Final = struct.Struct("!IIIII")
_ANNOUNCE_BYTES: Final = 98
_URL_DATA: Final = 2
_TOKEN: Final = re.compile(rb"/([0-9a-f]{32})\Z")
INTERVAL_S: Final = 3_600
"""When libtorrent announces again by itself: long after the tracker was taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """The first datagram: asks for a connection id, to show that its source is no invention."""

    transaction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The second: a node shows itself."""

    connection: int
    transaction: int
    token: str


ObserverRequest: TypeAlias = Connect | Shown


def decode_request(data: bytes) -> ObserverRequest:
    """Parse a datagram to an observer.

    Raises:
        PeerError: it is none of the two, or too long.
    """
    if len(data) > limits.OBSERVER_BYTES_MAX or len(data) < _CONNECT.size:
        raise PeerError("a datagram to the observer has a wrong size", hint="send those of BEP 15")
    connection, action, transaction = _CONNECT.unpack_from(data)
    if action == 0 and connection == _MAGIC and len(data) == _CONNECT.size:
        return Connect(transaction=transaction)
    if action == 1 and len(data) > _ANNOUNCE_BYTES:
        token = _TOKEN.match(_url_data(data[_ANNOUNCE_BYTES:]))
        if token is not None:
            return Shown(connection=connection, transaction=transaction, token=token[1].decode())
    raise PeerError("a datagram to the observer is none of BEP 15", hint="send those")


def encode_connected(transaction: int, connection: int) -> bytes:
    """Return the answer to :class:`Connect`."""
    return _CONNECTED.pack(0, transaction, connection)


def encode_noted(transaction: int) -> bytes:
    """Return the answer to :class:`Shown`: there are no peers, come back much later."""
    return _ANNOUNCED.pack(1, transaction, INTERVAL_S, 0, 0)


def _url_data(options: bytes) -> bytes:
    """Join the parts of the URL in BEP 41's options."""
    text, at = b"", 0
    while at < len(options):
        kind = options[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if kind == _URL_DATA:
            text += options[at + 2 : at + 2 + length]
        at += 2 + length
    return text
