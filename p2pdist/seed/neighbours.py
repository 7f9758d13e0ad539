"""Sending to the neighbours below without waiting."""

from __future__ import annotations

from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.wire.frames import AnyFrame

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
