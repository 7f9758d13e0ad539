"""What a distribution point does about its disk."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import trio
import trio.testing

from p2pdist.ids import ChannelName, GroupPath, InfoHash, ProductName, TargetPath, node_id_of
from p2pdist.seed.stock import Situation, Stock, StockStatistics
from p2pdist.trust.catalog import Catalog, Delta, FileRecipe, Release, SeedGrant
from p2pdist.wire.messages import DesiredState

MIB = 1 << 20
HASH = InfoHash("a" * 64)
TARGET = TargetPath("stable/app/1/f")
SECOND_HASH = InfoHash("c" * 64)
DELTA_HASH = InfoHash("d" * 64)
SECOND = TargetPath("stable/other/1/f")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Disk:
    """What the operating system says of the disk; a test changes it."""

    def __init__(self) -> None:
        self.free = 0
        self.fails = False
        self.looked_at: list[float] = []
        self._looked = trio.Event()

    async def until_looked_at(self, times: int) -> None:
        while len(self.looked_at) < times:
            await self._looked.wait()

    def _note(self) -> None:
        self.looked_at.append(trio.current_time())
        self._looked.set()
        self._looked = trio.Event()

    def usage(self, _path: Path) -> Usage:
        trio.from_thread.run_sync(self._note)
        if self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return Usage(100 * MIB, 100 * MIB - self.free, self.free)


class Contents:
    """The content plane as the stock sees it."""

    def __init__(self) -> None:
        self.wanted: set[InfoHash] = set()
        self.dropped: list[InfoHash] = []
        self.no_room: frozenset[InfoHash] = frozenset()
        self.changed = trio.Event()
        self.told = 0

    def want(self, release: Release) -> None:
        self.wanted.add(release.info_hash)
        self._changes()

    async def drop(self, info_hash: InfoHash, *, delete: bool) -> None:
        assert delete
        self.wanted.discard(info_hash)
        self.dropped.append(info_hash)
        self._changes()

    def set_no_room(self, info_hashes: frozenset[InfoHash]) -> None:
        self.told += 1
        self.no_room = info_hashes
        self._changes()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()

    def _changes(self) -> None:
        self.changed.set()
        self.changed = trio.Event()


class Home:
    """A node's directory, as far as artifacts go."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts

    def artifact(self, info_hash: InfoHash) -> Path:
        return self.artifacts / info_hash


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(shutil, "disk_usage", disk.usage)
    return disk


def signed(target: TargetPath, info_hash: InfoHash) -> Release:
    return Release(
        target=target,
        channel=ChannelName("stable"),
        product=ProductName("app"),
        version="1",
        sequence=1,
        platform="any",
        length=10 * MIB,
        sha256="0" * 64,
        info_hash=info_hash,
        recipe=FileRecipe(path="/etc/x"),
    )


def situation(
    *,
    prefetch: tuple[TargetPath, ...] = (TARGET,),
    keep: tuple[TargetPath, ...] = (),
    left_out: tuple[str, ...] = (),
    disk_bytes: int = 0,
) -> Situation:
    grant = SeedGrant(
        node=node_id_of(b"p" * 32),
        duties=("seed",),
        scope=GroupPath("/"),
        addresses=(),
        expires=2**33,
        disk_bytes=disk_bytes,
    )
    catalog = Catalog(
        releases={TARGET: signed(TARGET, HASH), SECOND: signed(SECOND, SECOND_HASH)},
        grants={grant.node: grant},
        channels=(),
        versions={},
        expires=2**33,
        left_out=dict.fromkeys(left_out, "it has expired"),
    )
    desired = DesiredState(
        revision=1, group="/", swarms=[], deployments=[], prefetch=list(prefetch), keep=list(keep)
    )
    return Situation(desired=desired, catalog=catalog, grant=grant, own=frozenset())


def stock_of(tmp_path: Path, content: Any, current: Callable[[], Situation] = situation) -> Stock:
    home: Any = Home(tmp_path)
    return Stock(home, content, quota_bytes=0, situation=current)


async def test_what_did_not_fit_is_fetched_when_the_disk_has_room_again_although_nobody_says_so(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    content = Contents()
    stock = stock_of(tmp_path, content)
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.no_room == {HASH})
    assert not stock.needs(HASH)
    assert not content.wanted
    disk.free = 50 * MIB
    await content.until(lambda: content.wanted == {HASH})
    assert content.no_room == frozenset()
    assert stock.needs(HASH)


