"""Which addresses a host in a configuration stands for, where somebody listens on it."""

from __future__ import annotations

import ipaddress
from typing import Final

EVERYWHERE: Final = "*"
"""Every address of the machine, IPv4 and IPv6. ``0.0.0.0`` and ``::`` are those of one family."""


def listening_hosts(host: str) -> tuple[str, ...]:
    """Return one host for each family that *host* stands for."""
    return ("0.0.0.0", "::") if host == EVERYWHERE else (host,)


def listening_host(*dialled: str) -> str:
    """Return where to listen for those who dial any of some hosts.

    A loopback address is listened on as it is, and so are all addresses of one family. For anything else
    every address is: what a name leads to, or which address stands behind a NAT, is not known here.
    """
    only = "127.0.0.1" if set(dialled) == {"localhost"} else dialled[0]
    return only if len(set(dialled)) == 1 and _is_meant(only) else EVERYWHERE


def _is_meant(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
