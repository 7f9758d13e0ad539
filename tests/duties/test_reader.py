"""Artifacts read from mirrors into real swarms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio
from mirror_servers import NGINX, Asked, WebAuthority, open_nginx, open_server
from swarm_fleet import SWARM, Node, authority, content
from swarm_fleet import artifact as artifact_at

from p2pdist import limits
from p2pdist.core.mirrors import account_of
from p2pdist.duties.mirrors.http import MirrorClient, open_client
from p2pdist.duties.mirrors.reader import Wanted, WasRead, lines, read_artifact
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.node.rates import Rates
from p2pdist.swarm.session import Swarm
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import Mirror
from p2pdist.wire.messages import RateLimits

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="needs nginx")]

SIZE = 6_000_003


class Vendor:
    """What the vendor publishes, and where."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = WebAuthority(directory)
        self.data = content(SIZE)
        (directory / "www").mkdir()
        self.file = directory / "www" / "file"
        self.file.write_bytes(self.data)
        self.torrent: MadeTorrent = make_torrent(self.file, swarm=SWARM)

    def wanted(self, name: str, own: NodeId, *urls: str, readers: tuple[NodeId, ...] = ()) -> Wanted:
        return Wanted(
            artifact=artifact_at(self.torrent, self.directory / name),
            mirrors=tuple(Mirror(url=url, priority=10 * number) for number, url in enumerate(urls)),
            own=own,
            readers=readers,
        )

    def received(self, swarm: Swarm) -> dict[str, int]:
        statistics = swarm.statistics(self.torrent.info_hash)
        assert statistics.unattributed == 0
        return {source.node: source.received for source in statistics.sources if source.received}

    async def accounted(self, swarm: Swarm) -> dict[str, int]:
        """Return what was received of the whole artifact, once libtorrent has told of all of it."""
        with trio.fail_after(20):
            while sum(each.received for each in swarm.statistics(self.torrent.info_hash).sources) < SIZE:
                await trio.sleep(0.02)
        return self.received(swarm)


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path)


@pytest.fixture
async def client(vendor: Vendor) -> AsyncIterator[MirrorClient]:
    async with open_client(MirrorSettings(ca_file=vendor.authority.ca_file)) as opened:
        yield opened


async def read(
    wanted: Wanted, swarm: Swarm, client: MirrorClient, progress: Callable[[WasRead], None] | None = None
) -> WasRead:
    with trio.fail_after(60):
        return await read_artifact(wanted, swarm, client, progress=progress)


async def test_an_artifact_comes_from_nginx_alone_each_byte_once(
    vendor: Vendor, client: MirrorClient
) -> None:
    node = Node(authority(), "point", "127.0.0.1")
    async with (
        open_nginx(vendor.directory / "nginx", vendor.authority, vendor.file) as mirror,
        node.open() as swarm,
    ):
        wanted = vendor.wanted("copy", node.node, mirror.url)
        await swarm.add(wanted.artifact)
        was_read = await read(wanted, swarm, client)
        assert (was_read.complete, was_read.reason) == (True, "")
        assert (was_read.pieces.read, was_read.pieces.repeated) == (was_read.pieces.pieces, 0)
        assert lines(was_read) == [f"{mirror.url}: {SIZE} bytes, used"]
        assert (await vendor.accounted(swarm)) == {account_of(mirror.url): SIZE}
        assert mirror.sent == SIZE
    assert (vendor.directory / "copy").read_bytes() == vendor.data


async def test_two_points_read_each_byte_once_together(vendor: Vendor, client: MirrorClient) -> None:
    fleet = authority()
    nodes = [Node(fleet, "point", f"127.0.0.{host}") for host in (1, 2)]
    readers = tuple(node.node for node in nodes)
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(
            open_nginx(vendor.directory / "nginx", vendor.authority, vendor.file, rules="limit_rate 500k;")
        )
        swarms = [await stack.enter_async_context(node.open()) for node in nodes]
        plans = [vendor.wanted(node.node, node.node, mirror.url, readers=readers) for node in nodes]
        results: list[WasRead] = []

        async def take_part(own: int) -> None:
            await swarms[own].add(plans[own].artifact)
            source = nodes[1 - own].source(swarms[1 - own], wan=True)
            swarms[own].set_sources(vendor.torrent.info_hash, [source])
            results.append(await read(plans[own], swarms[own], client))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_part, 0)
            nursery.start_soon(take_part, 1)
        assert all(was_read.complete for was_read in results)
        assert mirror.sent == SIZE
        assert sum(was_read.pieces.read for was_read in results) == results[0].pieces.pieces
        for own in (0, 1):
            accounts = await vendor.accounted(swarms[own])
            assert set(accounts) == {account_of(mirror.url), nodes[1 - own].node}
            assert sum(accounts.values()) == SIZE
    assert all((vendor.directory / node.node).read_bytes() == vendor.data for node in nodes)


