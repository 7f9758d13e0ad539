"""Which path a session has, when to try for a better one, and why there is none. Pure.

A path between two nodes is *direct* when no NAT stands between them: each side sees the other at an address
of the other's own. It is *punched* when packets reach at least one of them at an address that a NAT made.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Literal, TypeAlias

from p2pdist import limits
from p2pdist.core.session import PathKind
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.stun import Endpoint

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

CandidateKind = Literal["host", "srflx", "prflx"]
"""RFC 8445, section 5.1.1: an own address, one that a STUN server sees, one that only the peer sees."""

PairOutcome = Literal["used", "works", "no answer", "not tried", "another was first"]
"""What became of a pair of candidates."""


def path_kind(local: CandidateKind, remote: CandidateKind) -> PathKind:
    """Return what a path is, from what each side is to the other on the pair that was chosen."""
    return "direct" if local == remote == "host" else "punched"


def pause_s(failures: int, jitter: float) -> float:
    """Return how long to wait before another attempt.

    Args:
        failures: How many attempts have failed in a row; 0 when a path stood and was lost.
        jitter: From 0 to 1, another one each time: who lost their paths together do not call together.
    """
    if failures == 0:
        return limits.PUNCH_AGAIN_S * (0.5 + jitter)
    doubled = limits.PUNCH_AGAIN_FAILED_S * 2.0 ** min(failures - 1, 16)
    return min(doubled, limits.PUNCH_AGAIN_S_MAX) * (0.75 + jitter / 2)


def is_loopback(host: str) -> bool:
    """Whether an address is one of this machine's inside only."""
    return _unmapped(ipaddress.ip_address(host.partition("%")[0])).is_loopback


def may_ask(server: Endpoint, *, loopback: bool) -> bool:
    """Whether to send a STUN request to an endpoint that the other side named.

    Not to nobody or everybody, and to this machine itself only where it offers *loopback* addresses anyway:
    otherwise whoever names it could have services of this machine get a packet from inside.
    """
    ip = _unmapped(server.ip)
    nowhere = ip.is_multicast or ip.is_unspecified or ip == _BROADCAST
    return bool(server.port) and not nowhere and (loopback or not ip.is_loopback)


def _unmapped(ip: _Address) -> _Address:
    """Return what a socket reaches at an address: behind an IPv4-mapped one of IPv6, that of IPv4."""
    return (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped) or ip


def obstacle(here: Sequence[NatBehaviour], there: Sequence[NatBehaviour]) -> str | None:
    """Say why no punch can work between two sides, in words of RFC 4787; None where it may, or is not known.

    Args:
        here: What the operator's side found out about its NATs.
        there: What the device did.
    """
    reasons = []
    for version in (4, 6):
        ours, theirs = _outermost(here, version), _outermost(there, version)
        if ours is None or theirs is None:
            continue
        reason = _between(ours, theirs)
        if reason is None:
            return None
        reasons.append(f"IPv{version}: {reason}")
    if not reasons and here and there:
        return "the two sides have no family of addresses in common"
    return "; ".join(reasons) or None


def _outermost(seen: Sequence[NatBehaviour], version: int) -> NatBehaviour | None:
    """Return what shows most: the last that went through a NAT, else the last that got an answer."""
    family = [each for each in seen if each.gateway.ip.version == version]
    for candidates in (
        [each for each in family if each.translated],
        [each for each in family if each.udp],
        family,
    ):
        if candidates:
            return candidates[-1]
    return None


def _between(here: NatBehaviour, there: NatBehaviour) -> str | None:
    if not here.udp:
        return "UDP does not get through on the operator's side"
    if not there.udp:
        return "UDP does not get through on the device's side"
    if _reaches(here, there) or _reaches(there, here):
        return None
    changing = [
        name
        for name, side in (("the operator's", here), ("the device's", there))
        if "endpoint-independent" not in side.mapping
    ]
    if len(changing) == 2:
        return (
            "both NATs use another port for each peer (their mapping depends on the peer's address), so"
            " neither side can know where the other will be"
        )
    other = "the device's" if changing == ["the operator's"] else "the operator's"
    return (
        f"{changing[0]} NAT uses another port for each peer (its mapping depends on the peer's address), and"
        f" {other} lets in only ports that it has sent to (address-and-port-dependent filtering)"
    )


def _reaches(calling: NatBehaviour, called: NatBehaviour) -> bool:
    """Whether packets may get to the endpoint at which a gateway saw the other side, which sends as well."""
    if "endpoint-independent" in called.filtering:
        return True
    if "endpoint-independent" not in called.mapping:
        return False
    return "endpoint-independent" in calling.mapping or "address-dependent" in called.filtering
