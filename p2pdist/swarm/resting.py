"""Artifacts that rest because their storage failed, until they can go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio

from p2pdist.ids import InfoHash
from p2pdist.swarm.carried import Carried, has_room

STORAGE_RETRY_S: Final = 2.0


class Resting:
    """Looks after the artifacts of one session that rest.

    Args:
        carried: The artifacts in the session; kept by the caller.
        start_again: Lets one go on from what is on the disk.
    """

    def __init__(
        self, carried: Mapping[InfoHash, Carried], start_again: Callable[[Carried], Awaitable[None]]
    ) -> None:
        self._carried = carried
        self._start_again = start_again
        self._due = trio.Event()

    def add(self, carried: Carried) -> None:
        """Let an artifact rest until :meth:`run` starts it again."""
        carried.resting = True
        self._due.set()

    async def run(self) -> None:
        """Let an artifact go on once its disk has room again; try other failures more and more rarely."""
        while True:
            await self._due.wait()
            await trio.sleep(STORAGE_RETRY_S)
            resting = [carried for carried in self._carried.values() if carried.resting]
            if not resting:
                self._due = trio.Event()
            for carried in resting:
                if trio.current_time() >= carried.retry_at and await trio.to_thread.run_sync(
                    has_room, carried.artifact
                ):
                    await self._start_again(carried)
