"""What the neighbours below are told, without waiting."""

from __future__ import annotations

import msgspec

from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.wire.frames import AnyFrame, Sources

_log = get_logger()


def send(link: Link, frame: AnyFrame) -> None:
    """Send a frame; whoever does not read loses its link, and hears everything anew with the next."""
    try:
        link.send_nowait(frame)
    except P2PDistError as error:
        too_slow(link, error)


def too_slow(link: Link, error: P2PDistError) -> None:
    """End a link that takes no frame, unless it has ended already."""
    if not link.end_reason:
        _log.warning("member.too_slow", node=link.remote.node if link.remote else "", reason=str(error))
        link.abort("it does not read what it is sent")


def seen_by(link: Link, point: NodeId, sources: Sources) -> Sources:
    """Name *point*, this node, by the address at which the receiver at the other end of *link* reaches it."""
    candidates = [
        msgspec.structs.replace(c, host=link.local_host) if c.node == point else c for c in sources.candidates
    ]
    return Sources(info_hash=sources.info_hash, candidates=candidates)
