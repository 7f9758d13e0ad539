"""A neighbour that is there and does not move: frozen, hung, or behind a cable that was pulled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.net.link import open_link
from p2pdist.net.tls import TlsIdentity
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import Torrent, TorrentRequest
from tests.net.raw_peer import both_sides

VERSIONS = {f"channel-{number}": 1 for number in range(20)}
ASKED = TorrentRequest(info_hash="0" * 64)
GIVEN_UP_S = limits.LINK_AWAITED_S + 2 * limits.LINK_ANSWER_S

SERVER = """
import json, sys
import trio
from p2pdist.net.link import RequestHandler, serve_links
from p2pdist.net.tls import TlsIdentity
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import TorrentRequest

async def never(link, request):
    print("asked", flush=True)
    await trio.sleep_forever()

async def read_all(link):
    async for _ in link.frames():
        pass

async def main():
    identity = TlsIdentity(**{name: text.encode() for name, text in json.loads(sys.argv[1]).items()})
    async with trio.open_nursery() as nursery:
        async def serve(task_status):
            await serve_links(
                host="127.0.0.1", port=0, identity=lambda: identity, on_link=read_all,
                requests={"/torrent": RequestHandler(TorrentRequest, never)},
                revoked=lambda node: False, task_status=task_status,
            )
        host, port = await nursery.start(serve)
        print(port, flush=True)

trio.run(main)
"""


class Neighbour:
    """A process that accepts links, says on its standard output what it is asked, and never answers."""

    def __init__(self, process: trio.Process, lines: trio.abc.ReceiveStream) -> None:
        self.process = process
        self._lines = lines
        self._read = b""
        self.port = 0

    async def line(self) -> str:
        while b"\n" not in self._read:
            more = await self._lines.receive_some(1_000)
            assert more, "the process has ended"
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


@asynccontextmanager
async def neighbour(identity: TlsIdentity) -> AsyncIterator[Neighbour]:
    shown = {name: getattr(identity, name).decode() for name in ("certificate_pem", "key_pem", "ca_pem")}
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", SERVER, json.dumps(shown)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        one = Neighbour(process, process.stdout)
        one.port = int(await one.line())
        yield one
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@both_sides
async def test_a_request_to_a_neighbour_that_shows_no_sign_of_life_fails_within_seconds(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, _raw):
        before = trio.current_time()
        with pytest.raises(Unavailable, match="nothing was heard"):
            await link.request("/torrent", ASKED, Torrent)
        assert trio.current_time() - before == pytest.approx(GIVEN_UP_S, abs=0.1)
        assert link.fell_silent


@both_sides
async def test_a_neighbour_that_only_takes_its_time_is_not_given_up(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw), trio.open_nursery() as nursery:
        nursery.start_soon(raw.hear_all)  # which answers pings
        with pytest.raises(Unavailable, match="did not answer /torrent within"):
            await link.request("/torrent", ASKED, Torrent)
        assert not link.fell_silent
        assert link.end_reason == ""
        nursery.cancel_scope.cancel()


@both_sides
async def test_nobody_is_given_up_early_while_nothing_is_awaited(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, _raw):
        before = trio.current_time()
        async with link.awaiting():
            await trio.sleep(limits.LINK_AWAITED_S + limits.LINK_ANSWER_S)
        await link.wait_ended()
        assert trio.current_time() - before >= limits.LINK_DEAD_AFTER_S


async def test_a_neighbour_that_may_be_asked_often_is_given_up_within_ten_seconds_though_nothing_is_awaited(
    standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=True) as (link, raw):
        raw.session.set_pace(round(limits.LINK_PACES_S[0]))
        await raw.flush()
        before = trio.current_time()
        await link.wait_ended()
        assert trio.current_time() - before < 10
        assert link.fell_silent


@pytest.mark.slow  # a process, and real seconds of silence
async def test_a_frozen_process_is_given_up_and_one_that_thaws_in_time_is_not(fleet: Any) -> None:
    async with (
        neighbour(fleet.identity()) as frozen,
        open_link("127.0.0.1", frozen.port, identity=fleet.identity(), expect=None) as link,
        trio.open_nursery() as nursery,
    ):

        async def ask() -> None:
            with pytest.raises(Unavailable, match="nothing was heard"):
                await link.request("/torrent", ASKED, Torrent)

        nursery.start_soon(ask)
        assert await frozen.line() == "asked"
        os.kill(frozen.process.pid, signal.SIGSTOP)
        sent = link.statistics().bytes_sent
        while link.statistics().bytes_sent == sent:
            await trio.sleep(0.05)
        os.kill(frozen.process.pid, signal.SIGCONT)
        while link.statistics().round_trip_s is None:
            await trio.sleep(0.05)
        assert link.end_reason == ""

        os.kill(frozen.process.pid, signal.SIGSTOP)
        before = trio.current_time()
        with trio.fail_after(limits.LINK_DEAD_AFTER_S / 2):
            await link.wait_ended()
        assert trio.current_time() - before >= limits.LINK_AWAITED_S
        assert link.fell_silent


@pytest.mark.slow  # a process, and real seconds of silence
async def test_a_frozen_process_is_given_up_as_soon_when_much_was_sent_to_it_and_goes_on_being_sent(
    fleet: Any,
) -> None:
    async with (
        neighbour(fleet.identity()) as frozen,
        open_link("127.0.0.1", frozen.port, identity=fleet.identity(), expect=None) as link,
        trio.open_nursery() as nursery,
    ):

        async def say() -> None:
            with suppress(Unavailable):
                while True:
                    await link.send(MetadataVersions(versions=VERSIONS))
                    await trio.sleep(0.001)

        nursery.start_soon(say)
        while link.statistics().bytes_sent < 20 * limits.LINK_RATE_MIN_BYTES_PER_S:
            await trio.sleep(0.01)
        os.kill(frozen.process.pid, signal.SIGSTOP)
        async with link.awaiting():
            with trio.fail_after(2 * GIVEN_UP_S):
                await link.wait_ended()
        assert link.fell_silent
