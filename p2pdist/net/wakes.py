"""Sockets for wakes: where a resting device listens, and where wakes are sent from.

A listener's datagrams are looked at by the kernel first (a classic BPF program, socket(7), SO_ATTACH_FILTER):
what does not begin as this device's wakes do never wakes the process. Of what does, it reads a few in a
second; a flood by somebody who has seen one costs no more than that, and its rest is dropped by the kernel.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import ifaddr
import trio

from p2pdist import limits
from p2pdist.core.buckets import Bucket
from p2pdist.core.listening import EVERYWHERE
from p2pdist.errors import Unavailable
from p2pdist.net.rtc.addresses import is_inside
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.wakes import DATAGRAM_BYTES

_SO_ATTACH_FILTER: Final = 26
_UDP_HEADER_BYTES: Final = 8
_LOAD_WORD, _LOAD_LENGTH, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x80, 0x15, 0x06  # of linux/bpf_common.h
_INSTRUCTION: Final = struct.Struct("=HBBI")  # code, how far to jump if true, if false, operand
_ALL_NODES: Final = "ff02::1"
_BROADCAST: Final = ipaddress.IPv4Address("255.255.255.255")
_IP_PKTINFO: Final = 8  # ip(7)
_PACKET_INFO: Final = struct.Struct("=i4s4s")  # struct in_pktinfo: interface, two addresses


class WakeSocket:
    """Where one device listens. Made by :func:`open_wake_socket`.

    Attributes:
        read: How many datagrams the process has read.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._socket = bound
        self.port: int = bound.getsockname()[1]
        self.read = 0
        self._bucket: Bucket | None = None

    async def receive(self) -> bytes:
        """Return the next datagram of a wake's length, as many in a second as it makes sense to look at."""
        per_s, burst = limits.WAKES_READ_PER_S, limits.WAKES_READ_BURST
        if self._bucket is None:
            self._bucket = Bucket(per_s=per_s, burst=burst, now=trio.current_time())
        while True:
            while not self._bucket.take(trio.current_time()):
                await trio.sleep(1 / per_s)
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(DATAGRAM_BYTES + 1)
            except OSError:  # nothing after all, or an error of something that was sent
                continue
            self.read += 1
            if len(data) == DATAGRAM_BYTES:
                return data


