"""One frame to many links: packed once, and sent at once wherever nothing stands before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from p2pdist.errors import P2PDistError
from p2pdist.net.flushing import Turn
from p2pdist.net.framing import pack_frame
from p2pdist.net.link import Link
from p2pdist.wire.frames import AnyFrame


async def broadcast(
    links: Iterable[Link], frame: AnyFrame, failed: Callable[[Link, P2PDistError], None]
) -> None:
    """Send *frame* on each of *links*.

    It is sent from here, not by each link's own task: for thousands of idle links that costs half. Everything
    else goes on meanwhile and has half of the time, so what the first do about it does not keep it from the
    last. Cancellation leaves out the rest.

    Args:
        links: Looked at once.
        frame: What all are told.
        failed: Called with each link that cannot take it now, or has ended, and the reason.

    Raises:
        UsageError: the frame is too large.
    """
    packed = pack_frame(frame)
    await trio.lowlevel.checkpoint()
    turn = Turn()
    for link in tuple(links):
        try:
            link.push(packed)
        except P2PDistError as error:
            failed(link, error)
        if turn.over():
            await turn.others()
