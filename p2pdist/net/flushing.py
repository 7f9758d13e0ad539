"""Flushing: one task that sends what many links have queued, wherever that needs no wait.

To wake a link's own writer costs more than what it sends then: an event, two turns of a task, a checkpoint.
"""

from __future__ import annotations

from typing import NoReturn, Protocol

import trio

from p2pdist import limits
from p2pdist.net.pulse import Pulse


class Pushing(Protocol):
    """What has something to send."""

    def push(self) -> None:
        """Send as far as that needs no wait; leave the rest to a task that waits."""


class Flusher:
    """Whoever has something to send, until it is sent. What is queued meanwhile goes out together."""

    def __init__(self) -> None:
        self._due: dict[Pushing, None] = {}
        self._news = Pulse()

    def due(self, carrier: Pushing) -> None:
        """*carrier* has something to send."""
        self._due[carrier] = None
        self._news.fire()

    async def run(self) -> NoReturn:
        """Send, until cancelled; what is left then is the carriers' own."""
        while True:
            while not self._due:
                await self._news.wait()
            due, self._due = self._due, {}
            turn = Turn()
            for carrier in due:
                carrier.push()
                if turn.over():
                    await turn.others()


class Turn:
    """How long to go on until everything else has its turn: as long as that took the last time, in bounds."""

    def __init__(self) -> None:
        self._ends = trio.current_time() + limits.BROADCAST_TURN_S

    def over(self) -> bool:
        """Whether it is for others to go on."""
        return trio.current_time() >= self._ends

    async def others(self) -> None:
        """Let everything else have its turn."""
        began = trio.current_time()
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        self._ends = now + min(max(now - began, limits.BROADCAST_TURN_S), limits.BROADCAST_TURN_S_MAX)
