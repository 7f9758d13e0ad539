"""The wall clock, which other people set."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio

LOOK_EVERY_S = 30.0
"""How late it is noticed that the clock was set: nothing wakes a waiting program then."""

_STEP_S = 2.0  # less is a clock that is being corrected little by little


async def wall_clock_says(
    deadline: float | None, *, unless: trio.Event, unix_clock: Callable[[], float]
) -> bool:
    """Wait until the wall clock has reached *deadline* or was set, also while the machine was asleep.

    Args:
        deadline: Unix seconds; None waits for the clock to be set only.
        unless: Ends the waiting early.
        unix_clock: Returns Unix seconds.

    Returns:
        False if *unless* came first.
    """
    deadline = math.inf if deadline is None else deadline
    while unix_clock() < deadline:
        ahead = unix_clock() - trio.current_time()
        with trio.move_on_after(min(LOOK_EVERY_S, deadline - unix_clock())):
            await unless.wait()
            return False
        if abs(unix_clock() - trio.current_time() - ahead) >= _STEP_S:
            return True
    await trio.lowlevel.checkpoint()
    return True
