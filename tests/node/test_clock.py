"""Waiting for the wall clock."""

from __future__ import annotations

from typing import Any

import trio

from p2pdist.node.clock import LOOK_EVERY_S, wall_clock_says


class Clock:
    def __init__(self, *, drift: float = 1.0) -> None:
        self.at = 1_000_000.0
        self._drift = drift

    def __call__(self) -> float:
        return self.at + trio.current_time() * self._drift


async def test_a_deadline_is_met_on_time(autojump_clock: Any) -> None:
    clock = Clock()
    deadline = clock() + 1_000.5
    assert await wall_clock_says(deadline, unless=trio.Event(), unix_clock=clock)
    assert deadline <= clock() <= deadline + 0.1


async def test_a_deadline_that_has_passed_is_met_at_once(autojump_clock: Any) -> None:
    clock = Clock()
    before = trio.current_time()
    assert await wall_clock_says(clock() - 5, unless=trio.Event(), unix_clock=clock)
    assert trio.current_time() == before


async def test_the_waiting_ends_when_something_else_comes(autojump_clock: Any) -> None:
    other = trio.Event()
    async with trio.open_nursery() as nursery:

        async def later() -> None:
            await trio.sleep(100)
            other.set()

        nursery.start_soon(later)
        assert not await wall_clock_says(None, unless=other, unix_clock=Clock())
        assert trio.current_time() < 101 + LOOK_EVERY_S


async def test_a_clock_that_is_set_in_either_direction_is_noticed(autojump_clock: Any) -> None:
    for step in (-3_600.0, 3_600.0):
        clock = Clock()
        async with trio.open_nursery() as nursery:

            async def set_clock(clock: Clock = clock, step: float = step) -> None:
                await trio.sleep(100)
                clock.at += step

            nursery.start_soon(set_clock)
            before = trio.current_time()
            assert await wall_clock_says(None, unless=trio.Event(), unix_clock=clock)
            assert 100 <= trio.current_time() - before <= 100 + LOOK_EVERY_S


async def test_a_clock_that_is_corrected_little_by_little_is_not_set(autojump_clock: Any) -> None:
    with trio.move_on_after(100_000) as scope:
        await wall_clock_says(None, unless=trio.Event(), unix_clock=Clock(drift=1.0005))
    assert scope.cancelled_caught
