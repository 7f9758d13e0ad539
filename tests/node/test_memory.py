"""A node gives back what a burst has left behind, and a large one is not stopped for long to look for it."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.node.memory import Cycles, keep_small

SMALL, LARGE = limits.COLLECTED_BLOCKS_MAX, 4 * limits.COLLECTED_BLOCKS_MAX


class Process:
    """The size of this process and the interpreter's collector, as a test wants them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks = SMALL
        self.done: list[str] = []
        monkeypatch.setattr(sys, "getallocatedblocks", lambda: self.blocks)
        for name in ("collect", "freeze", "unfreeze"):
            monkeypatch.setattr(gc, name, lambda name=name: self.done.append(name))

    def what_is_done(self) -> list[str]:
        done, self.done = self.done, []
        return done


def resident_bytes() -> int:
    """What this process has resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


async def test_a_small_process_looks_at_everything_every_minute(
    process: Process, autojump_clock: trio.testing.MockClock
) -> None:
    with trio.move_on_after(70):
        await keep_small()
    assert process.what_is_done() == ["unfreeze", "collect"]


async def test_a_small_process_gives_freed_memory_back_within_seconds(
    process: Process, autojump_clock: trio.testing.MockClock
) -> None:
    burst = [b"x" * 20_000 for _ in range(2_000)]
    kept = burst[::10]  # so that what is free lies between what is not
    held = resident_bytes()
    del burst
    with trio.move_on_after(6):
        await keep_small()
    assert resident_bytes() < held - 20_000_000
    assert len(kept) == 200


async def test_a_large_process_is_not_stopped_to_give_memory_back(
    process: Process, autojump_clock: trio.testing.MockClock
) -> None:
    process.blocks = LARGE
    burst = [b"x" * 20_000 for _ in range(2_000)]
    kept = burst[::10]
    held = resident_bytes()
    del burst
    with trio.move_on_after(6):
        await keep_small()
    assert resident_bytes() > held - 20_000_000
    assert len(kept) == 200


def test_in_a_large_process_what_there_is_is_left_out(process: Process) -> None:
    process.blocks = LARGE
    Cycles().leave_out()
    assert process.what_is_done() == ["freeze"]


def test_a_large_process_looks_at_everything_again_once_it_has_grown_by_half(process: Process) -> None:
    cycles = Cycles()
    process.blocks = LARGE
    cycles.collect()
    assert process.what_is_done() == ["unfreeze", "collect", "freeze"]
    process.blocks = LARGE * 3 // 2
    cycles.collect()
    assert process.what_is_done() == []
    process.blocks += 1
    cycles.collect()
    assert process.what_is_done() == ["unfreeze", "collect", "freeze"]


def test_a_process_that_is_small_again_is_looked_at_as_before(process: Process) -> None:
    cycles = Cycles()
    process.blocks = LARGE
    cycles.collect()
    process.blocks = SMALL
    process.what_is_done()
    cycles.leave_out()
    cycles.collect()
    assert process.what_is_done() == ["unfreeze", "collect"]
