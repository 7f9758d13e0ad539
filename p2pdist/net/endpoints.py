"""``host:port`` as people write it: names, IPv4, and IPv6 in brackets."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Literal

from p2pdist.core.upstream import Upstream
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\Z")


def parse_endpoint(text: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``.

    Raises:
        UsageError: it is neither, or the port is not between 1 and 65,535.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        valid = _is_ipv6(host)
    else:
        valid = bool(_NAME.match(host))
    if not colon or not valid or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise UsageError(
            f"{text[:80]!r} is not an address", hint="write host:port, or [address]:port for IPv6"
        )
    return host, int(port)


def format_endpoint(host: str, port: int) -> str:
    """Join what :func:`parse_endpoint` splits."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def ways_to(node: NodeId, addresses: Iterable[str], kind: Literal["point", "server"]) -> list[Upstream]:
    """Return a neighbour with all of its addresses; nothing if it has none. Raises UsageError as for one."""
    ends = tuple(map(parse_endpoint, addresses))
    return [Upstream(node=node, host=host, port=port, kind=kind, others=ends[1:]) for host, port in ends[:1]]


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
