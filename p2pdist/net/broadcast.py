"""One frame to many links: packed once, and sent at once wherever nothing stands before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError
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
    turn = _Turn()
    for link in tuple(links):
        try:
            link.push(packed)
        except P2PDistError as error:
            failed(link, error)
        if turn.over():
            await turn.others()


class _Turn:
    """How long to go on until everything else has its turn: as long as that took the last time, in bounds."""

    def __init__(self) -> None:
        self._ends = trio.current_time() + limits.BROADCAST_TURN_S

    def over(self) -> bool:
        return trio.current_time() >= self._ends

    async def others(self) -> None:
        began = trio.current_time()
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._ends = now + min(max(now - began, limits.BROADCAST_TURN_S), limits.BROADCAST_TURN_S_MAX)
