"""Two ends of a punched path in one process, over loopback, and a watch over what they leave behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from p2pdist.net.rtc.island import Island, open_island
from p2pdist.net.rtc.punch import open_punched
from p2pdist.net.rtc.stream import PunchedStream

sys.path.insert(0, str(Path(__file__).parent))  # for the programs beside the tests


@dataclass
class Meeting:
    """Signalling in memory: both get the other's description when both have come."""

    said: list[bytes] = field(default_factory=list)
    complete: trio.Event = field(default_factory=trio.Event)

    async def exchange(self, ours: bytes) -> bytes:
        """Say *ours*, and wait for theirs."""
        place = len(self.said)
        self.said.append(ours)
        if place == 1:
            self.complete.set()
        await self.complete.wait()
        return self.said[1 - place]


@dataclass(kw_only=True)
class Pair:
    """Both ends, each with its own island."""

    left: PunchedStream
    right: PunchedStream
    islands: tuple[Island, Island]


async def punch_both(
    one: Island, other: Island, hosts: Sequence[str] = ("127.0.0.1",)
) -> tuple[PunchedStream, PunchedStream]:
    """Connect two islands; the first one controls."""
    meeting = Meeting()
    streams: dict[Island, PunchedStream] = {}

    async def punch(island: Island) -> None:
        streams[island] = await open_punched(island, meeting.exchange, controlling=island is one, hosts=hosts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(punch, one)
        nursery.start_soon(punch, other)
    return streams[one], streams[other]


OpenPair = Callable[..., AbstractAsyncContextManager[Pair]]


@pytest.fixture
def meeting() -> Meeting:
    return Meeting()


@pytest.fixture
def punch() -> Callable[..., Awaitable[tuple[PunchedStream, PunchedStream]]]:
    return punch_both


@pytest.fixture
def open_pair() -> OpenPair:
    @asynccontextmanager
    async def open_pair(hosts: Sequence[str] = ("127.0.0.1",)) -> AsyncIterator[Pair]:
        async with open_island() as one, open_island() as other:
            left, right = await punch_both(one, other, hosts)
            async with left, right:
                yield Pair(left=left, right=right, islands=(one, other))

    return open_pair


@pytest.fixture
async def island() -> AsyncIterator[Island]:
    async with open_island() as island:
        yield island


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No test of this room leaves a thread or a socket."""
    before = _sockets()
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == "island"]
    assert _sockets() <= before


def _sockets() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            count += str(entry.readlink()).startswith("socket:")
    return count
