"""A node that fetches by deltas, with content that arrives when the test says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import ChannelName, InfoHash, ProductName, TargetPath
from p2pdist.install.patch import Patch
from p2pdist.node.deltas import Deltas
from p2pdist.swarm.session import ArtifactStatistics
from p2pdist.trust.catalog import Delta, FileRecipe, Mirror, Release

BASE, WHOLE, DELTA = (InfoHash(letter * 64) for letter in "abd")
CONTENT = b"new" * 1_000


class FakeContent:
    """The swarms' side: what is wanted, and how much of it is here."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts
        self.releases: dict[InfoHash, Release] = {}
        self.done: dict[InfoHash, int] = {}
        self.rate = 0
        self.dropped: list[tuple[InfoHash, bool]] = []
        self.fails = False

    def want(self, release: Release) -> None:
        self.releases.setdefault(release.info_hash, release)

    def wanted(self) -> dict[InfoHash, Release]:
        return self.releases

    async def drop(self, info_hash: InfoHash, *, delete: bool) -> None:
        self.releases.pop(info_hash, None)
        self.dropped.append((info_hash, delete))
        if self.fails:
            raise Unavailable("the disk does not let it go")
        if delete:
            (self._artifacts / info_hash).unlink(missing_ok=True)

    async def restart(self, info_hash: InfoHash) -> None:
        release = self.releases[info_hash]
        await self.drop(info_hash, delete=True)
        self.want(release)

    def arrive(self, info_hash: InfoHash) -> None:
        (self._artifacts / info_hash).write_bytes(b"x" * self.releases[info_hash].length)
        self.done[info_hash] = self.releases[info_hash].length

    def statistics(self, info_hash: InfoHash) -> ArtifactStatistics | None:
        if info_hash not in self.releases:
            return None
        done = self.done.get(info_hash, 0)
        return ArtifactStatistics(
            have=done,
            pieces=self.releases[info_hash].length,
            bytes_done=done,
            complete=done == self.releases[info_hash].length,
            rate_down=self.rate,
            rate_up=0,
            peers=0,
            sources=(),
        )


class Home:
    """A node's directory, as far as deltas go."""

    def __init__(self, root: Path) -> None:
        self.artifacts, self.state = root / "artifacts", root / "state"
        self.artifacts.mkdir(exist_ok=True)
        self.state.mkdir(exist_ok=True)

    def artifact(self, info_hash: InfoHash) -> Path:
        return self.artifacts / info_hash


class Node:
    """One life of a node; another one on the same directory is what comes after a kill."""

    def __init__(self, root: Path, *, keeps: bool = False, point: bool = False, free: int = 2**40) -> None:
        self.home: Any = Home(root)
        self.content: Any = FakeContent(self.home.artifacts)
        self.patches: list[Patch] = []
        self.problem = ""
        self.deltas = Deltas(
            self.home,
            self.content,
            keeps=lambda info_hash: keeps,
            point=point,
            apply=self._apply,
            free_bytes=lambda: free,
        )

    async def _apply(self, patch: Patch) -> None:
        self.patches.append(patch)
        if self.problem:
            raise TrustError(self.problem)
        Path(patch.result).write_bytes(CONTENT)

    def has(self, info_hash: InfoHash, size: int) -> None:
        self.home.artifact(info_hash).write_bytes(b"x" * size)

    @property
    def wanted(self) -> set[InfoHash]:
        return set(self.content.releases)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(1_000):
            while not condition():
                await trio.sleep(0.1)


def release(**changes: Any) -> Release:
    delta = Delta(
        base=BASE,
        base_sha256="1" * 64,
        base_length=2_000,
        info_hash=DELTA,
        length=100,
        sha256="2" * 64,
        window_log=20,
        base_unpacked=2_000,
        unpacked=3_000,
    )
    fields: dict[str, Any] = {"deltas": (delta,)} | changes
    return Release(
        target=TargetPath("stable/app/2/app"),
        channel=ChannelName("stable"),
        product=ProductName("app"),
        version="2",
        sequence=2,
        platform="any",
        length=len(CONTENT),
        sha256="3" * 64,
        info_hash=WHOLE,
        recipe=FileRecipe(path="/a"),
        **fields,
    )


@pytest.fixture
async def node(tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock) -> Node:
    node = Node(tmp_path)
    nursery.start_soon(node.deltas.run)
    return node


async def test_who_has_the_base_fetches_the_delta_and_makes_the_artifact_of_it(node: Node) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    assert node.wanted == {DELTA}
    node.content.arrive(DELTA)
    node.deltas.finished()
    await node.until(lambda: WHOLE in node.wanted)
    assert node.home.artifact(WHOLE).read_bytes() == CONTENT
    assert node.deltas.note(WHOLE) == "by a delta of 100 bytes instead of 3000"
    assert node.wanted == {WHOLE, DELTA}, "the delta is served to others"
    (patch,) = node.patches
    assert (patch.length, patch.sha256) == (3_000, "3" * 64)


@pytest.mark.parametrize("size", [None, 1_999])
async def test_who_lacks_the_base_or_a_part_of_it_fetches_the_whole(node: Node, size: int | None) -> None:
    if size is not None:
        node.has(BASE, size)
    node.deltas.want(release())
    assert node.wanted == {WHOLE}


async def test_who_is_still_fetching_the_base_fetches_the_whole(node: Node) -> None:
    node.has(BASE, 2_000)
    node.content.releases[BASE] = release()
    node.deltas.want(release())
    assert WHOLE in node.wanted and DELTA not in node.wanted


