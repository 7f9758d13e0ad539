"""A point that carries a node and does not do its work is left; one that does is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.core.upstream import Upstream
from p2pdist.ids import NodeId
from p2pdist.node.diligence import Questions, watch_work
from p2pdist.wire.messages import Heartbeat, Refusal

PATIENCE_S = 60.0
REFUSAL = Refusal(id="1", kind="stranger", subject="x", reason="y", at=1)
HEARTBEAT = Heartbeat(
    revision=0,
    metadata={},
    platform="",
    program="",
    name="",
    certificate_expires=0,
    swarms=[],
    disk_free_bytes=0,
    installed={},
)


class Post:
    """How many receipts came, while some are owed."""

    def __init__(self) -> None:
        self.count: int | None = None

    def owed(self) -> int | None:
        return self.count


class Uplink:
    """A link that can be left."""

    def __init__(self, kind: Literal["point", "server"]) -> None:
        self.upstream = Upstream(node=NodeId("p" * 32), host="192.0.2.1", port=1, kind=kind)
        self.left: list[str] = []

    def patience_s(self) -> float:
        return PATIENCE_S

    def leave(self, reason: str) -> None:
        self.left.append(reason)


class Content:
    """What is being fetched."""

    def __init__(self) -> None:
        self.cut_off = False

    def is_cut_off(self) -> bool:
        return self.cut_off


class Watched:
    """A node whose neighbour is watched."""

    def __init__(self, kind: Literal["point", "server"]) -> None:
        self.uplink = Uplink(kind)
        self.post = Post()
        self.questions = Questions()
        self.content = Content()


@asynccontextmanager
async def watched(kind: Literal["point", "server"] = "point") -> AsyncIterator[Watched]:
    node = Watched(kind)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_work, node.uplink, node.post, node.questions, node.content)
        yield node
        nursery.cancel_scope.cancel()


async def test_a_point_that_owes_receipts_and_gives_none_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as node:
        node.post.count = 3
        await trio.sleep(limits.RECEIPT_PATIENCE_S - 1)
        assert node.uplink.left == []
        await trio.sleep(15)
        assert "no receipts" in node.uplink.left[0]


async def test_a_point_that_owes_nothing_or_gives_receipts_slowly_is_not_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with watched() as node:
        await trio.sleep(300)
        for count in range(20):
            node.post.count = count
            await trio.sleep(limits.RECEIPT_PATIENCE_S - 10)
        assert node.uplink.left == []


async def test_a_point_through_which_no_answer_comes_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as node:
        node.questions.sent(REFUSAL, trio.current_time())
        await trio.sleep(PATIENCE_S - 1)
        assert node.uplink.left == []
        await trio.sleep(10)
        assert "no answer" in node.uplink.left[0]


async def test_an_answer_to_anything_proves_the_way(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as node:
        for _ in range(5):
            node.questions.sent(REFUSAL, trio.current_time())
            await trio.sleep(PATIENCE_S - 10)
            node.questions.answered()
        await trio.sleep(300)
        assert node.uplink.left == []


async def test_what_needs_no_answer_is_not_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as node:
        node.questions.sent(HEARTBEAT, trio.current_time())
        await trio.sleep(300)
        assert node.uplink.left == []


async def test_a_point_none_of_whose_sources_answers_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with watched() as node:
        for cut_off in (True, False, True):
            node.content.cut_off = cut_off
            await trio.sleep(PATIENCE_S - 10)
        assert node.uplink.left == []
        await trio.sleep(20)
        assert "no source" in node.uplink.left[0]


async def test_a_question_from_before_the_link_gives_the_new_neighbour_its_full_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await trio.sleep(1_000)
    async with watched() as node:
        node.questions.since = 1.0
        await trio.sleep(PATIENCE_S - 1)
        assert node.uplink.left == []


@pytest.mark.parametrize("count", [None, 3])
async def test_the_admin_server_itself_is_never_left(
    count: int | None, autojump_clock: trio.testing.MockClock
) -> None:
    async with watched("server") as node:
        node.post.count = count
        node.questions.sent(REFUSAL, trio.current_time())
        node.content.cut_off = True
        await trio.sleep(1_000)
        assert node.uplink.left == []
