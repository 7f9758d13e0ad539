"""One task sends for many links: what was queued together goes out together, and others have their turn."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.net.flushing import Flusher


class Queue:
    """Something that queues numbers, and pushes them."""

    def __init__(self, flusher: Flusher) -> None:
        self._flusher = flusher
        self._queued: list[int] = []
        self.pushed: list[list[int]] = []

    def put(self, number: int) -> None:
        self._queued.append(number)
        self._flusher.due(self)

    def push(self) -> None:
        self.pushed.append(self._queued)
        self._queued = []


async def test_what_is_queued_together_is_sent_together() -> None:
    flusher = Flusher()
    left, right = Queue(flusher), Queue(flusher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        left.put(1)
        right.put(2)
        left.put(3)
        await trio.testing.wait_all_tasks_blocked()
        left.put(4)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert (left.pushed, right.pushed) == ([[1, 3], [4]], [[2]])


async def test_what_is_queued_while_it_sends_is_sent_next() -> None:
    flusher = Flusher()
    left, right = Queue(flusher), Queue(flusher)
    push = right.push

    def push_and_queue() -> None:
        push()
        if not left.pushed[1:]:
            left.put(2)

    right.push = push_and_queue  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        left.put(1)
        right.put(1)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert left.pushed == [[1], [2]]


async def test_others_have_their_turn_while_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BROADCAST_TURN_S", 0.0)
    monkeypatch.setattr(limits, "BROADCAST_TURN_S_MAX", 0.0)
    flusher = Flusher()
    queues = [Queue(flusher) for _ in range(10)]
    sent: list[int] = []

    async def watch() -> None:
        while not sent or sent[-1] < len(queues):
            sent.append(sum(len(queue.pushed) for queue in queues))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flusher.run)
        await trio.testing.wait_all_tasks_blocked()
        for queue in queues:
            queue.put(1)
        await watch()
        nursery.cancel_scope.cancel()
    assert len(set(sent)) > 5
