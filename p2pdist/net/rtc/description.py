"""What the two sides of a path tell each other before they connect. It travels sealed, end to end.

It holds what a session description (RFC 8839, RFC 8122) says about one data channel, and nothing else:
the side's role, its ICE credentials, the fingerprint of its DTLS certificate and its candidates. The
channel itself is agreed on beforehand: stream 0, ordered and reliable.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

import msgspec

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire import codec

Role = Literal["controlling", "controlled"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An address at which a side might be reached."""

    kind: Literal["host", "srflx"]
    host: Annotated[str, msgspec.Meta(max_length=45)]
    """An IPv4 or IPv6 address in its usual form."""
    port: int

    def __post_init__(self) -> None:
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError as error:
            raise UsageError(f"{self.host[:45]!r} is no IP address") from error
        if address.is_multicast or address.is_unspecified or "%" in self.host or str(address) != self.host:
            raise UsageError(f"{self.host} cannot be the address of one node in its usual form")
        if not 1 <= self.port <= 65535:
            raise UsageError(f"{self.port} is not a port")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a path."""

    role: Role
    username: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9+/]{4,32}\Z")]
    password: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9+/]{22,64}\Z")]
    fingerprint: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    """The SHA-256 of the DTLS certificate (DER)."""
    candidates: Annotated[
        tuple[Candidate, ...], msgspec.Meta(min_length=1, max_length=limits.PUNCH_CANDIDATES_MAX)
    ]


def encode_description(description: Description) -> bytes:
    """Pack a description for the signalling."""
    return codec.encode(description, bytes_max=limits.PUNCH_DESCRIPTION_BYTES_MAX)


def parse_description(data: bytes, *, expected: Role) -> Description:
    """Unpack and validate what the other side said.

    Raises:
        PeerError: it is malformed or too large, or the other side took another role than *expected*.
    """
    description: Description = codec.decode(data, Description, bytes_max=limits.PUNCH_DESCRIPTION_BYTES_MAX)
    if description.role != expected:
        raise PeerError(f"the other side wants to be {description.role} too: one of the two must not")
    return description
