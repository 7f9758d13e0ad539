"""The agent as a program that its guard can replace by another version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

_VARIABLE = "P2PDIST_GUARDED"


class GuardedProgram:
    """This process, which a guard has started; see :class:`p2pdist.install.agent.OwnProgram`.

    Attributes:
        file: The version that runs.
        ask: Has the admin server confirm a heartbeat; set once there is a runtime that can.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.ask: Callable[[], Awaitable[None]] = trio.sleep_forever
        self._leaving = trio.Event()

    async def confirm(self) -> None:
        """Return once the admin server has heard of this version."""
        await self.ask()

    def leave(self) -> None:
        """End soon."""
        self._leaving.set()

    async def wait_leaving(self) -> None:
        """Wait until it is time to end."""
        await self._leaving.wait()


def guarded_program(environ: Mapping[str, str]) -> GuardedProgram | None:
    """Return this process as what its guard started; None if no guard did, or from elsewhere than from where
    versions stand side by side (:mod:`p2pdist.install.trial`).
    """
    file = Path(environ.get(_VARIABLE, ""))
    stands = file.is_absolute() and file.match("versions/*/p2pdist-agent")
    return GuardedProgram(file) if stands else None
