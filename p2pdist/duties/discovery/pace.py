"""Questions to a network, spread over time."""

from __future__ import annotations

import trio

from p2pdist import limits


class Pace:
    """Lets somebody ask *per_s* times a second, evenly; what was not used is not made up for."""

    def __init__(self, per_s: float) -> None:
        self._gap_s = 1 / min(per_s, limits.DISCOVERY_PER_S_MAX)
        self._next = trio.current_time()

    async def turn(self) -> None:
        """Wait until the next question may be asked. A checkpoint."""
        at = max(self._next, trio.current_time())
        self._next = at + self._gap_s
        await trio.sleep_until(at)
