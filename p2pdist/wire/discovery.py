"""What discovery found: one structure for every method, so that one inventory can be made of them all."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import UsageError

Method = Literal[
    "echo",  # ICMP
    "neighbours",  # the kernel's own table
    "connect",  # TCP
    "reverse",  # the name of an address
    "mdns",
    "netbios",
    "wsd",  # WS-Discovery
    "directory",  # LDAP
    "managed",  # the device's own agent
]

Mac = Annotated[str, Meta(pattern=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")]
AddressText = Annotated[str, Meta(min_length=2, max_length=39)]
NameText = Annotated[str, Meta(min_length=1, max_length=255)]
ServiceText = Annotated[str, Meta(min_length=1, max_length=64)]
GuidText = Annotated[str, Meta(pattern=r"^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})?\Z")]
OptionalNodeIdText = Annotated[str, Meta(pattern=r"^([a-z2-7]{32})?\Z")]


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """One device as one method saw it once. Every field is what strangers say, except where it is checked.

    Texts have no control characters, so that they can be printed and stored; addresses are written the one
    way that :mod:`ipaddress` writes them. Something must be there by which the device can be told apart.
    """

    method: Method
    addresses: Annotated[list[AddressText], Meta(max_length=limits.SIGHTING_ADDRESSES_MAX)] = msgspec.field(
        default_factory=list
    )
    macs: Annotated[list[Mac], Meta(max_length=limits.SIGHTING_MACS_MAX)] = msgspec.field(
        default_factory=list
    )
    names: Annotated[list[NameText], Meta(max_length=limits.SIGHTING_NAMES_MAX)] = msgspec.field(
        default_factory=list
    )
    guid: GuidText = ""
    """The directory's own number of the computer (objectGUID, entryUUID)."""
    node: OptionalNodeIdText = ""
    platform: Annotated[str, Meta(max_length=64)] = ""
    unit: Annotated[str, Meta(max_length=limits.SIGHTING_UNIT_CHARS_MAX)] = ""
    """The organisational unit in a directory, as a distinguished name (RFC 4514)."""
    services: Annotated[list[ServiceText], Meta(max_length=limits.SIGHTING_SERVICES_MAX)] = msgspec.field(
        default_factory=list
    )
    """What it offers: ``tcp/22``, ``_ipp._tcp``."""

    def __post_init__(self) -> None:
        for text in (*self.names, *self.services, self.platform, self.unit):
            if text != printable(text):
                raise UsageError("a sighting has a text with control characters or blanks around it")
        for address in self.addresses:
            if canonical_address(address) != address:
                raise UsageError(f"a sighting has an address that is none: {address!r}")
        if not (self.addresses or self.macs or self.names or self.guid or self.node):
            raise UsageError("a sighting has nothing by which the device could be told apart")


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface of a node, as the node says it: its hardware address and its IP addresses."""

    mac: Mac
    addresses: Annotated[list[AddressText], Meta(max_length=limits.INTERFACE_ADDRESSES_MAX)]

    def __post_init__(self) -> None:
        for address in self.addresses:
            if canonical_address(address) != address:
                raise UsageError(f"an interface has an address that is none: {address!r}")


def printable(text: str, chars_max: int | None = None) -> str:
    """Return *text* without what cannot be printed, and without blanks around it; cut to *chars_max*."""
    kept = "".join(c if c.isprintable() else " " for c in text[: chars_max and 4 * chars_max])
    return kept.strip()[:chars_max].strip()


def canonical_address(text: str) -> str:
    """Return an IP address the one way that it is written here; empty when *text* is none or names nobody.

    A scope (``fe80::1%eth0``) is left away: it says something about the one who asked.
    """
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if address.is_unspecified or address.is_multicast or address.is_loopback:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(address if mapped is None else mapped)
