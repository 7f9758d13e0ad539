"""Keep a node small and quick: give memory back that a burst of work has left behind.

glibc's allocator gives each thread an arena of its own and keeps what is freed at its end. On an
endpoint that fetches and installs now and then, that is a dozen megabytes for nothing. Elsewhere than on
glibc nothing happens.

Python looks for unused cycles among everything that there is, and stops the process meanwhile: for a gateway
with thousands of links that is seconds, just when many devices come. So there, what has lived for some
seconds is left out of it (``gc.freeze``), until the process has grown by half.
"""

from __future__ import annotations

import ctypes
import gc
import sys

import trio

from p2pdist import limits
from p2pdist.node.supervisor import patience

_M_ARENA_MAX = -8  # malloc.h
_EVERY_S = 60.0
_LEFT_OUT_S = 5.0
_COLLECTED_WITHIN_S = 60.0  # one step: 3.8 s among everything with 15,000 links, half of that among the young


def use_one_arena() -> None:
    """Let all threads allocate from one arena; to be called before any of them starts."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


async def keep_small() -> None:
    """Give unused memory back to the system, and keep collections short, until cancelled.

    A small process gives back what malloc has left every five seconds, a large one every minute.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", lambda pad: 0)
    cycles = Cycles()
    while True:
        for _ in range(round(_EVERY_S / _LEFT_OUT_S)):
            await trio.sleep(_LEFT_OUT_S)
            cycles.leave_out()
            if not _is_large():
                trim(0)  # microseconds where there is nothing, and a few milliseconds after a burst
        cycles.collect()
        await trio.to_thread.run_sync(trim, 0)


def _is_large() -> bool:
    """Whether there is so much that looking at all of it would stop the process for long."""
    return sys.getallocatedblocks() > limits.COLLECTED_BLOCKS_MAX


class Cycles:
    """Unused cycles: when they are looked for, and among what. The size of the process is told in blocks."""

    def __init__(self) -> None:
        self._blocks = 0  # at the last look at everything

    def leave_out(self) -> None:
        """In a large process, leave what there is now out of collections from now on."""
        if _is_large():
            _collect(1)  # what is unused now would be left out, too
            gc.freeze()
            gc.set_threshold(limits.COLLECTED_EVERY_OBJECTS, 10, 10)

    def collect(self) -> None:
        """Look at everything in a small process; in a large one only if it has grown by half since."""
        if limits.COLLECTED_BLOCKS_MAX < sys.getallocatedblocks() <= self._blocks * 3 // 2:
            return
        gc.unfreeze()
        _collect(2)
        self._blocks = sys.getallocatedblocks()
        self.leave_out()


def _collect(generation: int) -> None:
    """Look for unused cycles, which stops the whole process."""
    with patience(_COLLECTED_WITHIN_S):
        gc.collect(generation)
