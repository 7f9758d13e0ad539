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


def paced_frames(link: Link, *, carries_others: bool) -> AsyncIterator[AnyFrame]:
    """Iterate over the frames of a link as they come, but not faster than one neighbour needs.

    As with :meth:`.Link.frames`, leaving early needs no clean-up.

    Args:
        link: The link.
        carries_others: Whether the neighbour is a gateway, and speaks for thousands.
    """
    return _PacedFrames(link, limits.FRAMES_PER_S * (limits.FRAMES_GATEWAY_FACTOR if carries_others else 1))


class _PacedFrames:
    def __init__(self, link: Link, per_s: float) -> None:
        self._frames = link.frames()
        self._peer = link.peer
        self._per_s = per_s
        self._bucket = Bucket(per_s=per_s, burst=limits.FRAMES_BURST_S * per_s, now=trio.current_time())
        self._told = False

    def __aiter__(self) -> AsyncIterator[AnyFrame]:
        return self

    async def __anext__(self) -> AnyFrame:
        frame = await anext(self._frames)
        while not self._bucket.take(trio.current_time()):
            if not self._told:
                _log.warning("link.paced", peer=self._peer, frames_per_s=self._per_s)
                self._told = True
            await trio.sleep(limits.FRAMES_PAUSE_S)
        return frame
