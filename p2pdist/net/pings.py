"""ICMP echo (RFC 792): who answers, out of many that are asked at once."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable

_HEADER = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence number
_ECHO, _ECHO_REPLY = 8, 0
_TOKEN_BYTES = 16
_PACKET_BYTES = 2_048


class Pinger:
    """One socket that asks and hears. Made by :func:`open_pinger`.

    What was asked for is recognised by a random token in it: others on this machine ping, too.
    """

    def __init__(self, sock: trio.socket.SocketType, *, raw: bool) -> None:
        self._socket = sock
        self._raw = raw
        self._token = nacl.utils.random(_TOKEN_BYTES)
        self._number = 0

    async def ask(self, address: IPv4Address) -> bool:
        """Send one echo request; False when this machine knows no way there."""
        self._number = (self._number + 1) % 2**16
        try:
            await self._socket.sendto(echo_request(self._number, self._token), (str(address), 0))
        except OSError:  # no route, a broadcast address, or the neighbour has just been found to be away
            return False
        return True

    async def answers(self) -> AsyncIterator[IPv4Address]:
        """Yield who answers, as often as they do, until cancelled."""
        while True:
            try:
                packet, sender = await self._socket.recvfrom(_PACKET_BYTES)
            except OSError:
                continue  # what became of an earlier request
            if is_answer(packet, self._token, raw=self._raw):
                yield IPv4Address(sender[0])


@asynccontextmanager
async def open_pinger() -> AsyncIterator[Pinger]:
    """Open a pinger; leaving the block closes it.

    Raises:
        Unavailable: this program may send no ICMP.
    """
    sock, raw = _opened()
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.MIB)
        yield Pinger(sock, raw=raw)


def _opened() -> tuple[trio.socket.SocketType, bool]:
    """Open a raw socket, or one for ICMP alone, which some systems allow everybody (ping_group_range)."""
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            return trio.socket.socket(socket.AF_INET, kind, socket.IPPROTO_ICMP), kind == socket.SOCK_RAW
        except OSError as error:
            refused = error
    raise Unavailable(
        f"this program may send no ICMP ({refused.strerror})",
        hint="give its service the capability CAP_NET_RAW (AmbientCapabilities in its unit)",
    )


def echo_request(number: int, token: bytes) -> bytes:
    """Return an echo request. Its identifier is in the token as well: the kernel may put in another one."""
    identifier = int.from_bytes(token[:2], "big")
    bare = _HEADER.pack(_ECHO, 0, 0, identifier, number) + token
    return _HEADER.pack(_ECHO, 0, checksum(bare), identifier, number) + token


def is_answer(packet: bytes, token: bytes, *, raw: bool) -> bool:
    """Whether *packet* answers a request with this token; a raw socket shows the IPv4 header before it."""
    if raw:
        packet = packet[(packet[0] & 0x0F) * 4 :] if packet else b""
    return len(packet) >= _HEADER.size and packet[0] == _ECHO_REPLY and packet[_HEADER.size :] == token


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
