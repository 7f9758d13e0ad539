"""Two streams made one: everything passes, both ways, in order, and no more is held than must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.net.splicing import splice


class Narrow(trio.abc.HalfCloseableStream):
    """One end of a stream in memory that takes and gives little at a time, as real ones do."""

    def __init__(self, inner: Any, portion: int) -> None:
        self._inner = inner
        self._portion = portion
        self.taken = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data: bytes = await self._inner.receive_some(self._portion)
        self.taken += len(data)
        return data

    async def send_all(self, data: Any) -> None:
        for start in range(0, len(data), self._portion):
            await self._inner.send_all(data[start : start + self._portion])

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._inner.send_eof()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def send(stream: trio.abc.HalfCloseableStream, chunks: list[bytes]) -> None:
    for chunk in chunks:
        await stream.send_all(chunk)
    await stream.send_eof()


async def collect(stream: trio.abc.ReceiveStream, into: bytearray) -> None:
    while data := await stream.receive_some(1_000):
        into += data


CHUNKS = st.lists(st.binary(max_size=400), max_size=8)


@given(there=CHUNKS, back=CHUNKS, left=st.integers(1, 300), right=st.integers(1, 300), wait=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_goes_in_on_one_side_comes_out_on_the_other(
    there: list[bytes], back: list[bytes], left: int, right: int, wait: bool
) -> None:
    async def run() -> None:
        near, near_end = trio.testing.lockstep_stream_pair()
        far_end, far = trio.testing.lockstep_stream_pair()
        arrived_there, arrived_back = bytearray(), bytearray()

        async def answer() -> None:
            if wait:
                await collect(far, arrived_there)  # the whole question, then the answer
            await send(far, back)

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(splice, Narrow(near_end, left), Narrow(far_end, right))
                nursery.start_soon(send, near, there)
                nursery.start_soon(collect, near, arrived_back)
                nursery.start_soon(answer)
                if not wait:
                    nursery.start_soon(collect, far, arrived_there)
        assert (arrived_there, arrived_back) == (b"".join(there), b"".join(back))

    trio.run(run)


@pytest.fixture
def pairs() -> tuple[Any, Any, Any, Any]:
    """The two outer ends, and the two inner ones that are spliced."""
    near, near_end = trio.testing.memory_stream_pair()
    far_end, far = trio.testing.memory_stream_pair()
    return near, near_end, far_end, far


async def test_one_direction_may_end_long_before_the_other(pairs: Any) -> None:
    near, near_end, far_end, far = pairs
    async with trio.open_nursery() as nursery:
        nursery.start_soon(splice, near_end, far_end)
        await near.send_all(b"question")
        await near.send_eof()
        arrived = bytearray()
        await collect(far, arrived)
        assert arrived == b"question"
        for _ in range(3):
            await far.send_all(b"part")
            assert await near.receive_some() == b"part"
        await far.send_eof()
        assert await near.receive_some() == b""


async def test_nothing_is_read_that_the_other_side_has_no_room_for() -> None:
    near, near_end = trio.testing.memory_stream_pair()
    far_end, far = trio.testing.lockstep_stream_pair()
    source = Narrow(near_end, 10_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(splice, source, far_end)
        await near.send_all(bytes(1_000_000))
        await trio.testing.wait_all_tasks_blocked()
        assert source.taken == 10_000
        await far.receive_some(10_000)
        await trio.testing.wait_all_tasks_blocked()
        assert source.taken == 20_000
        nursery.cancel_scope.cancel()


async def test_a_slow_reader_does_not_hold_up_the_other_direction(pairs: Any) -> None:
    near, near_end = trio.testing.lockstep_stream_pair()
    _, _, far_end, far = pairs
    async with trio.open_nursery() as nursery:
        nursery.start_soon(splice, near_end, far_end)
        await far.send_all(bytes(limits.MIB))  # and nobody reads it
        await near.send_all(b"hello")
        assert await far.receive_some() == b"hello"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("idle", [True, False])
async def test_a_stream_that_breaks_ends_both_directions(pairs: Any, idle: bool) -> None:
    near, near_end, far_end, far = pairs

    async def fail() -> None:
        raise trio.BrokenResourceError("cable pulled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, near_end, far_end)
        if not idle:
            await far.send_all(b"x")
        near.send_stream.send_all_hook = None
        near_end.receive_stream.receive_some_hook = fail
        await near.send_all(b"y")
        await near.send_all(b"z")


async def expect_broken(left: Any, right: Any) -> None:
    with pytest.raises(trio.BrokenResourceError):
        await splice(left, right)


async def test_what_one_side_still_says_is_passed_on_when_it_takes_nothing_more() -> None:
    near, near_end = trio.testing.memory_stream_pair()
    far_end, far = trio.testing.memory_stream_pair()

    async def refuse() -> None:
        raise trio.BrokenResourceError("it takes nothing more")

    far_end.send_stream.send_all_hook = refuse
    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_broken, near_end, far_end)
        await near.send_all(b"lost")
        await trio.testing.wait_all_tasks_blocked()
        await far.send_all(b"the last word")
        await far.send_eof()
        arrived = bytearray()
        await collect(near, arrived)
        assert arrived == b"the last word"


async def test_an_end_that_nobody_wants_to_hear_is_no_failure(pairs: Any) -> None:
    near, near_end, far_end, far = pairs

    def refuse() -> None:
        raise trio.BrokenResourceError("it takes nothing more")

    far_end.send_stream.close_hook = refuse
    await far.send_all(b"all")
    await far.send_eof()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(splice, near_end, far_end)
        arrived = bytearray()
        await collect(near, arrived)
        assert arrived == b"all"
        await near.send_eof()


async def test_it_leaves_the_streams_open_when_it_is_cancelled(pairs: Any) -> None:
    near, near_end, far_end, _ = pairs
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(splice, near_end, far_end)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    await near_end.send_all(b"still there")
    assert await near.receive_some() == b"still there"


async def test_a_defect_of_a_stream_comes_out(pairs: Any) -> None:
    _, near_end, far_end, _ = pairs
    hook: Callable[[], Any]

    async def hook() -> None:
        raise ZeroDivisionError

    near_end.receive_stream.receive_some_hook = hook
    with pytest.raises(ExceptionGroup) as caught:
        await splice(near_end, far_end)
    assert caught.group_contains(ZeroDivisionError)
