"""Two ends of a punched path over loopback: they connect, carry bytes, and end in every way."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.rtc import path
from p2pdist.net.rtc.description import Candidate, Description, encode_description
from p2pdist.net.rtc.island import Island, open_island
from p2pdist.net.rtc.punch import open_punched
from p2pdist.net.rtc.report import Phase, PunchFailed
from p2pdist.net.rtc.stream import PunchedStream
from p2pdist.net.tls import client_context, server_context

pytestmark = pytest.mark.slow  # connections that take their time

HOSTS = ("127.0.0.1",)


def description(**changed: Any) -> bytes:
    """A description of somebody who is not there: nothing listens on the discard port of loopback."""
    nobody = Description(
        role="controlled",
        username="abcd",
        password="p" * 22,
        fingerprint=bytes(32),
        candidates=(Candidate(kind="host", host="127.0.0.1", port=9),),
    )
    return encode_description(msgspec.structs.replace(nobody, **changed))


async def answer(theirs: bytes, ours: bytes) -> bytes:
    return theirs


async def receive_exactly(stream: PunchedStream, size_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < size_bytes:
        part = await stream.receive_some()
        if not part:
            break
        received += part
    return bytes(received)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_two_nodes_connect_and_talk_both_ways(open_pair: Any, host: str) -> None:
    async with open_pair(hosts=(host,)) as pair:
        await pair.left.send_all(b"hello")
        assert await pair.right.receive_some() == b"hello"
        await pair.right.send_all(b"welcome")
        assert await pair.left.receive_some(4) == b"welc"
        assert await pair.left.receive_some(4) == b"ome"


async def test_the_report_says_what_was_tried_and_how_long_it_took(open_pair: Any) -> None:
    async with open_pair() as pair:
        report = pair.left.report
        assert [candidate.host for candidate in report.local] == ["127.0.0.1"]
        assert report.pair is not None
        ours, theirs = report.pair
        assert (ours.kind, theirs.kind, theirs.host) == ("host", "host", "127.0.0.1")
        assert (theirs, ours) == pair.right.report.pair
        assert set(report.seconds) == set(Phase)
        assert report.failure == ""


async def test_half_a_megabyte_goes_both_ways_at_once_in_any_pieces(open_pair: Any) -> None:
    chance = random.Random(7)
    content = {side: chance.randbytes(512 * 1024) for side in ("left", "right")}

    async def send(stream: PunchedStream, data: bytes) -> None:
        while data:
            size = chance.choice([1, 100, 5_000, 16_384, 16_385, 100_000])
            await stream.send_all(data[:size])
            data = data[size:]

    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(send, pair.left, content["left"])
        nursery.start_soon(send, pair.right, content["right"])

        async def receive(stream: PunchedStream, expected: bytes) -> None:
            received = bytearray()
            while len(received) < len(expected):
                received += await stream.receive_some(chance.choice([1, 700, 16_384, 70_000]))
            assert received == expected

        nursery.start_soon(receive, pair.left, content["right"])
        nursery.start_soon(receive, pair.right, content["left"])


async def test_the_sessions_own_tls_runs_inside(open_pair: Any, fleet: Any) -> None:
    async with open_pair() as pair:
        client = trio.SSLStream(pair.left, client_context(fleet.identity()))
        server = trio.SSLStream(pair.right, server_context(fleet.identity()), server_side=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.do_handshake)
            nursery.start_soon(server.do_handshake)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, bytes(300_000))
            received = 0
            while received < 300_000:
                received += len(await server.receive_some())
        assert client.getpeercert(binary_form=True)


@pytest.mark.slow
async def test_it_is_a_stream_as_trio_wants_one(punch: Any) -> None:
    """Trio's own contract, over real sockets."""
    async with open_island() as one, open_island() as other:

        async def make() -> tuple[PunchedStream, PunchedStream]:
            return await punch(one, other)  # type: ignore[no-any-return]

        async def make_clogged() -> tuple[PunchedStream, PunchedStream]:
            left, right = await make()
            for stream in (left, right):
                await stream.send_all(bytes(limits.PUNCH_WINDOW_BYTES))
            return left, right

        await trio.testing.check_two_way_stream(make, make_clogged)


