"""The work of discovery: which addresses to ask, how fast, and how."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits

Range = Annotated[str, Meta(min_length=2, max_length=49, pattern=r"^[0-9a-fA-F:./]+\Z")]
"""A network or an address as people write it: ``10.1.0.0/24``, ``10.1.0.7``."""
Port = Annotated[int, Meta(ge=1, le=65_535)]
PollMethod = Literal[
    "echo", "multicast", "neighbours", "connect", "reverse", "netbios", "mdns", "wsd", "directory"
]


class PolledDirectory(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A directory service, and which computers of it are meant: those below ``base`` that fit ``filter``.

    ``tls`` is ``ldaps`` from the first byte, or ``starttls`` before anything is said (RFC 4513, section 3);
    without it nothing is asked. ``authority`` is who may vouch for it, in PEM, in place of the node's own
    authorities. With a ``user`` the password comes as the run's secret.
    """

    host: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[0-9A-Za-z.:_-]+\Z")]
    port: Port
    base: Annotated[str, Meta(min_length=1, max_length=512)]
    tls: Literal["ldaps", "starttls"] = "ldaps"
    user: Annotated[str, Meta(max_length=512)] = ""
    filter: Annotated[str, Meta(max_length=1_024)] = ""
    authority: Annotated[bytes, Meta(max_length=limits.LDAP_AUTHORITY_BYTES_MAX)] = b""
    page: Annotated[int, Meta(ge=1, le=limits.LDAP_PAGE_ENTRIES_MAX)] = 500


class PollSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory wants to know."""

    password: Annotated[str, Meta(min_length=1, max_length=limits.SECRETS_BYTES_MAX)]

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return "PollSecrets(…)"


class Poll(msgspec.Struct, frozen=True, kw_only=True, tag_field="work", tag="poll"):
    """Find out which addresses answer.

    ``echo`` asks each address of ``ranges`` without those of ``excluded`` by ICMP, at most ``per_s`` a
    second. ``multicast`` asks everybody on the node's own segments by ICMPv6, once for all: IPv6 is not
    scanned. ``neighbours`` reads the kernel's table of neighbours: who is on the node's own segments, also
    if it answers no ping. Without ranges it says all that the table has. ``connect`` tries ``ports`` of each
    address, ``reverse`` asks the resolver for its name, ``netbios`` the address itself. ``mdns`` and ``wsd``
    ask everybody on the node's own segments. ``directory`` reads the computers of a directory service.
    """

    ranges: Annotated[list[Range], Meta(max_length=limits.POLL_RANGES_MAX)] = msgspec.field(
        default_factory=list
    )
    excluded: Annotated[list[Range], Meta(max_length=limits.POLL_RANGES_MAX)] = msgspec.field(
        default_factory=list
    )
    methods: Annotated[list[PollMethod], Meta(min_length=1, max_length=16)] = msgspec.field(
        default_factory=lambda: ["echo", "neighbours"]
    )
    ports: Annotated[list[Port], Meta(max_length=limits.DISCOVERY_PORTS_MAX)] = msgspec.field(
        default_factory=lambda: [22, 443, 445, 3389]
    )
    per_s: Annotated[int, Meta(ge=1, le=limits.POLL_PER_S_MAX)] = 200
    directory: PolledDirectory | None = None