@contextmanager
def open_wake_socket(host: str, port: int, prefix: bytes) -> Iterator[WakeSocket]:
    """Listen for datagrams that begin with *prefix*.

    Args:
        host: An address, or :data:`~p2pdist.core.listening.EVERYWHERE`, with broadcasts and multicasts.
        port: 0 takes any free one.
        prefix: Some multiple of four bytes.

    Raises:
        Unavailable: the port is taken, or there is no such address.
    """
    with _bound(host, port) as bound:
        _attach_filter(bound, prefix)
        yield WakeSocket(bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One network interface, on whose segment devices may be; ``ipv4`` and ``ipv6``: what it speaks."""

    index: int
    ipv4: bool
    ipv6: bool


class WakeSender:
    """Sends datagrams without waiting. Made by :func:`open_wake_sender`.

    What cannot be sent is left: it is sent again until its recipient comes.

    Attributes:
        sent: How many datagrams the kernel has taken.
    """

    def __init__(self, ipv4: socket.socket | None, ipv6: socket.socket | None) -> None:
        self._ipv4 = ipv4
        self._ipv6 = ipv6
        self.sent = 0

    def to(self, datagram: bytes, endpoints: Iterable[Endpoint]) -> None:
        """Send to some addresses, each of one host."""
        for endpoint in endpoints:
            if _is_one_host(endpoint.host):  # names would be looked up, for seconds
                sender = self._ipv6 if ":" in endpoint.host else self._ipv4
                self._send(sender, datagram, (endpoint.host, endpoint.port))

    def to_segments(self, datagram: bytes, port: int, segments: Sequence[Segment]) -> None:
        """Send to everybody on some segments: IPv4's broadcast, and IPv6's multicast to all nodes."""
        for segment in segments:
            if segment.ipv4:
                info = _PACKET_INFO.pack(segment.index, bytes(4), bytes(4))
                control = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
                self._send(self._ipv4, datagram, ("255.255.255.255", port), control)
            if segment.ipv6:
                self._send(self._ipv6, datagram, (_ALL_NODES, port, 0, segment.index))

    def _send(
        self,
        sender: socket.socket | None,
        datagram: bytes,
        address: tuple[str, int] | tuple[str, int, int, int],
        control: Sequence[tuple[int, int, bytes]] = (),
    ) -> None:
        if sender is None:
            return
        try:
            sender.sendmsg([datagram], control, 0, address)
        except OSError:
            return
        self.sent += 1


@contextmanager
def open_wake_sender() -> Iterator[WakeSender]:
    """Open what wakes are sent from: for both families, as far as this machine has them."""
    ipv4, ipv6 = _sending(socket.AF_INET), _sending(socket.AF_INET6)
    if ipv4 is not None:
        ipv4.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    try:
        yield WakeSender(ipv4, ipv6)
    finally:
        for each in (ipv4, ipv6):
            if each is not None:
                each.close()


def segments() -> Sequence[Segment]:
    """Return this machine's interfaces but loopback and bridges of containers. Blocking, for a moment."""
    found = []
    for adapter in ifaddr.get_adapters():
        own = [ip for ip in adapter.ips if ip.ip not in ("127.0.0.1", ("::1", 0, 0))]
        if adapter.index is not None and own and not is_inside(adapter.name):
            ipv4 = any(ip.is_IPv4 for ip in own)
            ipv6 = any(ip.is_IPv6 for ip in own)
            found.append(Segment(index=adapter.index, ipv4=ipv4, ipv6=ipv6))
    return found[: limits.WAKE_SEGMENTS_MAX]


def _sending(family: socket.AddressFamily) -> socket.socket | None:
    try:
        sender = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError:
        return None
    sender.setblocking(False)
    return sender


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    """Bind to one address, or to all of both families."""
    everywhere = host == EVERYWHERE
    families = [socket.AF_INET6, socket.AF_INET] if everywhere else [_family(host)]
    for last, family in zip((False, True)[-len(families) :], families, strict=True):
        try:
            bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:
            if last:
                raise Unavailable(f"this machine has no UDP ({error.strerror})") from error
            continue
        with bound:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.WAKE_RECEIVE_BYTES)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not everywhere))
            address = {socket.AF_INET6: "::", socket.AF_INET: "0.0.0.0"}[family] if everywhere else host
            try:
                bound.bind((address, port))
            except OSError as error:
                raise Unavailable(
                    f"UDP port {port} of {address} cannot be had for wakes: {error.strerror}",
                    hint="free it, or configure another",
                ) from error
            yield bound
            return


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _is_one_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not (address.is_multicast or address.is_unspecified or address == _BROADCAST)


def _attach_filter(bound: socket.socket, prefix: bytes) -> None:
    """Have the kernel drop what has another length than a wake, or another beginning."""
    words = [int.from_bytes(prefix[at : at + 4], "big") for at in range(0, len(prefix), 4)]
    tests = [(_LOAD_LENGTH, 0, _UDP_HEADER_BYTES + DATAGRAM_BYTES)]
    tests += [(_LOAD_WORD, _UDP_HEADER_BYTES + 4 * number, word) for number, word in enumerate(words)]
    instructions = []
    for number, (load, operand, wanted) in enumerate(tests):
        instructions.append((load, 0, 0, operand))
        instructions.append((_JUMP_IF_EQUAL, 0, 2 * (len(tests) - number) - 1, wanted))
    instructions += [(_RETURN, 0, 0, 0xFFFF), (_RETURN, 0, 0, 0)]
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in instructions))
    described = struct.pack("@HP", len(instructions), ctypes.addressof(program))
    try:
        bound.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:  # another system, or a sandbox: then every datagram is read, as many as are read at all
        return
