"""Two ends of a link in one process: time, keepalive and the end, on a clock that jumps."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.net.link import Link, RequestHandler
from p2pdist.net.memory import open_memory_links
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import Torrent, TorrentRequest

FRAME = MetadataVersions(versions={"root": 1})


async def test_what_one_end_sends_the_other_reads(device_certificate: Any, server_certificate: Any) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        await ours.send(FRAME)
        assert await anext(theirs.frames()) == FRAME
        await theirs.send(FRAME)
        assert await anext(ours.frames()) == FRAME
        assert (ours.remote, theirs.remote) == (server_certificate, device_certificate)
        assert (ours.remote_host, theirs.remote_host) == (theirs.local_host, ours.local_host)


async def test_the_acceptor_answers_requests(device_certificate: Any, server_certificate: Any) -> None:
    async def answer(link: Link, request: TorrentRequest) -> Torrent:
        assert link.remote == device_certificate
        return Torrent(torrent=b"content")

    async with open_memory_links(
        dialler=device_certificate,
        acceptor=server_certificate,
        requests={"/torrent": RequestHandler(TorrentRequest, answer)},
    ) as (ours, _):
        answered = await ours.request("/torrent", TorrentRequest(info_hash="0" * 64), Torrent)
        assert answered.torrent == b"content"


async def test_an_idle_link_lives_on_its_keepalives(
    device_certificate: Any, server_certificate: Any, autojump_clock: Any
) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        hours_s = 3 * 3600
        await trio.sleep(hours_s)
        assert (ours.end_reason, theirs.end_reason) == ("", "")
        await theirs.send(FRAME)
        assert await anext(ours.frames()) == FRAME

        statistics = theirs.statistics()
        assert statistics.round_trip_s is None, "one side's pings do for both"
        assert ours.statistics().round_trip_s is not None
        pings = hours_s / limits.LINK_KEEPALIVE_S
        assert statistics.bytes_received < 20 * pings + 1_000


async def test_a_link_whose_certificate_expires_is_cut(
    device_certificate: Any,
    server_certificate: Any,
    autojump_clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = server_certificate.not_after.timestamp()
    brief = msgspec.structs.replace(
        device_certificate, not_after=server_certificate.not_after - timedelta(minutes=30)
    )
    now = end - 1_800
    monkeypatch.setattr(time, "time", lambda: now)
    async with open_memory_links(dialler=brief, acceptor=server_certificate) as (ours, theirs):
        await trio.sleep(3 * limits.LINK_WATCH_S)
        assert theirs.end_reason == "", "clocks may differ a little"
        now += limits.CLOCK_SKEW_S + 1
        assert [frame async for frame in theirs.frames()] == []
        assert "expired" in theirs.end_reason
        await ours.wait_ended()


async def test_an_aborted_link_delivers_nothing_more(
    device_certificate: Any, server_certificate: Any
) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        await ours.send(FRAME)
        await trio.testing.wait_all_tasks_blocked()
        theirs.abort("it is revoked")
        assert [frame async for frame in theirs.frames()] == []
        assert "revoked" in theirs.end_reason
        with pytest.raises(Unavailable, match="revoked"):
            await theirs.send(FRAME)
        await ours.wait_ended()


async def test_frames_that_arrived_before_the_end_are_delivered(
    device_certificate: Any, server_certificate: Any
) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        for _ in range(5):
            await ours.send(FRAME)
        await ours.aclose()
        assert [frame async for frame in theirs.frames()] == [FRAME] * 5


async def test_both_ends_may_close_at_the_same_moment(
    device_certificate: Any, server_certificate: Any, autojump_clock: Any
) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.aclose)
            nursery.start_soon(theirs.aclose)
        assert trio.current_time() == started


async def test_the_end_wakes_everybody_who_waits(device_certificate: Any, server_certificate: Any) -> None:
    async def never(link: Link, request: TorrentRequest) -> Torrent:
        await trio.sleep_forever()
        raise AssertionError

    async with open_memory_links(
        dialler=device_certificate,
        acceptor=server_certificate,
        requests={"/torrent": RequestHandler(TorrentRequest, never)},
    ) as (ours, theirs):
        woken = []

        async def expect(wait: Callable[[], Any], name: str) -> None:
            try:
                await wait()
            except (Unavailable, StopAsyncIteration):
                woken.append(name)

        async def fill() -> None:
            while True:
                await ours.send(MetadataVersions(versions={"x" * 100: 1}))

        async def ask() -> None:
            await ours.request("/torrent", TorrentRequest(info_hash="0" * 64), Torrent)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect, ours.frames().__anext__, "reader")
            nursery.start_soon(expect, fill, "sender")
            nursery.start_soon(expect, ask, "asker")
            nursery.start_soon(expect, ours.wait_ended, "waiter")
            await trio.testing.wait_all_tasks_blocked()
            assert woken == []
            theirs.abort("test")
        assert sorted(woken) == ["asker", "reader", "sender"]
        await trio.testing.wait_all_tasks_blocked()
        assert theirs.statistics().requests_under_way == 0


async def test_a_frame_that_is_too_large_is_refused_and_the_link_lives(
    device_certificate: Any, server_certificate: Any
) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        too_large = MetadataVersions(versions={f"{number:0100}": 1 for number in range(12_000)})
        with pytest.raises(UsageError, match="exceeds"):
            await ours.send(too_large)
        with pytest.raises(UsageError, match="exceeds"):
            ours.send_nowait(too_large)
        await ours.send(FRAME)
        assert await anext(theirs.frames()) == FRAME


async def test_statistics_count_what_has_passed(device_certificate: Any, server_certificate: Any) -> None:
    async with open_memory_links(dialler=device_certificate, acceptor=server_certificate) as (ours, theirs):
        for _ in range(3):
            await ours.send(FRAME)
        frames = theirs.frames()
        for _ in range(2):
            await anext(frames)
        await trio.testing.wait_all_tasks_blocked()
        assert ours.statistics().frames_sent == 3
        assert theirs.statistics().frames_received == 2
        assert theirs.statistics().frames_unread == 1
        assert theirs.statistics().bytes_received == ours.statistics().bytes_sent > 0
