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

_CLASS: Final = Path("/sys/class/net")
_SIOCGIFHWADDR: Final = 0x8927  # of linux/sockios.h: netdevice(7)
_IFREQ: Final = struct.Struct("=16sH6s16x")  # its name, then a struct sockaddr
_ETHERNET: Final = 1  # ARPHRD_ETHER, of linux/if_arp.h


def read_interfaces() -> Sequence[Interface]:
    """Return the interfaces that have a hardware address, real ones first, as many as are told. Blocking.

    Loopback, tunnels without one, and bridges of containers are left out. Where an interface has many
    addresses, those for neighbours on its link only (IPv6 link-local) are left out first.
    """
    cards: dict[str, list[str]] = {}  # several interfaces may share one address: a bridge and its port
    real: set[str] = set()
    addresses = _addresses()
    for name, mac in hardware_addresses():
        if not is_inside(name):
            cards.setdefault(mac, []).extend(addresses.get(name, ()))
            if (_CLASS / name / "device").exists():
                real.add(mac)
    order = sorted(cards, key=lambda mac: (mac not in real, not cards[mac], mac))
    return [
        Interface(mac=mac, addresses=sorted(set(cards[mac]), key=_rank)[: limits.INTERFACE_ADDRESSES_MAX])
        for mac in order[: limits.INTERFACES_MAX]
    ]


def hardware_addresses() -> Iterator[tuple[str, str]]:
    """Yield the name and the hardware address of each Ethernet interface. Blocking.

    The kernel is asked about this process's network namespace; what is mounted at ``/sys`` may be of another.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            request = _IFREQ.pack(name.encode(), 0, b"")
            try:
                _, kind, mac = _IFREQ.unpack(fcntl.ioctl(asking, _SIOCGIFHWADDR, request))
            except OSError:  # it has gone
                continue
            if kind == _ETHERNET and any(mac):
                yield name, mac.hex(":")


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
