"""Small things about the neighbours on links: sending without waiting, and the network they are in."""

from __future__ import annotations

import ipaddress

import trio

from p2pdist.core.throttle import Throttle
from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame

_log = get_logger()

_LINES_MAX, _LINES_WITHIN_S = 10, 60.0


def send_frame(link: Link, frame: AnyFrame) -> bool:
    """Queue a frame; False, and a line in the log, when the neighbour is gone or reads too slowly."""
    try:
        link.send_nowait(frame)
    except P2PDistError as error:
        not_sent(link, error)
        return False
    return True


def not_sent(link: Link, error: P2PDistError) -> None:
    """Say that a frame was not sent, and why."""
    _log.warning("link.not_sent", node=link.remote.node if link.remote else "", reason=str(error))


class Complaints:
    """What the log says of envelopes that do not open: a few lines for each neighbour that brings them."""

    def __init__(self) -> None:
        self._throttle = Throttle(_LINES_MAX, _LINES_WITHIN_S)

    def refused(self, envelope: Envelope, neighbour: NodeId, error: P2PDistError) -> None:
        """An envelope was refused."""
        if self._throttle.allows(neighbour, trio.current_time()):
            _log.warning("envelope.refused", node=envelope.sender, by=neighbour, reason=str(error))


def network_of(host: str) -> str:
    """Name the network of an address: what is in one /24 or /64 counts as one site."""
    address = ipaddress.ip_address(host.partition("%")[0])
    bits = 24 if address.version == 4 else 64
    return str(ipaddress.ip_network((address, bits), strict=False))
