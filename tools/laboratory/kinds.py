"""The kinds of places: how each is built, and what it claims to do, in the words of RFC 4787 and RFC 5382."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, StrEnum

TCP_PORTS = frozenset({443, 8443})
"""The ports that stand for all when the way out by TCP is measured."""

LONG_TIMEOUT_S = 120
"""How long a NAT keeps an idle UDP mapping (RFC 4787, REQ-5: at least two minutes)."""

SHORT_TIMEOUT_S = 4
"""The same for one that expires early: shorter than anyone's keepalive by default."""


class Mapping(StrEnum):
    """When packets from one inside endpoint get the same outside endpoint (RFC 4787, section 4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Filtering(StrEnum):
    """Whose packets to a mapping are let in (RFC 4787, section 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What stands between a host and the internet does, in one address family; claimed or measured."""

    udp_out: bool
    """Whether a datagram to the internet gets an answer back."""
    translated: bool | None
    """Whether the outside endpoint differs from the host's own; none where no UDP gets out."""
    mapping: Mapping | None
    """The mapping of UDP; none where no UDP gets out."""
    filtering: Filtering | None
    """The filtering of UDP; none where no UDP gets out."""
    hairpin: bool | None
    """Whether two sockets of a host meet at their outside endpoints; none where no UDP gets out."""
    expires_early: bool | None
    """Whether an idle mapping is gone after :data:`SHORT_TIMEOUT_S`; none where no UDP gets out."""
    udp_in: bool
    """Whether a datagram comes in at the host's own address although nothing ever went out."""
    tcp_in: bool
    """Whether a stranger's TCP connection comes in, at the outside endpoint if there is one."""
    tcp_out: frozenset[int]
    """Which of :data:`TCP_PORTS` the host can dial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """One NAT with endpoint-independent mapping, or a symmetric one (which filters by address and port)."""

    filtering: Filtering = Filtering.ADDRESS_AND_PORT_DEPENDENT
    symmetric: bool = False
    hairpin: bool = False
    udp_timeout_s: int = LONG_TIMEOUT_S


class Outgoing(Enum):
    """What a firewall lets out."""

    EVERYTHING = "everything"
    NO_UDP = "everything but UDP"
    ONLY_TCP_443 = "only TCP to port 443"


class Layout(Enum):
    """What a place is made of, from the internet to the hosts."""

    SWITCH = "hosts with public addresses"
    ROUTER = "one router"
    CARRIER = "a carrier's NAT, and a home's for each host"
    DMZ = "a firewall with a demilitarised zone and an inside network"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of place: how it is built, and what it claims."""

    name: str
    summary: str
    ipv4: Behaviour
    ipv6: Behaviour | None = None
    layout: Layout = Layout.ROUTER
    nat: Nat = Nat()
    outgoing: Outgoing = Outgoing.EVERYTHING
    isolated: bool = False
    """Whether its hosts do not see each other, as in a hotel's wireless network or in different homes."""
    rebinds: bool = False
    """Whether it stands for NATs that forget their mappings while in use (``Place.rebind``)."""


_OPEN = Behaviour(
    udp_out=True,
    translated=False,
    mapping=Mapping.ENDPOINT_INDEPENDENT,
    filtering=Filtering.ENDPOINT_INDEPENDENT,
    hairpin=True,
    expires_early=False,
    udp_in=True,
    tcp_in=True,
    tcp_out=TCP_PORTS,
)
_PORT_RESTRICTED = replace(
    _OPEN,
    translated=True,
    filtering=Filtering.ADDRESS_AND_PORT_DEPENDENT,
    hairpin=False,
    udp_in=False,
    tcp_in=False,
)
_SYMMETRIC = replace(_PORT_RESTRICTED, mapping=Mapping.ADDRESS_AND_PORT_DEPENDENT)
_NO_UDP = replace(
    _PORT_RESTRICTED,
    udp_out=False,
    translated=None,
    mapping=None,
    filtering=None,
    hairpin=None,
    expires_early=None,
)
_FIREWALLED = replace(_PORT_RESTRICTED, translated=False, hairpin=True)
_DEMILITARISED = replace(_NO_UDP, udp_in=True, tcp_in=True, tcp_out=frozenset())

_ALL = (
    Kind(
        name="open",
        summary="public addresses (IPv4 and IPv6), nothing in between",
        ipv4=_OPEN,
        ipv6=_OPEN,
        layout=Layout.SWITCH,
    ),
    Kind(
        name="full-cone",
        summary="a NAT that lets everybody in at a mapping",
        ipv4=replace(_PORT_RESTRICTED, filtering=Filtering.ENDPOINT_INDEPENDENT),
        nat=Nat(filtering=Filtering.ENDPOINT_INDEPENDENT),
    ),
    Kind(
        name="address-restricted",
        summary="a NAT that lets in the addresses that a mapping has sent to",
        ipv4=replace(_PORT_RESTRICTED, filtering=Filtering.ADDRESS_DEPENDENT),
        nat=Nat(filtering=Filtering.ADDRESS_DEPENDENT),
    ),
    Kind(
        name="port-restricted",
        summary="a NAT that lets in the addresses and ports that a mapping has sent to: the usual one",
        ipv4=_PORT_RESTRICTED,
    ),
    Kind(
        name="symmetric",
        summary="a NAT with another, random port for each destination",
        ipv4=_SYMMETRIC,
        nat=Nat(symmetric=True),
    ),
    Kind(
        name="carrier-grade",
        summary="two NATs: a home's (port-restricted) behind a carrier's (full cone with hairpinning)",
        ipv4=replace(_PORT_RESTRICTED, hairpin=True),
        layout=Layout.CARRIER,
        isolated=True,
    ),
    Kind(
        name="hairpin",
        summary="port-restricted with hairpinning; its hosts meet only at their outside endpoints",
        ipv4=replace(_PORT_RESTRICTED, hairpin=True),
        nat=Nat(hairpin=True),
        isolated=True,
    ),
    Kind(
        name="no-hairpin",
        summary="port-restricted without hairpinning; its hosts cannot meet",
        ipv4=_PORT_RESTRICTED,
        isolated=True,
    ),
    Kind(
        name="udp-blocked",
        summary="a NAT and a firewall that lets no UDP out",
        ipv4=_NO_UDP,
        outgoing=Outgoing.NO_UDP,
    ),
    Kind(
        name="only-443",
        summary="a NAT and a firewall that lets out only TCP to port 443",
        ipv4=replace(_NO_UDP, tcp_out=frozenset({443})),
        outgoing=Outgoing.ONLY_TCP_443,
    ),
    Kind(
        name="ipv6-firewall",
        summary="IPv6 behind a stateful firewall, IPv4 behind a symmetric NAT",
        ipv4=_SYMMETRIC,
        ipv6=_FIREWALLED,
        nat=Nat(symmetric=True),
    ),
    Kind(
        name="short-lived",
        summary=f"port-restricted; a mapping is gone after {SHORT_TIMEOUT_S} idle seconds",
        ipv4=replace(_PORT_RESTRICTED, expires_early=True),
        nat=Nat(udp_timeout_s=SHORT_TIMEOUT_S),
    ),
    Kind(
        name="rebinding",
        summary="port-restricted; forgets its mappings and makes others when told to",
        ipv4=_PORT_RESTRICTED,
        rebinds=True,
    ),
    Kind(
        name="dmz",
        summary="a host that anybody may dial and that may only answer; an inside network that sees only it",
        ipv4=_DEMILITARISED,
        layout=Layout.DMZ,
    ),
)

KINDS = {kind.name: kind for kind in _ALL}
"""Every kind, by its name."""
