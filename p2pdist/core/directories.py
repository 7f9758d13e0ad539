"""The address of a directory service, as people write it. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from p2pdist.errors import UsageError

_PORTS = {"ldaps": 636, "ldap": 389}


class DirectoryAddress(NamedTuple):
    """Where a directory is, and when the connection to it changes to TLS."""

    host: str
    port: int
    tls: Literal["ldaps", "starttls"]


def parse_directory(text: str) -> DirectoryAddress:
    """Read ``ldaps://HOST[:PORT]`` or ``ldap://HOST[:PORT]``. Raises UsageError."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.username:
        raise UsageError(
            f"{text[:80]!r} is not a directory's address", hint="write ldaps://HOST or ldap://HOST"
        )
    tls: Literal["ldaps", "starttls"] = "ldaps" if parts.scheme == "ldaps" else "starttls"
    return DirectoryAddress(parts.hostname, port or _PORTS[parts.scheme], tls)
