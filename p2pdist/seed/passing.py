"""Questions of those below that only the admin server can answer: passed on, few at a time for each of them.

All of them go over the one link upwards, which takes a few dozen at once: whoever asks without end waits for
its own answers, and the others have their turn.
"""

from __future__ import annotations

from typing import Any, TypeVar

import trio

from p2pdist import limits
from p2pdist.net.link import Link
from p2pdist.node.uplink import Uplink

T = TypeVar("T")


class Passing:
    """See the module.

    Args:
        uplink: Where the questions go.
    """

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._turns: dict[Link, trio.CapacityLimiter] = {}

    async def ask(self, link: Link, path: str, body: Any, answer: type[T]) -> T:
        """Ask the neighbour above for the one behind *link*. Raises what :meth:`.Uplink.request` does."""
        turns = self._turns.setdefault(link, trio.CapacityLimiter(limits.QUESTIONS_PASSED_AT_ONCE))
        try:
            async with turns:
                return await self._uplink.request(path, body, answer)
        finally:
            used = turns.statistics()
            if not used.borrowed_tokens and not used.tasks_waiting:
                self._turns.pop(link, None)
