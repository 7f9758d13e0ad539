"""ICMP echo (RFC 792, RFC 4443): who answers, out of many that are asked at once."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, TypeAlias

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable

_HEADER = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence number
_ECHO, _ECHO_REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_FAMILY = {4: (socket.AF_INET, socket.IPPROTO_ICMP), 6: (socket.AF_INET6, socket.IPPROTO_ICMPV6)}
_TOKEN_BYTES = 16
_PACKET_BYTES = 2_048


Address: TypeAlias = IPv4Address | IPv6Address
Version: TypeAlias = Literal[4, 6]

ALL_NODES = IPv6Address("ff02::1")
"""Everybody on one segment (RFC 4291, section 2.7.1); asked by interface."""


class Pinger:
    """One socket that asks and hears. Made by :func:`open_pinger`.

    What was asked for is recognised by a random token in it: others on this machine ping, too.
    """

    def __init__(self, sock: trio.socket.SocketType, version: Version, *, raw: bool) -> None:
        self._socket = sock
        self._version = version
        self._raw = raw
        self._token = nacl.utils.random(_TOKEN_BYTES)
        self._number = 0

    async def ask(self, address: Address, *, interface: int = 0) -> bool:
        """Send one echo request; False when this machine knows no way there.

        Args:
            interface: By number; needed where *address* is on every segment, as :data:`ALL_NODES` is.
        """
        self._number = (self._number + 1) % 2**16
        request = echo_request(self._number, self._token, self._version)
        to = (str(address), 0) if self._version == 4 else (str(address), 0, 0, interface)
        try:
            await self._socket.sendto(request, to)
        except OSError:  # no route, a broadcast address, or the neighbour has just been found to be away
            return False
        return True

    async def answers(self) -> AsyncGenerator[Address, None]:
        """Yield who answers, as often as they do, until cancelled; without the interface it came by."""
        while True:
            try:
                packet, sender = await self._socket.recvfrom(_PACKET_BYTES)
            except OSError:
                continue  # what became of an earlier request
            if is_answer(packet, self._token, self._version, raw=self._raw):
                yield ip_address(sender[0].partition("%")[0])


@asynccontextmanager
async def open_pinger(version: Version = 4) -> AsyncIterator[Pinger]:
    """Open a pinger for one version of IP; leaving the block closes it.

    Raises:
        Unavailable: this program may send no ICMP.
    """
    sock, raw = _opened(version)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.MIB)
        yield Pinger(sock, version, raw=raw)


def _opened(version: Version) -> tuple[trio.socket.SocketType, bool]:
    """Open a raw socket, or one for ICMP alone, which some systems allow everybody (ping_group_range)."""
    family, protocol = _FAMILY[version]
    for kind in (socket.SOCK_RAW, socket.SOCK_DGRAM):
        try:
            return trio.socket.socket(family, kind, protocol), kind == socket.SOCK_RAW
        except OSError as error:
            refused = error
    raise Unavailable(
        f"this program may send no ICMP ({refused.strerror})",
        hint="give its service the capability CAP_NET_RAW (AmbientCapabilities in its unit)",
    )


def echo_request(number: int, token: bytes, version: Version) -> bytes:
    """Return an echo request. The kernel may put in another identifier, and does the checksum of ICMPv6."""
    identifier = int.from_bytes(token[:2], "big")
    bare = _HEADER.pack(_ECHO[version], 0, 0, identifier, number) + token
    return _HEADER.pack(_ECHO[version], 0, checksum(bare), identifier, number) + token


def is_answer(packet: bytes, token: bytes, version: Version, *, raw: bool) -> bool:
    """Whether *packet* answers a request with this token; a raw socket shows a header of IPv4 before it."""
    if raw and version == 4:
        packet = packet[(packet[0] & 0x0F) * 4 :] if packet else b""
    replies = len(packet) >= _HEADER.size and packet[0] == _ECHO_REPLY[version]
    return replies and packet[_HEADER.size :] == token


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