async def test_a_slow_reader_makes_neither_side_queue_more_than_the_window(open_pair: Any) -> None:
    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.left.send_all, bytes(4 * limits.PUNCH_WINDOW_BYTES))
        with trio.fail_after(5):
            while pair.right.statistics().unread_bytes < limits.PUNCH_WINDOW_BYTES:
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert pair.left.statistics().sent_bytes == limits.PUNCH_WINDOW_BYTES
        assert pair.right.statistics().unread_bytes == limits.PUNCH_WINDOW_BYTES
        received = await receive_exactly(pair.right, 4 * limits.PUNCH_WINDOW_BYTES)
        assert len(received) == 4 * limits.PUNCH_WINDOW_BYTES


async def test_an_idle_path_lives_on_its_heartbeats(open_pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PUNCH_PULSE_S", 0.1)
    async with open_pair() as pair:
        dead_after_s = limits.PUNCH_DEAD_AFTER_S * 0.1 / 0.5
        await trio.sleep(2 * dead_after_s)
        await pair.left.send_all(b"still here")
        assert await pair.right.receive_some() == b"still here"
        assert (pair.left.failure, pair.right.failure) == (None, None)


async def test_the_congestion_window_stays_small_however_well_it_goes(
    open_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[path.Path] = []

    class Noted(path.Path):
        def __init__(self, *args: Any, **keywords: Any) -> None:
            super().__init__(*args, **keywords)
            paths.append(self)

    monkeypatch.setattr(path, "Path", Noted)
    async with open_pair() as pair, trio.open_nursery() as nursery:
        nursery.start_soon(pair.left.send_all, bytes(2_000_000))
        await receive_exactly(pair.right, 2_000_000)
        one_packet = 1_200  # more, while an acknowledgement is being taken in on the island's thread
        largest = max(each._sctp._cwnd for each in paths)
        assert largest <= limits.PUNCH_CONGESTION_BYTES + one_packet


async def test_a_close_delivers_everything_and_then_the_end(open_pair: Any) -> None:
    async with open_pair() as pair:
        await pair.left.send_all(bytes(200_000))
        await pair.left.aclose()
        assert len(await receive_exactly(pair.right, 1_000_000)) == 200_000
        assert await pair.right.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await pair.right.send_all(b"is anybody there?")
        with pytest.raises(trio.ClosedResourceError):
            await pair.left.send_all(b"no")


async def test_an_abort_is_an_error_for_the_other_side(open_pair: Any) -> None:
    async with open_pair() as pair:
        await trio.aclose_forcefully(pair.left)
        with trio.fail_after(1), pytest.raises(trio.BrokenResourceError) as broken:
            await pair.right.receive_some()
        assert isinstance(broken.value.__cause__, Unavailable)


async def test_the_end_of_the_island_breaks_its_streams_and_is_noticed_by_the_other_side(
    open_pair: Any,
) -> None:
    async with open_pair() as pair:
        await pair.islands[0].aclose()
        for stream in (pair.left, pair.right):
            with trio.fail_after(1), pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()


async def test_a_cancelled_reader_loses_nothing(open_pair: Any) -> None:
    async with open_pair() as pair:
        with trio.move_on_after(0.05):
            await pair.right.receive_some()
        await pair.left.send_all(b"hello")
        assert await pair.right.receive_some() == b"hello"


@pytest.mark.slow
async def test_nobody_there_is_noticed_within_the_limit_and_said_in_words(island: Island) -> None:
    with trio.fail_after(3), pytest.raises(PunchFailed) as failed:
        await open_punched(
            island, functools.partial(answer, description()), controlling=True, hosts=HOSTS, limit_s=1.0
        )
    report = failed.value.report
    assert "no pair of addresses let packets through" in report.failure and "within 1 s" in report.failure
    assert [candidate.port for candidate in report.remote] == [9]
    assert report.pair is None
    assert set(report.seconds) == {Phase.GATHER, Phase.EXCHANGE}


async def test_a_side_without_addresses_fails_at_once(island: Island) -> None:
    with trio.fail_after(3), pytest.raises(PunchFailed, match="no network address"):
        await open_punched(island, functools.partial(answer, b""), controlling=True, hosts=["192.0.2.77"])


@pytest.mark.parametrize(
    "said", [b"", b"garbage", description(role="controlling"), bytes(limits.PUNCH_DESCRIPTION_BYTES_MAX + 1)]
)
async def test_a_description_that_makes_no_sense_is_the_peers_fault(island: Island, said: bytes) -> None:
    with pytest.raises(PeerError):
        await open_punched(island, functools.partial(answer, said), controlling=True, hosts=HOSTS)


async def test_an_error_of_the_signalling_ends_the_attempt(island: Island) -> None:
    async def exchange(ours: bytes) -> bytes:
        raise Unavailable("the gateway is away")

    with pytest.raises(Unavailable, match="gateway"):
        await open_punched(island, exchange, controlling=True, hosts=HOSTS)


async def test_a_name_is_no_address_of_a_stun_server(island: Island) -> None:
    with pytest.raises(UsageError, match="not an IP address"):
        await open_punched(
            island,
            functools.partial(answer, b""),
            controlling=True,
            hosts=HOSTS,
            stun_servers=[("gateway.example", 3478)],
        )


@pytest.mark.slow
async def test_whoever_has_another_certificate_than_named_is_not_connected(meeting: Any) -> None:
    async def altered(ours: bytes) -> bytes:
        theirs = msgspec.msgpack.decode(await meeting.exchange(ours), type=Description)
        return encode_description(msgspec.structs.replace(theirs, fingerprint=bytes(32)))

    outcomes: dict[bool, BaseException] = {}

    async def punch(island: Island, exchange: Callable[[bytes], Awaitable[bytes]], controlling: bool) -> None:
        try:
            stream = await open_punched(island, exchange, controlling=controlling, hosts=HOSTS, limit_s=1.5)
            async with stream:
                await stream.receive_some()
        except (TrustError, PunchFailed, trio.BrokenResourceError) as error:
            outcomes[controlling] = error

    async with open_island() as one, open_island() as other, trio.open_nursery() as nursery:
        nursery.start_soon(punch, one, altered, True)
        nursery.start_soon(punch, other, meeting.exchange, False)
    assert isinstance(outcomes[True], TrustError)
    assert isinstance(outcomes[False], PunchFailed | trio.BrokenResourceError)


@pytest.mark.slow
@pytest.mark.parametrize("phase", [Phase.ICE, Phase.DTLS, Phase.SCTP])
async def test_a_side_that_stops_in_a_phase_is_given_up_and_a_cancelled_one_leaves_nothing(
    phase: Phase, meeting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(path.Path):
        """The controlled side never does its part of the phase."""

        async def _timed(self, step: Phase, work: Any) -> None:
            if step is phase and not self._controlling:
                work.close()
                await asyncio.get_running_loop().create_future()
            await super()._timed(step, work)

    monkeypatch.setattr(path, "Path", Stopping)
    failures: list[str] = []

    async def wait_in_vain(island: Island) -> None:
        with pytest.raises(PunchFailed) as failed:
            await open_punched(island, meeting.exchange, controlling=True, hosts=HOSTS, limit_s=0.7)
        failures.append(failed.value.report.failure)

    async def be_cancelled(island: Island) -> None:
        with trio.move_on_after(1) as scope:
            await open_punched(island, meeting.exchange, controlling=False, hosts=HOSTS)
        assert scope.cancelled_caught

    async with open_island() as one, open_island() as other, trio.open_nursery() as nursery:
        nursery.start_soon(wait_in_vain, one)
        nursery.start_soon(be_cancelled, other)
    assert "within 0.7 s" in failures[0]


@pytest.mark.parametrize("delay_s", [0, 0.001, 0.005, 0.02, 0.05, 0.1])
async def test_a_cancellation_at_any_moment_leaves_nothing(island: Island, delay_s: float) -> None:
    with trio.move_on_after(delay_s):
        await open_punched(island, functools.partial(answer, description()), controlling=True, hosts=HOSTS)


async def test_the_signalling_may_be_cancelled(island: Island) -> None:
    async def exchange(ours: bytes) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(PunchFailed, match="did not say how it can be reached"):
        await open_punched(island, exchange, controlling=True, hosts=HOSTS, limit_s=0.2)
