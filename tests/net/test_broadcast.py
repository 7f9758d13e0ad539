"""One frame to many links: everybody gets it once, in its place, and who is slow or gone holds nobody up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.net.broadcast import broadcast
from p2pdist.net.link import Link, open_link
from p2pdist.wire.frames import MetadataVersions, Way

Serving = Callable[..., AbstractAsyncContextManager[Any]]

NEWS = MetadataVersions(versions={"timestamp": 7})


def nobody(link: Link, error: P2PDistError) -> None:
    raise AssertionError(f"{link} did not take it: {error}")


async def dial(stack: AsyncExitStack, fleet: Any, server: Any) -> Link:
    return await stack.enter_async_context(
        open_link(server.host, server.port, identity=fleet.identity(), expect=server.node)
    )


async def next_frame(link: Link) -> Any:
    return await anext(link.frames())


async def test_everybody_gets_it_once(fleet: Any, serving: Serving) -> None:
    async with serving() as server, AsyncExitStack() as stack:
        dialled = [await dial(stack, fleet, server) for _ in range(5)]
        await broadcast(server.links, NEWS, nobody)
        await broadcast(server.links, Way(nodes=[]), nobody)
        for link in dialled:
            assert [await next_frame(link), await next_frame(link)] == [NEWS, Way(nodes=[])]


async def test_it_is_sent_before_a_link_has_its_turn(fleet: Any, serving: Serving) -> None:
    async with serving() as server, AsyncExitStack() as stack:
        dialled = await dial(stack, fleet, server)
        [link] = server.links
        await trio.testing.wait_all_tasks_blocked()
        before = link.statistics().bytes_sent
        await broadcast([link], NEWS, nobody)
        assert link.statistics().bytes_sent > before
        assert link.statistics().frames_waiting == 0
        assert await next_frame(dialled) == NEWS


async def test_it_comes_behind_what_was_queued_before(fleet: Any, serving: Serving) -> None:
    async with serving() as server, AsyncExitStack() as stack:
        dialled = await dial(stack, fleet, server)
        [link] = server.links
        for number in range(1, 60):
            link.send_nowait(MetadataVersions(versions={"a" * 100: number}))
        await broadcast([link], NEWS, nobody)
        heard = [await next_frame(dialled) for _ in range(60)]
        assert heard[-1] == NEWS
        assert [frame.versions["a" * 100] for frame in heard[:-1]] == list(range(1, 60))


async def test_what_does_not_fit_into_the_socket_arrives_all_the_same(fleet: Any, serving: Serving) -> None:
    large = MetadataVersions(versions={f"{number:0100}": 1 for number in range(4_000)})
    async with serving() as server, AsyncExitStack() as stack:
        dialled = await dial(stack, fleet, server)
        for _ in range(3):
            await broadcast(server.links, large, nobody)
        for _ in range(3):
            assert await next_frame(dialled) == large


async def test_who_reads_nothing_is_named_and_the_others_get_it(fleet: Any, serving: Serving) -> None:
    filling = Way(nodes=["a" * 32] * limits.GATEWAYS_IN_A_ROW_MAX)
    async with serving() as server, AsyncExitStack() as stack:
        await dial(stack, fleet, server)
        [slow] = server.links
        reading = await dial(stack, fleet, server)
        failed: list[Link] = []
        while not failed:
            await broadcast([slow], filling, lambda link, error: failed.append(link))
        await broadcast(server.links, NEWS, lambda link, error: failed.append(link))
        assert set(failed) == {slow}
        assert await next_frame(reading) == NEWS


async def test_a_link_that_has_ended_is_named(fleet: Any, serving: Serving) -> None:
    async with serving() as server, AsyncExitStack() as stack:
        await dial(stack, fleet, server)
        [link] = server.links
        link.abort("a test")
        failed: list[str] = []
        await broadcast([link], NEWS, lambda link, error: failed.append(error.what))
        assert "a test" in failed[0]


async def test_a_frame_that_is_too_large_is_refused_before_anybody_gets_it(
    fleet: Any, serving: Serving
) -> None:
    too_large = MetadataVersions(versions={f"{number:0128}": 1 for number in range(10_000)})
    async with serving() as server, AsyncExitStack() as stack:
        await dial(stack, fleet, server)
        with pytest.raises(UsageError):
            await broadcast(server.links, too_large, nobody)
        assert [link.statistics().frames_sent for link in server.links] == [0]


async def test_others_have_their_turn_meanwhile(fleet: Any, serving: Serving) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    class SlowLink:
        def push(self, packed: bytes) -> None:
            spend(limits.BROADCAST_TURN_S / 2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await broadcast([SlowLink() for _ in range(8)], NEWS, nobody)  # type: ignore[misc]
        nursery.cancel_scope.cancel()
    assert turns - before >= 3


async def test_it_has_as_much_time_as_everything_else(fleet: Any, serving: Serving) -> None:
    pushed = 0
    between: list[int] = []

    class SlowLink:
        def push(self, packed: bytes) -> None:
            nonlocal pushed
            pushed += 1
            spend(limits.BROADCAST_TURN_S / 4)

    async def be_busy() -> None:
        nonlocal pushed
        while True:
            await trio.lowlevel.checkpoint()
            spend(4 * limits.BROADCAST_TURN_S)
            between.append(pushed)
            pushed = 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(be_busy)
        await trio.lowlevel.checkpoint()
        await broadcast([SlowLink() for _ in range(60)], NEWS, nobody)  # type: ignore[misc]
        nursery.cancel_scope.cancel()
    assert max(between) > 8, "it went on for no longer than it does in quiet times"
    assert len(between) > 3, "everything else did not have its turn"


def spend(seconds: float) -> None:
    """Keep everything up."""
    ends = trio.current_time() + seconds
    while trio.current_time() < ends:
        pass
