"""An event that resets itself."""

from __future__ import annotations

import trio


class Pulse:
    """Wakes whoever waits at the moment it fires; costs next to nothing while nobody does.

    There is no memory: look at the state first, and wait only when there is nothing to do. No
    checkpoint lies between the two, so nothing is missed.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: trio.Event | None = None

    def fire(self) -> None:
        """Wake everybody who waits now."""
        event, self._event = self._event, None
        if event is not None:
            event.set()

    async def wait(self) -> None:
        """Wait until it fires next."""
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