async def test_a_disk_that_stays_full_is_looked_at_more_and_more_rarely(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    stock = stock_of(tmp_path, Contents())
    nursery.start_soon(stock.run)
    stock.look()
    await disk.until_looked_at(12)
    gaps = [round(after - before) for before, after in zip(disk.looked_at, disk.looked_at[1:], strict=False)]
    assert gaps[:4] == [2, 4, 8, 16]
    assert gaps[8:11] == [120, 120, 120]


async def test_an_artifact_whose_disk_fills_up_while_it_is_fetched_makes_room_and_is_taken_up_again(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    content = Contents()
    stock = stock_of(tmp_path, content)
    disk.free = 50 * MIB
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.wanted == {HASH})
    disk.free = 0
    stock.look()  # the swarm says that a write failed
    await content.until(lambda: content.no_room == {HASH} and not content.wanted)
    disk.free = 50 * MIB
    await content.until(lambda: content.wanted == {HASH} and not content.no_room)


def with_delta(before: Situation) -> Situation:
    """The same, with a delta of the first release that is as large as what it stands for."""
    delta = Delta(
        base=SECOND_HASH,
        base_sha256="0" * 64,
        base_length=10 * MIB,
        info_hash=DELTA_HASH,
        length=10 * MIB,
        sha256="0" * 64,
        window_log=25,
        base_unpacked=10 * MIB,
        unpacked=10 * MIB,
    )
    releases = dict(before.catalog.releases)
    releases[TARGET] = msgspec.structs.replace(releases[TARGET], deltas=(delta,))
    catalog = msgspec.structs.replace(before.catalog, releases=releases)
    return msgspec.structs.replace(before, catalog=catalog)


@pytest.mark.parametrize(
    ("disk_bytes", "fetched"),
    [(35 * MIB, {HASH, SECOND_HASH, DELTA_HASH}), (25 * MIB, {HASH, SECOND_HASH})],
)
async def test_deltas_are_fetched_for_the_scope_where_all_artifacts_have_room(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, disk_bytes: int, fetched: set[InfoHash]
) -> None:
    disk.free = 90 * MIB
    content = Contents()
    current = with_delta(situation(prefetch=(TARGET, SECOND), disk_bytes=disk_bytes))
    stock = stock_of(tmp_path, content, lambda: current)
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.wanted == fetched)
    assert content.no_room == {HASH, SECOND_HASH, DELTA_HASH} - fetched


async def test_what_is_to_be_kept_is_not_fetched_but_served_when_it_is_there(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery
) -> None:
    disk.free = 50 * MIB
    content = Contents()
    stock = stock_of(tmp_path, content, lambda: situation(prefetch=(), keep=(TARGET,)))
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.told == 1)
    assert not content.wanted
    (tmp_path / HASH).touch()
    stock.look()
    await content.until(lambda: content.wanted == {HASH})


@pytest.mark.parametrize(("left_out", "stays"), [((), False), (("stable/x/1/f",), False), (("beta",), True)])
async def test_what_nobody_signs_goes_unless_it_may_be_of_a_channel_that_has_expired(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, left_out: tuple[str, ...], stays: bool
) -> None:
    disk.free = 50 * MIB
    content = Contents()
    other = InfoHash("b" * 64)
    (tmp_path / other).write_bytes(b"of a channel that is not in the catalog")
    content.wanted.add(other)
    stock = stock_of(tmp_path, content, lambda: situation(left_out=left_out))
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.told == 1)
    assert (other in content.wanted) == stays


async def test_a_grant_limits_the_space_and_what_is_there_and_needed_stays(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery
) -> None:
    disk.free = 50 * MIB
    content = Contents()
    needed = [TARGET]
    now = lambda: situation(prefetch=tuple(needed), disk_bytes=15 * MIB)  # noqa: E731 (one of two artifacts)
    stock = stock_of(tmp_path, content, now)
    nursery.start_soon(stock.run)
    with trio.fail_after(20):
        stock.look()
        await content.until(lambda: content.wanted == {HASH})
        (tmp_path / HASH).touch()
        needed.insert(0, SECOND)  # more urgent
        stock.look()
        await content.until(lambda: content.no_room == {SECOND_HASH})
        assert stock.needs(HASH)
        assert HASH not in content.dropped
        needed.remove(TARGET)
        stock.look()
        await content.until(lambda: content.wanted == {SECOND_HASH})
        assert HASH in content.dropped
        assert content.no_room == frozenset()


async def test_a_file_that_goes_while_the_disk_is_measured_is_not_missed(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery
) -> None:
    disk.free = 50 * MIB
    (tmp_path / SECOND_HASH).symlink_to(tmp_path / "gone")  # it is listed, and cannot be looked at
    content = Contents()
    stock = stock_of(tmp_path, content)
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: HASH in content.wanted)


async def test_a_disk_that_fails_is_looked_at_again_and_ends_nothing(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    disk.free, disk.fails = 50 * MIB, True
    content = Contents()
    stock = stock_of(tmp_path, content)
    nursery.start_soon(stock.run)
    stock.look()
    await disk.until_looked_at(3)
    disk.fails = False
    await content.until(lambda: content.wanted == {HASH})


async def test_what_was_asked_for_last_stays_and_names_that_nobody_signed_are_not_remembered(
    tmp_path: Path, disk: Disk, nursery: trio.Nursery
) -> None:
    disk.free = 50 * MIB
    content = Contents()
    room = [0]
    stock = stock_of(tmp_path, content, lambda: situation(prefetch=(), disk_bytes=room[0]))
    for info_hash in (HASH, SECOND_HASH):
        (tmp_path / info_hash).touch()
    nursery.start_soon(stock.run)
    stock.look()
    await content.until(lambda: content.wanted == {HASH, SECOND_HASH})
    for number in range(1_000):
        stock.used(InfoHash(f"{number:064x}"))
    stock.used(SECOND_HASH)
    assert stock.statistics() == StockStatistics(remembered=1, refused=0)
    room[0] = 15 * MIB
    stock.look()
    await content.until(lambda: content.wanted == {SECOND_HASH})
