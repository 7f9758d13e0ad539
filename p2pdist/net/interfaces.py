"""The network interfaces of this machine: what the admin server recognises it by, beside its key."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import ifaddr

from p2pdist import limits
from p2pdist.net.rtc.addresses import is_inside
from p2pdist.wire.discovery import Interface, canonical_address

_INTERFACES: Final = Path("/sys/class/net")
_ETHERNET: Final = 1  # ARPHRD_ETHER, of linux/if_arp.h
_SIOCGIFHWADDR: Final = 0x8927  # netdevice(7)
_IFREQ: Final = struct.Struct("16sH6s16x")  # the name, and of the address its kind and its bytes


def read_interfaces() -> Sequence[Interface]:
    """Return the interfaces that have a hardware address, real ones first, as many as are told. Blocking.

    Loopback, tunnels without one, and bridges of containers are left out. Where an interface has many
    addresses, those for neighbours on its link only (IPv6 link-local) are left out first.
    """
    cards: dict[str, list[str]] = {}  # several interfaces may share one address: a bridge and its port
    real: set[str] = set()
    addresses = _addresses()
    for name, kind, mac in _hardware():
        if kind != _ETHERNET or not mac.strip("0:") or is_inside(name):
            continue
        cards.setdefault(mac, []).extend(addresses.get(name, ()))
        if (_INTERFACES / name / "device").exists():
            real.add(mac)
    order = sorted(cards, key=lambda mac: (mac not in real, not cards[mac], mac))
    return [
        Interface(mac=mac, addresses=sorted(set(cards[mac]), key=_rank)[: limits.INTERFACE_ADDRESSES_MAX])
        for mac in order[: limits.INTERFACES_MAX]
    ]


def _hardware() -> Iterator[tuple[str, int, str]]:
    """Ask for each interface's name, and the kind and the text of its hardware address.

    The kernel is asked, not ``/sys``, which shows the network in which it was mounted, not this process's.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, _IFREQ.pack(name.encode(), 0, b""))
            except OSError:  # it has gone
                continue
            _, kind, mac = _IFREQ.unpack(answer)
            yield name, kind, mac.hex(":")


def _addresses() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if address := canonical_address(ip.ip if isinstance(ip.ip, str) else ip.ip[0]):
                found[adapter.name].append(address)
    return found


def _rank(text: str) -> tuple[bool, int, int]:
    address = ip_address(text)
    return address.is_link_local, address.version, int(address)
