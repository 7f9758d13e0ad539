"""The work of reading releases from mirrors, on nodes with real swarms."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from mirror_servers import NGINX, WebAuthority, open_nginx
from swarm_fleet import SWARM, Node, artifact, authority, content

from p2pdist.core.mirrored import Chosen, choose
from p2pdist.duties.kinds import duty_of, perform
from p2pdist.duties.mirrors import task as mirror_task
from p2pdist.duties.repository import Place
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import Unavailable, UsageError
from p2pdist.ids import ChannelName, ProductName, TargetPath
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.swarm.session import Swarm
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import FileRecipe, Mirror, Release
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.tasks import Assignment, TaskItem, TaskItems

pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="needs nginx")]

SIZE = 2_000_003
TARGET = "stable/app/1/app.bin"


class Stock:
    """The content of a node of a test: whatever is signed has a place."""

    def __init__(self, node: Node, swarm: Swarm, made: MadeTorrent, release: Release, place: Path) -> None:
        self.identity = node
        self.node, self.swarm, self.dials = node.node, swarm, node.dials
        self.settings = MirrorSettings()
        self.room = True
        self.placed = trio.Event()
        self._made, self._release, self._place = made, release, place

    async def choose(self, targets: Iterable[str]) -> Chosen:
        return choose(targets, {self._release.target: self._release})

    @asynccontextmanager
    async def open(self, release: Release) -> AsyncIterator[Place]:
        if not self.room:
            raise Unavailable("it has no place here")
        placed = artifact(self._made, self._place)
        await self.swarm.add(placed)
        self.placed.set()
        yield Place(placed, complete=False)


class Site:
    """A vendor's server, and two nodes of which the second one dials nobody."""

    def __init__(self, url: str, sent: Callable[[], int], reader: Stock, dialled: Stock) -> None:
        self.url, self.sent, self.reader, self.dialled = url, sent, reader, dialled

    async def do(self, stock: Stock, work: ReadMirrors) -> tuple[Ended, dict[str, TaskItem]]:
        """Do the work on one of them; return how it ended, and its items."""
        found: list[TaskItems] = []

        async def say(progress: object) -> bool:
            return True

        async def room() -> None:
            return

        assignment = Assignment(task="t", run=1, not_after=2**31, work=b"")
        port = RunPort(assignment, say=say, room=room, add=found.append, key=IdentityKey.generate())  # type: ignore[arg-type]
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(port.tell)
                ended = await perform(work, port, repository=stock)
                nursery.cancel_scope.cancel()
        found += port.last_findings()  # type: ignore[arg-type]
        items = {item.subject: item for each in found for item in each.items}
        return ended, items


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "www").mkdir()
    file = tmp_path / "www" / "file"
    file.write_bytes(content(SIZE))
    made = make_torrent(file, swarm=SWARM)
    web, fleet = WebAuthority(tmp_path), authority()
    nodes = [Node(fleet, "point", "127.0.0.1"), Node(fleet, "point", "127.0.0.2", dials=False)]
    async with AsyncExitStack() as stack:
        mirror = await stack.enter_async_context(open_nginx(tmp_path / "nginx", web, file))
        release = Release(
            target=TargetPath(TARGET),
            channel=ChannelName("stable"),
            product=ProductName("app"),
            version="1",
            sequence=1,
            platform="any",
            length=made.length,
            sha256=made.sha256,
            info_hash=made.info_hash,
            recipe=FileRecipe(path="/opt/app"),
            mirrors=(Mirror(url=mirror.url),),
        )
        swarms = [await stack.enter_async_context(node.open()) for node in nodes]
        stocks = [
            Stock(node, swarm, made, release, tmp_path / node.node)
            for node, swarm in zip(nodes, swarms, strict=True)
        ]
        for stock in stocks:
            stock.settings = MirrorSettings(ca_file=web.ca_file)
        yield Site(mirror.url, lambda: mirror.sent, *stocks)


def work_of(site: Site, *targets: str) -> ReadMirrors:
    return ReadMirrors(targets=list(targets or (TARGET,)), readers=[site.reader.node])


