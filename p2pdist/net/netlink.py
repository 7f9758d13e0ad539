"""Changes of this machine's network, as the kernel tells them (rtnetlink, rtnetlink(7)): no polling."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Iterator

import trio

from p2pdist.errors import Unavailable

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # links; addresses and routes of IPv4; of IPv6 (RTMGRP_*)
_BYTES = 64 * 1024
MESSAGE = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # length, type
_IFADDRMSG_BYTES = 8
_RTM_DELADDR, _IFA_ADDRESS, _IFA_LOCAL = 21, 1, 2
_SETTLE_S = 0.25  # a new lease is an address, then a route: one change
_SETTLED_AFTER_S = 2.0  # however long it goes on
_FLOOD_S = 1.0  # between two changes that are told: a flapping cable does not keep a node busy


async def network_changes() -> AsyncIterator[frozenset[str]]:
    """Yield each time that addresses or routes of this machine have changed, once they have settled.

    What is yielded are the addresses that went away; some may be there again.

    Raises:
        Unavailable: the kernel does not tell (another system, or a sandbox).
    """
    try:
        told = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    except (AttributeError, OSError) as error:
        raise Unavailable(f"the kernel does not tell of changes of the network ({error})") from error
    with told:
        told.setblocking(False)
        try:
            told.bind((0, _GROUPS))
        except OSError as error:
            raise Unavailable(f"the kernel does not tell of changes of the network ({error})") from error
        while True:
            await trio.lowlevel.wait_readable(told)
            gone = _drain(told)
            with trio.move_on_after(_SETTLED_AFTER_S):
                while await _more_within(told, _SETTLE_S):
                    gone |= _drain(told)
            yield frozenset(gone)
            await trio.sleep(_FLOOD_S)


def is_own_address(host: str) -> bool:
    """Whether *host* is an address of this machine now."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def source_towards(host: str) -> str | None:
    """Return the address from which this machine would reach an address now; None if it could not.

    Names are not looked up: they are reached from nowhere.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 9, flags=socket.AI_NUMERICHOST)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # asks for the route, and sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return None


async def _more_within(told: socket.socket, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await trio.lowlevel.wait_readable(told)
        return True
    return False


def _drain(told: socket.socket) -> set[str]:
    """Read what has come, and return the addresses that went away.

    That some was lost (ENOBUFS) is a change like the others.
    """
    gone: set[str] = set()
    while True:
        try:
            gone.update(removed_addresses(told.recv(_BYTES)))
        except BlockingIOError:
            return gone
        except OSError:
            continue


def removed_addresses(datagram: bytes) -> Iterator[str]:
    """Yield the addresses that the RTM_DELADDR messages in one datagram name (rtnetlink(7), netlink(7))."""
    for kind, body in parts(datagram, MESSAGE, MESSAGE.size):
        if kind != _RTM_DELADDR or len(body) < _IFADDRMSG_BYTES:
            continue
        for attribute, value in parts(body[_IFADDRMSG_BYTES:], ATTRIBUTE, ATTRIBUTE.size):
            if attribute in (_IFA_ADDRESS, _IFA_LOCAL) and len(value) in (4, 16):
                yield str(ipaddress.ip_address(value))


def parts(data: bytes, header: struct.Struct, least: int) -> Iterator[tuple[int, bytes]]:
    """Yield what stands in a row, each with its length and kind before it, and aligned to four bytes."""
    while len(data) >= least:
        length, kind = header.unpack_from(data)[:2]
        if not least <= length <= len(data):
            return
        yield kind, data[least:length]
        data = data[(length + 3) & ~3 :]
