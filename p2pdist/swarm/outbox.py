"""The swarm's events on their way to their one reader, who may be slow."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import trio

from p2pdist.swarm.model import PieceRefused, StrangerRefused, SwarmEvent

EVENTS_MAX: Final = 4_096
"""Events that wait for a slow reader; refusals beyond three quarters of it are dropped and counted."""


class Outbox:
    """A bounded queue that never blocks whoever puts something in."""

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[SwarmEvent](EVENTS_MAX)
        self.dropped = 0
        """Events that nobody will read because too many were waiting."""

    def put(self, event: SwarmEvent) -> None:
        """Add an event. A flood of refusals leaves room for what has to be acted on."""
        room = EVENTS_MAX * 3 // 4 if isinstance(event, PieceRefused | StrangerRefused) else EVENTS_MAX
        if self._in.statistics().current_buffer_used >= room:
            self.dropped += 1
        else:
            self._in.send_nowait(event)

    def events(self) -> AsyncIterator[SwarmEvent]:
        """Iterate over the events in order, until :meth:`close`. For one reader at a time."""
        return self._out

    def close(self) -> None:
        """End the iteration once what waits has been read."""
        self._in.close()
