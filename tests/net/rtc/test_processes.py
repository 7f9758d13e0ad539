"""Two processes over loopback: what one does to the other by dying, stopping or leaving."""

from __future__ import annotations

import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import pytest
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.net.rtc.island import Island
from p2pdist.net.rtc.punch import open_punched
from p2pdist.net.rtc.stream import PunchedStream

pytestmark = pytest.mark.slow  # another process with the whole library

PEER = Path(__file__).with_name("punching_peer.py")


@asynccontextmanager
async def connected_to_process(
    island: Island, work: str
) -> AsyncIterator[tuple[PunchedStream, trio.Process]]:
    """Connect to a process that does *work*."""
    async with trio.open_nursery() as nursery:
        command = [sys.executable, str(PEER), "controlled", work, "127.0.0.1", "10"]
        process = await nursery.start(lambda task_status: _run(command, task_status))

        assert await read_line(process) == "ready"
        await process.stdin.send_all(b"go\n")

        async def exchange(ours: bytes) -> bytes:
            theirs = await read_line(process)
            await process.stdin.send_all(ours.hex().encode() + b"\n")
            return bytes.fromhex(theirs)

        stream = await open_punched(island, exchange, controlling=True, hosts=["127.0.0.1"])
        try:
            async with stream:
                yield stream, process
        finally:
            process.kill()


async def _run(command: list[str], task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command, stdin=PIPE, stdout=PIPE, check=False, task_status=task_status)


async def read_line(process: trio.Process) -> str:
    line = bytearray()
    assert process.stdout is not None
    while not line.endswith(b"\n"):
        part = await process.stdout.receive_some(1)
        assert part, "the process has ended"
        line += part
    return line.decode().strip()


async def read_all(stream: PunchedStream) -> None:
    async for _ in stream:
        pass


async def seconds_until_broken(stream: PunchedStream) -> float:
    began = trio.current_time()
    with trio.fail_after(10), pytest.raises(trio.BrokenResourceError) as broken:
        await read_all(stream)
    assert isinstance(broken.value.__cause__, Unavailable)
    return trio.current_time() - began


async def test_half_a_megabyte_comes_back_from_another_process(island: Island) -> None:
    async with connected_to_process(island, "echo") as (stream, _), trio.open_nursery() as nursery:
        content = bytes(range(256)) * 2048
        nursery.start_soon(stream.send_all, content)
        received = bytearray()
        while len(received) < len(content):
            received += await stream.receive_some()
        assert received == content


@pytest.mark.slow
@pytest.mark.parametrize(("work", "how"), [("pour", signal.SIGKILL), ("idle", signal.SIGSTOP)])
async def test_a_peer_that_vanishes_is_noticed_in_time_busy_or_idle(
    island: Island, work: str, how: signal.Signals
) -> None:
    async with connected_to_process(island, work) as (stream, process):
        if work == "pour":
            for _ in range(20):
                await stream.receive_some()
        process.send_signal(how)
        assert await seconds_until_broken(stream) > 1


async def test_a_peer_that_leaves_is_noticed_at_once(island: Island) -> None:
    async with connected_to_process(island, "echo") as (stream, process):
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
        process.send_signal(signal.SIGINT)
        with trio.fail_after(limits.PUNCH_DEAD_AFTER_S):
            assert await stream.receive_some() == b""
