"""Sessions that look for a better path, over loopback: everything is real but the relayed path."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import PeerError, sole_error
from p2pdist.net.conversations import Conversation, answer, initiate
from p2pdist.net.punching import Attempt, Punching
from p2pdist.net.rtc.island import open_island
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.wire import codec
from p2pdist.wire.punching import Begin, Described, GivenUp, PunchSignal
from p2pdist.wire.services import Echo

pytestmark = pytest.mark.slow  # connections that take their time

HERE = ["127.0.0.1"]


@dataclass
class End:
    """One end of a session."""

    stream: SessionStream
    punching: Punching
    conversation: Conversation


@asynccontextmanager
async def meeting(
    fleet: Any, *, hosts: list[str] | None = None, on_attempt: Callable[[Attempt], object] = lambda _: None
) -> AsyncIterator[tuple[End, End]]:
    """An operator and a device that have a relayed session; neither looks for a better path yet."""
    operator, device = fleet.identity(), fleet.identity()
    async with AsyncExitStack() as stack:
        streams, punchings = [], []
        for leads in (True, False):
            island = await stack.enter_async_context(open_island())
            stream = await stack.enter_async_context(open_session())
            punching = Punching(
                stream,
                island,
                leads=leads,
                stun_servers=lambda: (),
                hosts=HERE if hosts is None else hosts,
                on_attempt=on_attempt,
            )
            streams.append(stream)
            punchings.append(punching)
        for stream, path in zip(streams, trio.testing.memory_stream_pair(), strict=True):
            stream.attach(path, "relayed")
        ends: list[End | None] = [None, None]
        finish = trio.Event()

        async def initiator() -> None:
            async with initiate(
                streams[0],
                Echo(),
                identity=operator,
                expect=fleet.node_of(device),
                on_signal=punchings[0].take,
            ) as conversation:
                ends[0] = End(streams[0], punchings[0], conversation)
                await finish.wait()
            await streams[0].aclose()

        async def answerer() -> None:
            async with answer(
                streams[1],
                identity=device,
                expect=fleet.node_of(operator),
                judge=lambda question: None,
                on_signal=punchings[1].take,
            ) as (_, conversation):
                ends[1] = End(streams[1], punchings[1], conversation)
                await finish.wait()
            await streams[1].aclose()  # its conversation may have been broken in the middle of a word

        async with trio.open_nursery() as nursery:
            nursery.start_soon(initiator)
            nursery.start_soon(answerer)
            with trio.fail_after(10):
                while not (ends[0] and ends[1]):
                    await trio.sleep(0.01)
            yield ends[0], ends[1]
            finish.set()


async def echo(conversation: Conversation) -> None:
    async for data in conversation:
        await conversation.send_all(data)


@asynccontextmanager
async def punching_both(left: End, right: End) -> AsyncIterator[trio.Nursery]:
    """Both ends look for better paths, and the right one gives back what it gets."""
    async with trio.open_nursery() as nursery:
        for end in (left, right):
            nursery.start_soon(end.punching.run, end.conversation)
        nursery.start_soon(echo, right.conversation)
        yield nursery
        nursery.cancel_scope.cancel()


async def drain(conversation: Conversation, into: bytearray) -> None:
    async for data in conversation:
        into += data


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(15):
        while not condition():
            await trio.sleep(0.005)


async def test_a_session_moves_to_a_direct_path_beside_its_bytes(fleet: Any) -> None:
    data, came = random.Random(5).randbytes(1_000_000), bytearray()
    async with meeting(fleet) as (left, right), punching_both(left, right) as nursery:
        nursery.start_soon(drain, left.conversation, came)
        await left.conversation.send_all(data[:500_000])
        with trio.fail_after(10):
            await left.stream.wait_path("direct")
            await right.stream.wait_path("direct")
        await left.conversation.send_all(data[500_000:])
        await until(lambda: len(came) == len(data))
    assert came == data


async def test_a_session_falls_back_when_the_path_dies_and_finds_another(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PUNCH_AGAIN_FAILED_S", 0.5)
    data, came = random.Random(6).randbytes(600_000), bytearray()
    async with meeting(fleet) as (left, right), punching_both(left, right) as nursery:
        nursery.start_soon(drain, left.conversation, came)
        for part in range(3):
            with trio.fail_after(20):
                await left.stream.wait_path("direct")
            nursery.start_soon(left.conversation.send_all, data[part * 200_000 : (part + 1) * 200_000])
            await trio.sleep(0.02)  # something is on its way
            break_paths(right.stream)
            await until(lambda part=part: len(came) == (part + 1) * 200_000)  # type: ignore[misc]
    assert came == data
    assert [attempt.path for attempt in left.punching.attempts[:3]] == ["direct"] * 3


def break_paths(stream: SessionStream) -> None:
    """Let every path but the relayed one die at once, as if the program at its end had."""
    for path in stream._paths.values():
        if path.kind != "relayed":
            path.scope.cancel()


async def test_what_was_tried_is_told_with_the_outcome_of_each_pair(fleet: Any) -> None:
    async with meeting(fleet) as (left, right), punching_both(left, right) as nursery:
        nursery.start_soon(drain, left.conversation, bytearray())
        with trio.fail_after(10):
            attempt = await left.punching.wait_attempted()
    assert (attempt.number, attempt.path) == (1, "direct")
    (pair,) = attempt.report.pairs
    assert (pair.outcome, pair.local.kind, pair.remote.kind) == ("used", "host", "host")
    assert attempt.report.pair == (pair.local, pair.remote)


async def test_where_no_address_can_be_had_the_session_stays_relayed_and_says_why(fleet: Any) -> None:
    told: list[Attempt] = []
    nowhere = ["192.0.2.77"]  # no address of this machine
    async with (
        meeting(fleet, hosts=nowhere, on_attempt=told.append) as (left, right),
        punching_both(left, right) as nursery,
    ):
        nursery.start_soon(drain, left.conversation, bytearray())
        await until(lambda: len(told) == 2)
        assert left.stream.path == right.stream.path == "relayed"
    assert {attempt.path for attempt in told} == {None}
    assert all("no network address" in attempt.report.failure for attempt in told)


async def test_the_leader_hears_when_the_follower_gives_up(fleet: Any) -> None:
    async with meeting(fleet) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(left.punching.run, left.conversation)
        nursery.start_soon(drain, left.conversation, bytearray())
        await right.conversation.signal(codec.encode(GivenUp(attempt=1, reason="no such luck")))
        with trio.fail_after(5):
            attempt = await left.punching.wait_attempted()
        nursery.cancel_scope.cancel()
    assert "no such luck" in attempt.report.failure


async def test_a_session_that_ends_does_not_wait_for_an_attempt_under_way(fleet: Any) -> None:
    async with meeting(fleet) as (left, right), punching_both(left, right) as nursery:
        nursery.start_soon(drain, left.conversation, bytearray())
        await until(lambda: right.punching._present is not None)  # the attempt has begun
        began = trio.current_time()
    assert trio.current_time() - began < 1


async def test_a_session_over_a_direct_path_ends_in_order_on_both_sides(fleet: Any) -> None:
    async with meeting(fleet) as (left, right):
        async with punching_both(left, right) as nursery:
            nursery.start_soon(drain, left.conversation, bytearray())
            await left.stream.wait_path("direct")
            await right.stream.wait_path("direct")
        began = trio.current_time()
    assert left.stream._session.done
    assert right.stream._session.done
    assert trio.current_time() - began < limits.SESSION_FINISH_S / 2


class Alone:
    """One end without the other, to say things to."""

    def __init__(self, stream: SessionStream, island: Any, *, leads: bool) -> None:
        self.punching = Punching(stream, island, leads=leads, stun_servers=lambda: (), hosts=HERE)

    def hear(self, signal: PunchSignal) -> None:
        self.punching.take(codec.encode(signal))


@asynccontextmanager
async def alone(*, leads: bool) -> AsyncIterator[Alone]:
    async with open_island() as island, open_session() as stream:
        yield Alone(stream, island, leads=leads)


@pytest.mark.parametrize("garbage", [b"", b"\xc1", b"\x80", bytes(limits.SESSION_SIGNAL_BYTES_MAX + 1)])
async def test_a_signal_that_makes_no_sense_is_the_other_sides_fault(garbage: bytes) -> None:
    async with alone(leads=False) as end:
        with pytest.raises(PeerError):
            end.punching.take(garbage)


async def test_only_the_leader_begins_attempts_and_counts_them_upwards() -> None:
    async with alone(leads=True) as leader, alone(leads=False) as follower:
        with pytest.raises(PeerError, match="up to this one"):
            leader.hear(Begin(attempt=1))
        follower.hear(Begin(attempt=2))
        with pytest.raises(PeerError, match="comes after attempt 2"):
            follower.hear(Begin(attempt=2))


async def test_word_of_an_attempt_that_is_over_changes_nothing() -> None:
    async with alone(leads=False) as follower:
        follower.hear(Described(attempt=1, description=b"x"))
        follower.hear(Begin(attempt=2))
        follower.hear(Described(attempt=1, description=b"x"))
        assert follower.punching._present is not None
        assert follower.punching._present.theirs is None


async def test_a_description_that_is_garbage_fails_the_attempt_and_not_the_session(fleet: Any) -> None:
    async with meeting(fleet) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(left.punching.run, left.conversation)
        nursery.start_soon(drain, left.conversation, bytearray())
        await right.conversation.signal(codec.encode(Described(attempt=1, description=b"garbage")))
        with trio.fail_after(5):
            attempt = await left.punching.wait_attempted()
        assert attempt.path is None
        assert left.stream.path == "relayed"
        nursery.cancel_scope.cancel()


async def test_errors_of_what_runs_beside_leave_as_they_are(fleet: Any) -> None:
    async with meeting(fleet) as (left, _):
        with pytest.raises(LookupError):
            async with left.punching.beside(left.conversation):
                raise LookupError
    assert sole_error(BaseExceptionGroup("", [LookupError()]))
