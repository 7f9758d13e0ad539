"""How many frames one neighbour may have handled in a while: what it sends faster waits, at its own cost.

Whoever floods us with what takes us work fills its own window and then its own queue; the others have their
turn meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio

from p2pdist import limits
from p2pdist.core.buckets import Bucket
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.wire.frames import AnyFrame

_log = get_logger()


async def paced_frames(link: Link, *, carries_others: bool) -> AsyncIterator[AnyFrame]:
    """Yield the frames of a link as they come, but not faster than one neighbour needs.

    Args:
        link: The link.
        carries_others: Whether the neighbour is a gateway, and speaks for thousands.
    """
    per_s = limits.FRAMES_PER_S * (limits.FRAMES_GATEWAY_FACTOR if carries_others else 1)
    bucket = Bucket(per_s=per_s, burst=limits.FRAMES_BURST_S * per_s, now=trio.current_time())
    told = False
    async for frame in link.frames():
        while not bucket.take(trio.current_time()):
            if not told:
                _log.warning("link.paced", peer=link.peer, frames_per_s=per_s)
                told = True
            await trio.sleep(limits.FRAMES_PAUSE_S)
        yield frame
