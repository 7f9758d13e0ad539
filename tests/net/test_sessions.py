"""Sessions over streams in memory, on a clock that jumps, and over real sockets."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.core.session import PathKind
from p2pdist.errors import Unavailable
from p2pdist.net.framing import FrameSplitter
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.wire import codec
from p2pdist.wire.paths import Hello, PathFrame, Ping, Pong, Reset

Ends = tuple[SessionStream, SessionStream]
Pair = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]

DATA = random.Random(1).randbytes(3_000_000)


@asynccontextmanager
async def session() -> AsyncIterator[Ends]:
    async with open_session() as left, open_session() as right:
        yield left, right


def join(ends: Ends, kind: PathKind) -> tuple[Pair, Pair]:
    """Give both ends one more path; returns its two streams."""
    streams = trio.testing.memory_stream_pair()
    for end, stream in zip(ends, streams, strict=True):
        end.attach(stream, kind)
    return streams


async def cut(streams: tuple[Pair, Pair]) -> None:
    for stream in streams:
        await trio.aclose_forcefully(stream)


async def transfer(ends: Ends, at: dict[int, Callable[[], Awaitable[object]]]) -> bytes:
    """Send the data from left to right, and do things once so many bytes have come; return what came."""
    left, right = ends
    came = bytearray()

    async def send() -> None:
        await left.send_all(DATA)
        await left.send_eof()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while more := await right.receive_some():
            came += more
            for due in [count for count in at if count <= len(came)]:
                await at.pop(due)()
    return bytes(came)


async def test_each_side_receives_what_the_other_sends_and_then_the_end(autojump_clock: object) -> None:
    async with session() as (left, right):
        join((left, right), "relayed")
        await left.send_all(b"ping")
        await left.send_eof()
        assert (await right.receive_some(), await right.receive_some()) == (b"ping", b"")
        await right.send_all(b"pong")
        await right.send_eof()
        assert (await left.receive_some(), await left.receive_some()) == (b"pong", b"")
        await left.wait_done()
        await right.wait_done()


async def test_a_session_moves_to_a_better_path_and_falls_back_without_losing_a_byte(
    autojump_clock: object,
) -> None:
    async with session() as ends:
        paths = {"relayed": join(ends, "relayed")}
        seen: list[PathKind | None] = []

        async def punch() -> None:
            seen.append(ends[0].path)
            paths["punched"] = join(ends, "punched")
            await ends[0].wait_path("punched")

        async def lose_relay() -> None:
            seen.append(ends[0].path)
            await cut(paths["relayed"])

        async def relay_again() -> None:
            paths["relayed"] = join(ends, "relayed")

        async def lose_punched() -> None:
            seen.append(ends[0].path)
            await cut(paths["punched"])
            await ends[0].wait_path("relayed")

        steps = {500_000: punch, 1_000_000: lose_relay, 1_500_000: relay_again, 2_000_000: lose_punched}
        assert await transfer(ends, dict(steps)) == DATA
        assert seen == ["relayed", "punched", "punched"]


async def test_a_session_outlives_the_loss_of_its_only_path(autojump_clock: object) -> None:
    async with session() as ends:
        first = join(ends, "relayed")

        async def lose() -> None:
            await cut(first)
            await trio.sleep(limits.SESSION_PATHLESS_S - 1)
            join(ends, "relayed")

        assert await transfer(ends, {1_000_000: lose}) == DATA


async def test_a_session_without_a_path_fails_in_time_and_says_why(autojump_clock: object) -> None:
    begun = trio.current_time()
    async with open_session() as left:
        with pytest.raises(trio.BrokenResourceError) as failed:
            await left.receive_some()
        assert isinstance(failed.value.__cause__, Unavailable)
    assert trio.current_time() - begun == pytest.approx(limits.SESSION_PATHLESS_S, abs=1.0)


async def test_a_path_that_falls_silent_is_left_within_seconds(autojump_clock: object) -> None:
    async with open_session() as left:
        silent, _ = trio.testing.memory_stream_pair()
        left.attach(silent, "direct")
        begun = trio.current_time()
        with trio.fail_after(limits.SESSION_SILENT_S + 1):
            while left.statistics():
                await trio.sleep(0.1)
        assert trio.current_time() - begun >= limits.SESSION_SILENT_S


async def test_an_idle_path_is_kept_and_its_round_trip_measured(autojump_clock: object) -> None:
    async with session() as ends:
        join(ends, "relayed")
        await trio.sleep(60)
        for end in ends:
            (path,) = end.statistics()
            assert path.used
            assert path.round_trip_s is not None


async def test_a_reader_that_takes_nothing_stops_the_sender(autojump_clock: object) -> None:
    async with session() as ends:
        join(ends, "relayed")
        with trio.move_on_after(60) as scope:
            await ends[0].send_all(DATA)
        assert scope.cancelled_caught
        (path,) = ends[0].statistics()
        assert path.bytes_sent < limits.SESSION_WINDOW_BYTES * 1.1


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_the_other_side_hears_at_once_that_a_session_was_closed(
    autojump_clock: object, how: str
) -> None:
    async with open_session() as right:
        with trio.CancelScope() as scope:
            async with open_session() as left:
                join((left, right), "relayed")
                await left.send_all(b"x")
                assert await right.receive_some() == b"x"
                if how == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        with trio.fail_after(1), pytest.raises(trio.BrokenResourceError, match="it was closed"):
            await right.receive_some()


class Bare:
    """The other end of a path, frame by frame."""

    def __init__(self, stream: Pair) -> None:
        self._stream = stream
        self._splitter = FrameSplitter()
        self._frames: list[PathFrame] = []

    async def say(self, frame: PathFrame) -> None:
        data = codec.encode(frame)
        await self._stream.send_all(len(data).to_bytes(4, "big") + data)

    async def hear(self) -> PathFrame:
        while not self._frames:
            data = await self._stream.receive_some()
            self._frames += [codec.decode(packed, PathFrame) for packed in self._splitter.feed(bytes(data))]
        return self._frames.pop(0)


async def test_whoever_breaks_the_rules_is_told_and_the_session_is_over(autojump_clock: object) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    other = Bare(theirs)
    async with open_session() as left:
        left.attach(ours, "relayed")
        assert isinstance(await other.hear(), Hello)
        await other.say(Hello(received=5, limit=10))
        with pytest.raises(trio.BrokenResourceError, match="says that it has 5 bytes"):
            await left.receive_some()
        assert isinstance(await other.hear(), Reset)


async def test_garbage_on_one_path_costs_that_path_only(autojump_clock: object) -> None:
    async with session() as ends:
        join(ends, "relayed")
        ours, theirs = trio.testing.memory_stream_pair()
        ends[0].attach(ours, "direct")
        await theirs.send_all(b"\0\0\0\1x" * 3)
        await trio.testing.wait_all_tasks_blocked()
        await ends[0].send_all(b"still here")
        assert await ends[1].receive_some() == b"still here"
        assert [path.kind for path in ends[0].statistics()] == ["relayed"]


async def test_a_ping_is_answered_on_its_path(autojump_clock: object) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    other = Bare(theirs)
    async with open_session() as left:
        left.attach(ours, "relayed")
        assert isinstance(await other.hear(), Hello)
        await other.say(Ping(number=7))
        assert await other.hear() == Pong(number=7)


async def test_a_session_over_real_sockets_carries_both_directions_at_once() -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    came: dict[str, bytes] = {}

    async def end(name: str, stream: SessionStream) -> None:
        async def send() -> None:
            await stream.send_all(DATA)
            await stream.send_eof()

        data = bytearray()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            while more := await stream.receive_some():
                data += more
        await stream.wait_done()
        came[name] = bytes(data)

    async with session() as (left, right), trio.open_nursery() as nursery:
        with trio.fail_after(20):
            left.attach(await trio.open_tcp_stream("127.0.0.1", port), "direct")
            right.attach(await listeners[0].accept(), "direct")
            async with trio.open_nursery() as both:
                both.start_soon(end, "left", left)
                both.start_soon(end, "right", right)
        nursery.cancel_scope.cancel()
    await listeners[0].aclose()
    assert came == {"left": DATA, "right": DATA}


class Watched(trio.abc.Stream):
    """A path that remembers how it was closed first."""

    def __init__(self, inner: Pair, closed: list[str]) -> None:
        self._inner = inner
        self._closed = closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._inner.receive_some(max_bytes))

    async def aclose(self) -> None:
        self._closed.append("at once" if trio.current_effective_deadline() == -math.inf else "in order")
        await self._inner.aclose()


async def test_the_last_word_goes_out_in_order_over_a_path_that_can_lose_it(autojump_clock: object) -> None:
    closed: list[str] = []

    async with session() as ends:
        for end, stream in zip(ends, trio.testing.memory_stream_pair(), strict=True):
            end.attach(Watched(stream, closed), "punched")
        await ends[0].send_eof()
        await ends[1].send_eof()
        for end in ends:
            assert await end.receive_some() == b""
            await end.wait_done()
    assert closed[0] == "in order"
