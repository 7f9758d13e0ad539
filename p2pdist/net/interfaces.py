"""The network interfaces of this machine: what the admin server recognises it by, beside its key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import ifaddr

from p2pdist import limits
from p2pdist.net.rtc.addresses import is_inside
from p2pdist.wire.discovery import Interface, canonical_address

_INTERFACES: Final = Path("/sys/class/net")
_ETHERNET: Final = "1"  # ARPHRD_ETHER, of linux/if_arp.h


def read_interfaces() -> Sequence[Interface]:
    """Return the interfaces that have a hardware address, real ones first, as many as are told. Blocking.

    Loopback, tunnels without one, and bridges of containers are left out. Where an interface has many
    addresses, those for neighbours on its link only (IPv6 link-local) are left out first.
    """
    cards: dict[str, list[str]] = {}  # several interfaces may share one address: a bridge and its port
    real: set[str] = set()
    addresses = _addresses()
    for interface in sorted(_INTERFACES.iterdir()) if _INTERFACES.is_dir() else ():
        try:
            kind, mac = ((interface / name).read_text().strip() for name in ("type", "address"))
        except OSError:  # it has gone
            continue
        if kind != _ETHERNET or not mac.strip("0:") or is_inside(interface.name):
            continue
        cards.setdefault(mac.lower(), []).extend(addresses.get(interface.name, ()))
        if (interface / "device").exists():
            real.add(mac.lower())
    order = sorted(cards, key=lambda mac: (mac not in real, not cards[mac], mac))
    return [
        Interface(mac=mac, addresses=sorted(set(cards[mac]), key=_rank)[: limits.INTERFACE_ADDRESSES_MAX])
        for mac in order[: limits.INTERFACES_MAX]
    ]


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
