"""Which of this machine's addresses may be reachable from other nodes."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import ifaddr

from p2pdist import limits

# Bridges of virtual machines and containers: nobody outside this machine reaches their addresses, which
# are the same ones on every machine.
_INSIDE = re.compile(r"(docker|virbr|lxcbr|lxdbr|podman|cni)\d+\Z|br-[0-9a-f]{12}\Z")


def host_addresses() -> Sequence[str]:
    """Return the addresses for host candidates (RFC 8445, section 5.1.1.1): IPv4 first, some of each family.

    Loopback, link-local and multicast addresses and those of container bridges are left out.
    """
    found = {
        _text(ip.ip): None
        for adapter in ifaddr.get_adapters()
        if not is_inside(adapter.name)
        for ip in adapter.ips
        if _reachable(_text(ip.ip))
    }
    families = (
        [address for address in found if ":" not in address],
        [address for address in found if ":" in address],
    )
    return [address for family in families for address in family[: limits.PUNCH_HOSTS_MAX]]


def is_inside(interface: str) -> bool:
    """Whether an interface, by its name, is a bridge of containers or virtual machines on this machine."""
    return _INSIDE.match(interface) is not None


def _text(address: str | tuple[str, int, int]) -> str:
    return address if isinstance(address, str) else address[0]


def _reachable(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    )