async def test_a_point_reads_the_part_of_another_that_does_nothing(
    vendor: Vendor, client: MirrorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_PATIENCE_S", 2.0)
    fleet = authority()
    own, dead = Node(fleet, "point", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    opened = open_nginx(vendor.directory / "nginx", vendor.authority, vendor.file)
    async with opened as mirror, own.open() as swarm:
        wanted = vendor.wanted("copy", own.node, mirror.url, readers=(own.node, dead.node))
        await swarm.add(wanted.artifact)
        was_read = await read(wanted, swarm, client)
        assert was_read.complete
        pieces = was_read.pieces.pieces
        assert pieces // 3 < was_read.pieces.taken_over < pieces * 2 // 3
        assert mirror.sent == SIZE


async def test_bad_mirrors_of_each_sort_are_named_and_the_artifact_comes_from_the_good_one(
    vendor: Vendor, client: MirrorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_STALL_S", 1.0)
    node = Node(authority(), "point", "127.0.0.1")

    async def lie(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(asked.head(SIZE) + bytes(asked.end - asked.start))

    async def stall(stream: trio.abc.Stream, asked: Asked) -> None:
        await stream.send_all(asked.head(SIZE) + vendor.data[asked.start : asked.start + 10_000])
        await trio.sleep_forever()

    async def half(stream: trio.abc.Stream, asked: Asked) -> None:
        middle = (asked.start + asked.end + 1) // 2
        await stream.send_all(asked.head(SIZE) + vendor.data[asked.start : middle])

    async def change(stream: trio.abc.Stream, asked: Asked) -> None:
        etags.append(f'"{len(etags)}"')
        await stream.send_all(
            asked.head(SIZE, etag=etags[-1]) + vendor.data[asked.start : asked.start + 50_000]
        )

    etags: list[str] = []
    async with AsyncExitStack() as stack:
        bad = [
            await stack.enter_async_context(open_server(vendor.authority, answer))
            for answer in (lie, stall, half, change)
        ]
        for name, rules in (
            ("circle", "return 302 /file;"),
            ("whole", "max_ranges 0;"),
            ("busy", "add_header Retry-After 60 always; return 503;"),
            ("nginx", "limit_rate 300k;"),
        ):
            opened = open_nginx(vendor.directory / name, vendor.authority, vendor.file, rules=rules)
            bad.append((await stack.enter_async_context(opened)).url)
        good = bad.pop()
        swarm = await stack.enter_async_context(node.open())
        wanted = vendor.wanted("copy", node.node, *bad, good)
        await swarm.add(wanted.artifact)
        was_read = await read(wanted, swarm, client)
        assert was_read.complete
        found = {each.url: each for each in was_read.mirrors}
        liar, staller, halver, changer, circle, whole, busy = (found[url] for url in bad)
        assert (liar.dropped, liar.lied) == (True, True)
        assert liar.reason.startswith("it sent wrong bytes for piece")
        assert [each.lied for each in was_read.mirrors].count(True) == 1
        assert (circle.dropped, circle.reason) == (True, "it redirects in a circle")
        assert (whole.dropped, whole.reason) == (True, "it answers a range with the whole file")
        assert (busy.dropped, busy.received, busy.reason) == (False, 0, "it answers 503")
        assert busy.failures <= limits.MIRROR_REQUESTS_EACH_MAX
        assert staller.failures > 0
        assert halver.failures > 0
        assert changer.failures > 0
        assert not found[good].failures
        assert sum((await vendor.accounted(swarm)).values()) == SIZE
        assert liar.url in lines(was_read)[0]
    assert (vendor.directory / "copy").read_bytes() == vendor.data


async def test_when_a_mirror_dies_the_other_goes_on_at_the_byte(vendor: Vendor, client: MirrorClient) -> None:
    node = Node(authority(), "point", "127.0.0.1")
    async with AsyncExitStack() as stack:
        swarm = await stack.enter_async_context(node.open())
        other = await stack.enter_async_context(
            open_nginx(vendor.directory / "other", vendor.authority, vendor.file)
        )
        async with AsyncExitStack() as dying:
            first = await dying.enter_async_context(
                open_nginx(
                    vendor.directory / "first", vendor.authority, vendor.file, rules="limit_rate 100k;"
                )
            )
            wanted = vendor.wanted("copy", node.node, first.url)
            wanted = Wanted(
                artifact=wanted.artifact,
                mirrors=(Mirror(url=first.url), Mirror(url=other.url, priority=200)),
                own=node.node,
            )
            await swarm.add(wanted.artifact)
            with trio.move_on_after(1.0):
                await read(
                    Wanted(artifact=wanted.artifact, mirrors=wanted.mirrors[:1], own=node.node), swarm, client
                )
        was_read = await read(wanted, swarm, client)
        assert was_read.complete
        dead, good = was_read.mirrors
        assert dead.failures > 0
        assert not dead.dropped
        assert good.received == other.sent < SIZE
        accounts = await vendor.accounted(swarm)
        assert accounts[account_of(first.url)] + accounts[account_of(other.url)] == SIZE
    assert (vendor.directory / "copy").read_bytes() == vendor.data


async def test_a_reading_that_was_cancelled_goes_on_with_what_is_missing(
    vendor: Vendor, client: MirrorClient
) -> None:
    node = Node(authority(), "point", "127.0.0.1")
    slow = open_nginx(vendor.directory / "slow", vendor.authority, vendor.file, rules="limit_rate 700k;")
    async with slow as mirror, node.open() as swarm:
        wanted = vendor.wanted("copy", node.node, mirror.url)
        await swarm.add(wanted.artifact)
        with trio.CancelScope() as scope:
            await read(
                wanted, swarm, client, lambda found: scope.cancel() if found.pieces.held > 30 else None
            )
        assert scope.cancelled_caught
        was_read = await read(wanted, swarm, client)
        assert was_read.complete
        assert was_read.pieces.read < was_read.pieces.pieces - 30
        assert (await vendor.accounted(swarm)) == {account_of(mirror.url): SIZE}


async def test_a_reader_that_is_killed_costs_no_more_than_its_last_second(
    vendor: Vendor, client: MirrorClient
) -> None:
    rules = "limit_rate 500k;"
    async with open_nginx(vendor.directory / "slow", vendor.authority, vendor.file, rules=rules) as mirror:
        script = Path(__file__).with_name("reading_process.py")
        arguments = [vendor.file, vendor.directory / "copy", mirror.url, vendor.authority.ca_file]
        command = [sys.executable, str(script), *map(str, arguments)]
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        said = b""
        with trio.fail_after(30):
            while int(said.split()[-1] if said.split() else 0) < 30:
                said += await process.stdout.receive_some()
        process.kill()
        await process.wait()
        await process.stdout.aclose()
        node = Node(authority(), "point", "127.0.0.1")
        async with node.open() as swarm:
            wanted = vendor.wanted("copy", node.node, mirror.url)
            await swarm.add(wanted.artifact)
            was_read = await read(wanted, swarm, client)
        assert was_read.complete
        assert (
            was_read.pieces.read <= was_read.pieces.pieces - 25
        )  # what is verified is written a moment later
    assert (vendor.directory / "copy").read_bytes() == vendor.data


async def test_what_is_read_from_mirrors_stays_below_what_the_wan_may_carry_at_this_time_of_day(
    vendor: Vendor, client: MirrorClient
) -> None:
    node = Node(authority(), "point", "127.0.0.1")
    opened = open_nginx(vendor.directory / "nginx", vendor.authority, vendor.file)
    async with opened as mirror, node.open() as swarm:
        wanted = vendor.wanted("copy", node.node, mirror.url)
        await swarm.add(wanted.artifact)
        always = RateLimits(wan_down=50_000_000, windows=["00:00-24:00 wan=1000000"])
        Rates(swarm, always, lambda: None, lambda: None).apply()
        with trio.move_on_after(3.0):
            await read(wanted, swarm, client)
        statistics = swarm.statistics(wanted.artifact.info_hash)
        assert not statistics.complete
        # What comes at once on each of four connections is on top of nine tenths.
        assert 1_500_000 < sum(vendor.received(swarm).values()) < 3_600_000


async def test_when_no_mirror_is_left_the_reading_says_so(
    vendor: Vendor, client: MirrorClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MIRROR_PATIENCE_S", 1.0)
    node = Node(authority(), "point", "127.0.0.1")
    rules = "return 404;"
    opened = open_nginx(vendor.directory / "n", vendor.authority, vendor.file, rules=rules)
    async with opened as mirror, node.open() as swarm:
        wanted = vendor.wanted("copy", node.node, mirror.url)
        await swarm.add(wanted.artifact)
        was_read = await read(wanted, swarm, client)
    assert (was_read.complete, was_read.reason) == (False, "no mirror is left")
    assert lines(was_read) == [f"{mirror.url}: 0 bytes, dropped: it answers 404"]


async def test_an_artifact_that_is_taken_out_of_the_swarm_ends_the_reading(
    vendor: Vendor, client: MirrorClient
) -> None:
    node = Node(authority(), "point", "127.0.0.1")
    opened = open_nginx(vendor.directory / "n", vendor.authority, vendor.file, rules="limit_rate 10k;")
    async with opened as mirror, node.open() as swarm, trio.open_nursery() as nursery:
        wanted = vendor.wanted("copy", node.node, mirror.url)
        await swarm.add(wanted.artifact)

        def take_out(found: WasRead) -> None:
            nursery.start_soon(partial(swarm.remove, wanted.artifact.info_hash, delete=True))

        with pytest.raises(UsageError, match="not in the swarm"):
            await read(wanted, swarm, client, take_out)