async def test_a_release_is_read_and_each_thing_said_of(site: Site) -> None:
    ended, items = await site.do(site.reader, work_of(site))
    assert (ended.outcome, dict(ended.figures)) == (
        "done",
        {
            "artifacts": 1,
            "failed": 0,
            "bytes_from_mirrors": SIZE,
            "bytes_from_nodes": 0,
            "mirrors_dropped": 0,
        },
    )
    assert (items[TARGET].state, items[TARGET].size_bytes) == ("done", SIZE)
    assert (items[site.url].state, items[site.url].step, items[site.url].size_bytes) == ("done", "used", SIZE)


async def test_where_sites_do_not_share_each_reads_all_of_it(site: Site) -> None:
    ended, _ = await site.do(site.reader, ReadMirrors(targets=[TARGET], share="site"))
    assert (ended.outcome, ended.figures["bytes_from_mirrors"]) == ("done", SIZE)


async def test_a_node_that_may_dial_nobody_has_it_from_the_others(site: Site) -> None:
    info_hash = (await site.reader.choose([TARGET])).releases[0].info_hash
    ended = {}

    async def take_part(name: str, stock: Stock) -> None:
        ended[name] = (await site.do(stock, work_of(site)))[0]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_part, "reader", site.reader)
        nursery.start_soon(take_part, "dialled", site.dialled)
        for stock in (site.reader, site.dialled):
            await stock.placed.wait()
        site.dialled.swarm.learn([site.reader.node])
        site.reader.swarm.set_sources(info_hash, [site.dialled.identity.source(site.dialled.swarm, wan=True)])
    assert [each.outcome for each in ended.values()] == ["done", "done"]
    assert ended["dialled"].figures["bytes_from_mirrors"] == 0
    assert ended["dialled"].figures["bytes_from_nodes"] == SIZE
    assert site.sent() == SIZE


async def test_who_reads_nothing_does_not_wait_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_task, "_PASSED_ON_S", 0.2)
    ended, items = await site.do(site.dialled, work_of(site))
    assert ended.outcome == "failed"
    assert "it may dial nobody, so it reads no mirror" in items[TARGET].detail
    assert site.sent() == 0


async def test_what_has_no_room_or_is_not_signed_is_named_and_ends_nothing_else(site: Site) -> None:
    site.reader.room = False
    ended, items = await site.do(site.reader, work_of(site, TARGET, "stable/other/1/x"))
    assert ended.outcome == "failed"
    assert (items[TARGET].state, items[TARGET].detail) == ("failed", "it has no place here")
    assert items["stable/other/1/x"].state == "failed"
    site.reader.room = True
    ended, _ = await site.do(site.reader, work_of(site, TARGET, "stable/other/1/x"))
    assert (ended.outcome, ended.reason) == ("partly", "1 targets are not signed")


async def test_nothing_is_begun_when_nothing_is_signed_or_the_settings_make_no_sense(site: Site) -> None:
    with pytest.raises(UsageError, match="no signed release is"):
        await mirror_task.read_mirrors(work_of(site, "stable/none/*"), _nobody(), site.reader)
    site.reader.settings = MirrorSettings(ca_file=Path("/does/not/exist"))
    with pytest.raises(UsageError, match="cannot be read"):
        await mirror_task.read_mirrors(work_of(site), _nobody(), site.reader)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        MirrorSettings(proxy_password_file=file).read_password()
    file.chmod(0o600)
    assert MirrorSettings(proxy_password_file=file).read_password() == "secret"


def test_it_takes_the_duty_of_a_seed_and_says_its_kind_on_the_wire() -> None:
    work = ReadMirrors(targets=[TARGET])
    assert duty_of(work) == "seed"
    assert json.loads(msgspec.json.encode(work))["work"] == "read-mirrors"


def _nobody() -> RunPort:
    async def say(progress: object) -> bool:
        return False

    async def room() -> None:
        return

    assignment = Assignment(task="t", run=1, not_after=2**31, work=b"")
    return RunPort(assignment, say=say, room=room, add=lambda found: None, key=IdentityKey.generate())
