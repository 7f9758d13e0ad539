"""A heartbeat that the admin server has to confirm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from p2pdist.node import reports
from p2pdist.node.reports import Heart
from p2pdist.wire.envelope import Opened
from p2pdist.wire.messages import FromDevice, Heartbeat
from tests.node.nodes import Nodes


@asynccontextmanager
async def beating(
    nodes: Nodes, directory: Path
) -> AsyncIterator[tuple[Heart, trio.MemoryReceiveChannel[str]]]:
    """Run a heart; what comes out are the ids of its beats."""
    said, heard = trio.open_memory_channel[str](1_000)

    async def send(message: FromDevice) -> bool:
        assert isinstance(message, Heartbeat)
        said.send_nowait(message.id)
        return True

    heart = Heart(
        nodes.home(directory),
        SimpleNamespace(versions={}),  # type: ignore[arg-type]  # of metadata only this is asked
        name="laptop",
        spread=0.0,
        desired=lambda: None,
        installed=dict,
        opened=lambda: Opened(highest=0, seen=b""),
        send=send,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart.run)
        with trio.fail_after(30):
            yield heart, heard
        nursery.cancel_scope.cancel()


async def test_it_is_repeated_until_it_is_confirmed(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_CONFIRM_AGAIN_S", 0.01)
    async with beating(nodes, tmp_path) as (heart, heard), trio.open_nursery() as asking:
        asking.start_soon(heart.confirm)
        first, second = await heard.receive(), await heard.receive()
        assert first == second != ""
        heart.received(["another"])
        assert await heard.receive() == first
        heart.received([first])
    # The nursery has ended: so it was confirmed.


async def test_what_confirms_an_earlier_one_confirms_no_later_one(nodes: Nodes, tmp_path: Path) -> None:
    async with beating(nodes, tmp_path) as (heart, heard):
        async with trio.open_nursery() as asking:
            asking.start_soon(heart.confirm)
            first = await heard.receive()
            asking.cancel_scope.cancel()
        async with trio.open_nursery() as asking:
            asking.start_soon(heart.confirm)
            second = await heard.receive()
            assert second not in ("", first)
            heart.received([first])
            await trio.testing.wait_all_tasks_blocked()
            assert asking.child_tasks, "it waits on"
            heart.received([second])


async def test_others_have_no_id(nodes: Nodes, tmp_path: Path) -> None:
    async with beating(nodes, tmp_path) as (heart, heard):
        heart.due.ring()
        assert await heard.receive() == ""
