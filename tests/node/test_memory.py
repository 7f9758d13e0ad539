"""A node gives back what a burst has left behind, and never stops for long to look for it."""

from __future__ import annotations

import gc
import sys

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.node.memory import keep_small


@pytest.mark.parametrize(("blocks", "collected"), [(limits.COLLECTED_BLOCKS_MAX, True), (10**8, False)])
async def test_unused_cycles_are_looked_for_while_the_process_is_small(
    blocks: int, collected: bool, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(sys, "getallocatedblocks", lambda: blocks)
    monkeypatch.setattr(gc, "collect", lambda: looks.append(None))
    with trio.move_on_after(150):
        await keep_small()
    assert bool(looks) == collected
