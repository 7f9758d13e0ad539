"""The island: asyncio beside trio, and gone without a trace."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import trio
import trio.testing

from p2pdist.errors import UsageError
from p2pdist.net.rtc.island import Handover, Island, open_island


def island_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "island"]


class Echo:
    """Answers every order with the order, and its end with a word."""

    def __init__(self, tell: Callable[[str, int], bool]) -> None:
        self._tell = tell
        self._over = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        try:
            await self._over
        finally:
            self._tell("over", 0)

    def handle(self, order: str) -> None:
        if order == "fail":
            self._over.set_exception(ValueError("as told"))
        elif order == "end":
            self._over.set_result(None)
        else:
            self._tell(order, 0)


class Listener:
    """Keeps events, and waits for them."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.changed = trio.Event()

    def deliver(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = trio.Event()

    def ended(self) -> None:
        self.deliver("ended")

    async def wait_for(self, *events: str) -> None:
        with trio.fail_after(5):
            while self.events != list(events):
                await self.changed.wait()


async def test_no_thread_starts_before_somebody_needs_it() -> None:
    async with open_island():
        assert not island_threads()


async def test_orders_go_in_and_events_come_out_in_order(island: Island) -> None:
    listener = Listener()
    stay = island.settle(Echo, listener.deliver, listener.ended)
    for order in ("a", "b", "c", "end"):
        stay.order(order)
    await listener.wait_for("a", "b", "c", "over", "ended")
    assert stay.error is None


async def test_residents_share_one_thread(island: Island) -> None:
    listeners = [Listener(), Listener()]
    for listener in listeners:
        island.settle(Echo, listener.deliver, listener.ended).order("hello")
    for listener in listeners:
        await listener.wait_for("hello")
    assert len(island_threads()) == 1


async def test_an_error_of_a_resident_is_told_and_hurts_no_other(island: Island) -> None:
    failing, other = Listener(), Listener()
    bad = island.settle(Echo, failing.deliver, failing.ended)
    good = island.settle(Echo, other.deliver, other.ended)
    bad.order("fail")
    await failing.wait_for("over", "ended")
    assert isinstance(bad.error, ValueError)
    good.order("still here")
    await other.wait_for("still here")


async def test_an_order_after_the_end_does_nothing(island: Island) -> None:
    listener = Listener()
    stay = island.settle(Echo, listener.deliver, listener.ended)
    stay.order("end")
    await listener.wait_for("over", "ended")
    stay.order("too late")


async def test_a_cancelled_wait_ends_the_resident_before_it_goes_on(island: Island) -> None:
    listener = Listener()
    stay = island.settle(Echo, listener.deliver, listener.ended)
    stay.order("hello")
    await listener.wait_for("hello")
    with trio.move_on_after(0) as scope:
        await stay.wait_ended()
    assert scope.cancelled_caught
    assert listener.events == ["hello", "over", "ended"]


async def test_a_resident_that_is_cancelled_before_it_is_made_ends_too(island: Island) -> None:
    listener = Listener()
    stay = island.settle(Echo, listener.deliver, listener.ended)
    stay.cancel()
    with trio.fail_after(5):
        await stay.wait_ended()


async def test_the_end_of_the_island_ends_its_residents_and_its_thread() -> None:
    listener = Listener()
    async with open_island() as island:
        island.settle(Echo, listener.deliver, listener.ended).order("hello")
        await listener.wait_for("hello")
    assert not island_threads()
    await listener.wait_for("hello", "over", "ended")
    with pytest.raises(UsageError, match="closed"):
        island.settle(Echo, listener.deliver, listener.ended)


async def test_an_error_in_the_block_stops_the_thread_too() -> None:
    async def fail() -> None:
        async with open_island() as island:
            listener = Listener()
            island.settle(Echo, listener.deliver, listener.ended).order("hello")
            await listener.wait_for("hello")
            raise KeyError

    with pytest.raises(KeyError):
        await fail()
    assert not island_threads()


async def test_what_does_not_fit_is_refused_and_there_is_one_wake_up() -> None:
    scheduled: list[Callable[[], None]] = []
    delivered: list[str] = []
    handover: Handover[str] = Handover(scheduled.append, delivered.append, bytes_max=10)
    assert handover.put("a", 6)
    assert not handover.put("b", 5)
    assert handover.put("c", 4)
    assert len(scheduled) == 1
    scheduled.pop()()
    assert delivered == ["a", "c"]
    assert handover.put("d", 10)
    assert len(scheduled) == 1
