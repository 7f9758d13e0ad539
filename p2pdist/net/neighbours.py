"""The kernel's table of neighbours (RTM_GETNEIGH, rtnetlink(7)): who was heard on this machine's segments.

Who is asked anything on a segment is looked up by ARP or neighbour discovery first, and answers that although
its firewall drops everything else.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.net.netlink import ATTRIBUTE, MESSAGE, parts

_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, interface, state, flags, type
_RTM_NEWNEIGH, _RTM_GETNEIGH, _NLMSG_DONE, _NLMSG_ERROR = 28, 30, 3, 2
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_NDA_DST, _NDA_LLADDR = 1, 2
_HEARD = 0x02 | 0x04 | 0x08 | 0x10  # NUD_REACHABLE, _STALE, _DELAY, _PROBE: it has answered
_BYTES = 256 * limits.KIB
_ANSWER_S = 5.0


class Neighbour(NamedTuple):
    """One who answered on a segment: ``mac`` as ``02:00:00:00:00:07``."""

    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    mac: str


def read_neighbours() -> list[Neighbour]:
    """Return the neighbours whose hardware address is known, or the first of very many. Blocking.

    Raises:
        Unavailable: the kernel does not say (another system, or a sandbox).
    """
    found: list[Neighbour] = []
    try:
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        ) as asked:
            asked.settimeout(_ANSWER_S)
            body = _NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            head = MESSAGE.pack(MESSAGE.size + len(body), _RTM_GETNEIGH, _REQUEST_DUMP, 1, 0)
            asked.sendto(head + body, (0, 0))
            ended = False
            while not ended and len(found) < limits.NEIGHBOURS_MAX:
                more, ended = parse_neighbours(asked.recv(_BYTES))
                found += more
    except (AttributeError, OSError) as error:
        raise Unavailable(f"the kernel does not tell its table of neighbours ({error})") from error
    return found[: limits.NEIGHBOURS_MAX]


def parse_neighbours(datagram: bytes) -> tuple[list[Neighbour], bool]:
    """Return the neighbours in one datagram of the kernel, and whether it was the last one."""
    found: list[Neighbour] = []
    for kind, body in parts(datagram, MESSAGE, MESSAGE.size):
        if kind in (_NLMSG_DONE, _NLMSG_ERROR):
            return found, True
        if kind == _RTM_NEWNEIGH and len(body) >= _NEIGHBOUR.size:
            found += _neighbour(body)
    return found, False


def _neighbour(body: bytes) -> Iterator[Neighbour]:
    _, _, state, _, _ = _NEIGHBOUR.unpack_from(body)
    fields = dict(parts(body[_NEIGHBOUR.size :], ATTRIBUTE, ATTRIBUTE.size))
    address, mac = fields.get(_NDA_DST, b""), fields.get(_NDA_LLADDR, b"")
    if state & _HEARD and len(address) in (4, 16) and len(mac) == 6 and any(mac):
        yield Neighbour(ipaddress.ip_address(address), mac.hex(":"))