async def test_a_machine_with_too_little_memory_fetches_the_whole(tmp_path: Path) -> None:
    node = Node(tmp_path, free=100_000_000)
    node.has(BASE, 2_000)
    node.deltas.want(release())
    assert node.wanted == {WHOLE}


@pytest.mark.parametrize(("point", "fetched"), [(True, WHOLE), (False, DELTA)])
async def test_a_point_fetches_whole_what_it_may_have_to_read_from_mirrors(
    tmp_path: Path, point: bool, fetched: InfoHash
) -> None:
    node = Node(tmp_path, point=point)
    node.has(BASE, 2_000)
    node.deltas.want(release(mirrors=(Mirror(url="https://vendor.example/app"),)))
    assert node.wanted == {fetched}


async def test_what_was_begun_whole_goes_on_whole(node: Node) -> None:
    node.has(BASE, 2_000)
    node.has(WHOLE, 1)
    node.deltas.want(release())
    assert node.wanted == {WHOLE}


async def test_while_a_delta_is_fetched_its_bytes_are_the_progress_and_nothing_is_complete(
    node: Node,
) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    node.content.done[DELTA] = 100
    found = node.deltas.statistics(WHOLE)
    assert found is not None and found.have == 100 and not found.complete
    assert node.deltas.whole(DELTA) == WHOLE and node.deltas.whole(BASE) == BASE


async def test_a_delta_that_cannot_be_applied_is_dropped_and_the_whole_fetched(node: Node) -> None:
    node.has(BASE, 2_000)
    node.problem = "it makes something else"
    node.deltas.want(release())
    node.content.arrive(DELTA)
    node.deltas.finished()
    await node.until(lambda: WHOLE in node.wanted)
    await node.until(lambda: (DELTA, True) in node.content.dropped)
    assert node.wanted == {WHOLE}
    assert node.deltas.note(WHOLE) == "fetched whole, the delta was not used: it makes something else"
    node.deltas.want(release())
    assert node.wanted == {WHOLE}, "and not tried again"


async def test_a_disk_that_does_not_let_a_useless_delta_go_stops_nothing(node: Node) -> None:
    node.has(BASE, 2_000)
    node.problem, node.content.fails = "it makes something else", True
    node.deltas.want(release())
    node.content.arrive(DELTA)
    await node.until(lambda: WHOLE in node.wanted)


async def test_a_delta_of_which_nothing_comes_is_given_up_after_a_while(
    node: Node, autojump_clock: trio.testing.MockClock
) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    begun = trio.current_time()
    await trio.sleep(limits.DELTA_PATIENCE_S - 5)
    node.content.done[DELTA] = 1  # something came
    await node.until(lambda: WHOLE in node.wanted)
    assert trio.current_time() - begun > 2 * limits.DELTA_PATIENCE_S - 10
    assert "nothing of it came for 60 s" in node.deltas.note(WHOLE)


async def test_a_delta_whose_first_piece_takes_long_is_waited_for(
    node: Node, autojump_clock: trio.testing.MockClock
) -> None:
    node.has(BASE, 2_000)
    node.content.rate = 900
    node.deltas.want(release())
    await trio.sleep(3 * limits.DELTA_PATIENCE_S)
    assert node.wanted == {DELTA}


async def test_a_disk_that_does_not_take_the_delta_makes_the_whole_be_fetched(node: Node) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    assert not await node.deltas.storage_failed(BASE, "no space")
    assert await node.deltas.storage_failed(DELTA, "no space")
    assert node.wanted == {WHOLE}


async def test_what_nobody_wants_any_more_is_left_with_its_delta(node: Node) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    await node.deltas.drop(WHOLE, delete=True)
    assert node.wanted == set()
    assert (DELTA, True) in node.content.dropped


async def test_a_point_keeps_the_delta_for_its_devices_when_it_needs_it_no_more(tmp_path: Path) -> None:
    node = Node(tmp_path, keeps=True)
    node.has(BASE, 2_000)
    node.deltas.want(release())
    await node.deltas.drop(WHOLE, delete=True)
    assert node.wanted == {DELTA}


async def test_bad_bytes_on_the_disk_are_fetched_again_whole(node: Node) -> None:
    node.has(BASE, 2_000)
    node.deltas.want(release())
    node.content.arrive(DELTA)
    await node.until(lambda: WHOLE in node.wanted)
    await node.deltas.restart(WHOLE)
    node.deltas.want(release())
    assert WHOLE in node.wanted and len(node.patches) == 1


async def test_after_a_kill_the_delta_that_is_here_is_used_and_leftovers_are_removed(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    before = Node(tmp_path)
    before.has(BASE, 2_000)
    before.deltas.want(release())
    before.content.arrive(DELTA)
    (tmp_path / "state" / "deltas").mkdir()
    (tmp_path / "state" / "deltas" / WHOLE).write_bytes(b"half of it")
    after = Node(tmp_path)
    nursery.start_soon(after.deltas.run)
    await after.until(lambda: not list((tmp_path / "state" / "deltas").iterdir()))
    after.deltas.want(release())
    assert after.wanted == {DELTA}
    after.content.arrive(DELTA)
    await after.until(lambda: WHOLE in after.wanted)
    assert after.home.artifact(WHOLE).read_bytes() == CONTENT


async def test_after_a_kill_the_artifact_that_was_made_is_served_with_its_delta(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.has(WHOLE, 3_000)
    node.has(DELTA, 100)
    node.deltas.want(release())
    assert node.wanted == {WHOLE, DELTA} and node.patches == []
