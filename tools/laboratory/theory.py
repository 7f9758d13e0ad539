"""Which pairs of places can have a direct path. Pure, and from the claims alone: nothing here asks a network.

The theory is that of RFC 5128 (sections 3 and 4) in the words of RFC 4787. A path is *direct* here when no
third party passes packets on; whether a punch was needed for it makes no difference. Assumed is what a
gateway can do for two devices: it tells each the other's own addresses and the outside endpoint that it
saw, both start at the same moment and repeat themselves, each goes on with whatever endpoint it hears the
other from (ICE's peer-reflexive candidate). A symmetric NAT keeps its outside address and changes the port.
"""

from __future__ import annotations

from enum import StrEnum

from laboratory.kinds import Behaviour, Filtering, Kind, Mapping

CONTROL_PORT = 443
"""Where the server and every gateway can be dialled."""


class Traffic(StrEnum):
    """What two devices have for each other."""

    SESSION = "session"
    """A WebRTC data channel: UDP only."""
    CONTENT = "content"
    """Pieces over uTP or TCP; a device takes TCP at a port of its own, which is none of the well-known
    ones."""


def direct_path_possible(left: Kind, right: Kind, kind: Traffic) -> bool:
    """Say whether devices in two different places can have a direct path for this traffic.

    It does not matter who is *left*: whoever can start, does.
    """
    families = [(left.ipv4, right.ipv4)]
    if left.ipv6 is not None and right.ipv6 is not None:
        families.append((left.ipv6, right.ipv6))
    return any(
        _meet_by_udp(one, other) or (kind is Traffic.CONTENT and _meet_by_tcp(one, other))
        for one, other in families
    )


def neighbours_path_possible(kind: Kind) -> bool:
    """Say whether two devices in the same place can have a direct path, for any traffic.

    Neighbours share a LAN. Isolated ones have only their outside endpoints: the NAT before them must
    hairpin, and then they meet as two places of the kind would.
    """
    return not kind.isolated or bool(kind.ipv4.hairpin and _meet_by_udp(kind.ipv4, kind.ipv4))


def reachable(left: Kind, right: Kind) -> bool:
    """Say whether two devices can have any path: each dials a gateway, or can be dialled by one."""
    return _has_gateway(left) and _has_gateway(right)


def _has_gateway(kind: Kind) -> bool:
    families = [behaviour for behaviour in (kind.ipv4, kind.ipv6) if behaviour is not None]
    return any(CONTROL_PORT in behaviour.tcp_out or behaviour.tcp_in for behaviour in families)


def _meet_by_udp(left: Behaviour, right: Behaviour) -> bool:
    if not (left.udp_out and right.udp_out):
        return _answers(left, right) or _answers(right, left)
    return _punches(left, right) or _punches(right, left)


def _answers(answering: Behaviour, starting: Behaviour) -> bool:
    """One side is at a known address where strangers come in; the other starts."""
    return answering.udp_in and starting.udp_out


def _punches(calling: Behaviour, called: Behaviour) -> bool:
    """The packets of one side get to the endpoint at which a third party saw the other, which sends as well.

    The called side must have that endpoint still when it calls back, or let in strangers at it. The caller
    comes from the endpoint that is known of it, or from another port of the same address, which the called
    side has sent to.
    """
    if called.filtering is Filtering.ENDPOINT_INDEPENDENT:
        return True
    if called.mapping is not Mapping.ENDPOINT_INDEPENDENT:
        return False
    if calling.mapping is Mapping.ENDPOINT_INDEPENDENT:
        return True
    return called.filtering is Filtering.ADDRESS_DEPENDENT


def _meet_by_tcp(left: Behaviour, right: Behaviour) -> bool:
    return _takes(left, right) or _takes(right, left)


def _takes(listening: Behaviour, dialling: Behaviour) -> bool:
    return listening.tcp_in and any(port != CONTROL_PORT for port in dialling.tcp_out)
