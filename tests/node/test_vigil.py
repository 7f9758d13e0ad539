"""Watching over the neighbour while something is being fetched, on a clock that jumps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from p2pdist import limits
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link
from p2pdist.net.memory import open_memory_links
from p2pdist.node.vigil import Visitors, watch_over
from p2pdist.trust.certificates import parse_certificate
from p2pdist.trust.keys import IdentityKey
from tests.node.nodes import Nodes

ARTIFACT = InfoHash("0" * 64)
BRIEFLY_S = limits.LINK_KEEPALIVE_S - 1  # an idle link says nothing for so long


class Fetch:
    """What a test says is being fetched: each look finds so many bytes more."""

    def __init__(self, *, more: int) -> None:
        self.bytes = 0
        self.more = more
        self.begun = trio.Event()

    def unfinished(self) -> Mapping[InfoHash, int]:
        self.bytes += self.more
        return {ARTIFACT: self.bytes} if self.begun.is_set() else {}

    async def wait_unfinished(self) -> None:
        await self.begun.wait()


@asynccontextmanager
async def watched(nodes: Nodes, fetch: Fetch, visitors: Visitors | None = None) -> AsyncIterator[Link]:
    ours, theirs = (parse_certificate(nodes.certificate(IdentityKey.generate())) for _ in range(2))
    async with (
        open_memory_links(dialler=ours, acceptor=theirs) as (link, _),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(watch_over, link, fetch, visitors or Visitors())
        await trio.testing.wait_all_tasks_blocked()
        yield link
        nursery.cancel_scope.cancel()


async def test_a_neighbour_is_asked_for_signs_of_life_while_a_fetch_stands_still(
    nodes: Nodes, autojump_clock: Any
) -> None:
    fetch = Fetch(more=0)
    async with watched(nodes, fetch) as link:
        fetch.begun.set()
        await trio.sleep(2 + limits.LINK_AWAITED_S)
        assert link.statistics().round_trip_s is not None, "it was asked, and answered"


async def test_a_neighbour_is_left_alone_while_bytes_come(nodes: Nodes, autojump_clock: Any) -> None:
    fetch = Fetch(more=1)
    async with watched(nodes, fetch) as link:
        fetch.begun.set()
        await trio.sleep(BRIEFLY_S)
        assert link.statistics().round_trip_s is None
        fetch.more = 0
        await trio.sleep(BRIEFLY_S)
        assert link.statistics().round_trip_s is not None


async def test_a_neighbour_is_left_alone_while_nothing_is_fetched(nodes: Nodes, autojump_clock: Any) -> None:
    async with watched(nodes, Fetch(more=0)) as link:
        await trio.sleep(BRIEFLY_S)
        assert link.statistics().round_trip_s is None


async def test_a_neighbour_is_asked_for_signs_of_life_while_there_is_a_session(
    nodes: Nodes, autojump_clock: Any
) -> None:
    visitors = Visitors()
    async with watched(nodes, Fetch(more=0), visitors) as link:
        with visitors.one():
            await trio.sleep(2 * limits.LINK_AWAITED_S)
        assert link.statistics().round_trip_s is not None, "it was asked, and answered"


async def test_a_neighbour_is_left_alone_once_the_session_is_over(nodes: Nodes, autojump_clock: Any) -> None:
    visitors = Visitors()
    async with watched(nodes, Fetch(more=0), visitors) as link:
        with visitors.one():
            await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(BRIEFLY_S)
        assert link.statistics().round_trip_s is None
