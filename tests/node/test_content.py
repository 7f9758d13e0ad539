"""What a node makes of the tracker's decisions, with a swarm that only keeps what it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from p2pdist.errors import Unavailable
from p2pdist.ids import ChannelName, FleetName, InfoHash, NodeId, ProductName, TargetPath, swarm_of
from p2pdist.node.content import Content
from p2pdist.swarm.session import Artifact, ArtifactStatistics, Source
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.catalog import FileRecipe, Release
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import Call, Candidate, Dialler, Endpoint, Observe, Role, Sources
from p2pdist.wire.requests import Torrent, TorrentRequest
from tests.node.nodes import Nodes

SWARM = swarm_of(ChannelName("stable"), FleetName("acme"))
POINT, SPARE, MATE = (IdentityKey.generate().node for _ in range(3))


class SwarmCalls:
    """Keeps to whom datagrams would go."""

    def __init__(self) -> None:
        self.shown: list[Endpoint] = []
        self.called: list[NodeId] = []

    def show(self, info_hash: InfoHash, observers: Sequence[Endpoint], token: str) -> None:
        self.shown += observers

    def call(self, info_hash: InfoHash, node: NodeId, endpoints: Sequence[Endpoint], *, dials: bool) -> None:
        self.called.append(node)


class Swarm:
    """Says of everything that nothing of it is here."""

    def __init__(self) -> None:
        self.calls = SwarmCalls()
        self.added = trio.Event()
        self.sources: Sequence[Source] = ()
        self.reconnected = 0

    def reconnect(self) -> None:
        self.reconnected += 1

    async def add(self, artifact: Artifact) -> None:
        self.added.set()

    def learn(self, nodes: Sequence[NodeId]) -> None:
        pass

    def set_sources(self, info_hash: InfoHash, sources: Sequence[Source], *, watched: bool = False) -> None:
        self.sources = sources

    def statistics(self, info_hash: InfoHash) -> ArtifactStatistics:
        return ArtifactStatistics(
            have=0, pieces=1, bytes_done=0, complete=False, rate_down=0, rate_up=0, peers=0, sources=()
        )


def release(made: MadeTorrent) -> Release:
    return Release(
        target=TargetPath("stable/app/1.0/app.bin"),
        channel=ChannelName("stable"),
        product=ProductName("app"),
        version="1.0",
        sequence=1,
        platform="any",
        length=made.length,
        sha256=made.sha256,
        info_hash=made.info_hash,
        recipe=FileRecipe(path="/opt/app.bin"),
    )


def candidate(node: NodeId, role: Role, dial: Dialler = "either") -> Candidate:
    return Candidate(
        node=node, role=role, host="192.0.2.1", port=7881, taken=True, reason="same site", dial=dial
    )


class Fetching:
    """A node that takes part in one artifact, and what it thinks of others."""

    def __init__(self, nodes: Nodes, directory: Path, role: Role) -> None:
        self.swarm = Swarm()
        self.objections: dict[str, str] = {}
        self.dials = True
        (directory / "original").write_bytes(b"content" * 1_000)
        self.made = make_torrent(directory / "original", swarm=SWARM)
        swarm: Any = self.swarm
        self.content = Content(
            nodes.home(directory / "home", swarms=[SWARM]),
            swarm,
            role=role,
            ask=self._ask,
            judge=lambda candidate: self.objections.get(candidate.node),
            alternative=lambda node: node == SPARE,
            way=lambda source: (source.host, source.port),
            on_change=lambda: None,
            dials=lambda: self.dials,
        )

    @property
    def sources(self) -> dict[NodeId, bool]:
        """Whom the swarm was told to fetch from, and whether that crosses the WAN."""
        return {source.node: source.wan for source in self.swarm.sources}

    def tell(self, *candidates: Candidate) -> None:
        """The tracker decides."""
        self.content.set_sources(Sources(info_hash=self.made.info_hash, candidates=list(candidates)))

    async def _ask(self, request: TorrentRequest) -> Torrent:
        return Torrent(torrent=self.made.torrent)


@asynccontextmanager
async def fetching(nodes: Nodes, directory: Path, role: Role = "device") -> AsyncIterator[Fetching]:
    one = Fetching(nodes, directory, role)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.content.run)
        one.content.want(release(one.made))
        await one.swarm.added.wait()
        await trio.testing.wait_all_tasks_blocked()
        yield one
        nursery.cancel_scope.cancel()


async def test_a_source_that_may_not_serve_any_more_is_dropped_without_a_word_of_the_tracker(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path) as one:
        one.tell(candidate(POINT, "point"), candidate(MATE, "device"))
        assert set(one.sources) == {POINT, MATE}
        one.objections[POINT] = "its grant has run out"
        one.content.judge_again()
        assert set(one.sources) == {MATE}
        report = one.content.report(one.made.info_hash)
        assert report is not None
        assert {c.node: c.reason for c in report.candidates if not c.taken} == {
            POINT: "its grant has run out"
        }


async def test_a_source_that_may_serve_again_is_taken_again(nodes: Nodes, tmp_path: Path) -> None:
    async with fetching(nodes, tmp_path) as one:
        one.objections[POINT] = "it has no grant yet"
        one.tell(candidate(POINT, "point"))
        assert one.sources == {}
        del one.objections[POINT]
        one.content.judge_again()
        assert set(one.sources) == {POINT}


async def test_the_last_source_is_dropped_too_when_it_may_not_serve_any_more(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path) as one:
        one.tell(candidate(POINT, "point"))
        one.objections[POINT] = "its grant has run out"
        one.content.judge_again()
        assert one.sources == {}


async def test_a_tracker_that_knows_nobody_yet_takes_no_source_away(nodes: Nodes, tmp_path: Path) -> None:
    async with fetching(nodes, tmp_path) as one:
        one.tell(candidate(POINT, "point"))
        one.content.introduced_anew()
        one.tell()
        assert set(one.sources) == {POINT}


@pytest.mark.parametrize("silent", [False, True])
async def test_connections_are_opened_anew_when_the_link_before_fell_silent(
    nodes: Nodes, tmp_path: Path, silent: bool
) -> None:
    async with fetching(nodes, tmp_path) as one:
        one.content.introduced_anew(after_silence=silent)
        assert one.swarm.reconnected == silent


async def test_a_point_of_the_same_scope_is_in_the_site_and_others_are_across_the_wan(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        one.tell(candidate(POINT, "point"), candidate(SPARE, "point"), candidate(MATE, "device"))
        assert one.sources == {POINT: True, SPARE: False, MATE: False}


async def test_points_that_came_later_are_expected_to_dial_and_devices_are_only_known(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        one.tell(candidate(POINT, "point"))
        one.tell(candidate(POINT, "point"), candidate(SPARE, "point"), candidate(MATE, "device"))
        assert {source.node: source.expected for source in one.swarm.sources} == {POINT: False, SPARE: True}


async def test_who_was_there_before_is_dialled_at_once_also_when_it_may_serve_only_later(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        one.objections[POINT] = "it has no grant yet"
        one.tell(candidate(POINT, "point"), candidate(SPARE, "point"))
        del one.objections[POINT]
        one.content.judge_again()
        assert {source.node: source.expected for source in one.swarm.sources} == {POINT: False, SPARE: False}


async def test_what_is_being_fetched_is_waited_for(nodes: Nodes, tmp_path: Path) -> None:
    one = Fetching(nodes, tmp_path, "device")
    assert one.content.unfinished() == {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.content.run)
        one.content.want(release(one.made))
        await one.content.wait_unfinished()
        assert one.content.unfinished() == {one.made.info_hash: 0}
        nursery.cancel_scope.cancel()


def dialling(one: Fetching) -> dict[NodeId, tuple[bool, bool]]:
    """Whom the swarm may dial, and whether it waits for their call first."""
    return {source.node: (source.dialled, source.expected) for source in one.swarm.sources}


async def test_who_dials_is_the_trackers_word(nodes: Nodes, tmp_path: Path) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        one.tell()
        one.tell(candidate(POINT, "point", "receiver"), candidate(SPARE, "point", "source"))
        assert dialling(one) == {POINT: (True, False), SPARE: (False, False)}


async def test_a_node_that_is_dialled_dials_nobody_whatever_the_tracker_says(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        one.dials = False
        one.tell(candidate(POINT, "point", "receiver"), candidate(SPARE, "point"))
        assert dialling(one) == {POINT: (False, False), SPARE: (False, False)}
        assert one.content.waits_for_calls()


async def test_who_is_below_and_dials_nobody_is_dialled_beside_the_sources_above(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path, "point") as one:
        below = [candidate(POINT, "point", "receiver"), candidate(MATE, "device")]
        one.content.set_below(Sources(info_hash=one.made.info_hash, candidates=below))
        assert dialling(one) == {POINT: (True, False)}
        one.tell(candidate(SPARE, "point"))
        assert set(dialling(one)) == {POINT, SPARE}


async def test_only_who_is_to_be_called_is_called_and_only_other_machines_are_shown_to(
    nodes: Nodes, tmp_path: Path
) -> None:
    async with fetching(nodes, tmp_path) as one:
        info_hash, gateway = one.made.info_hash, "198.51.100.1"
        met = msgspec.structs.replace(candidate(MATE, "device"), path="punched")
        one.tell(met, candidate(POINT, "point"))
        good, bad = Endpoint(host="203.0.113.1", port=7602), Endpoint(host="127.0.0.1", port=22)
        for node, endpoint in ((MATE, bad), (POINT, good), (MATE, good)):
            frame = Call(info_hash=info_hash, node=node, endpoints=[endpoint], dials=True, attempt=1)
            one.content.summoned.call(frame, gateway)
        assert one.swarm.calls.called == [MATE]
        for endpoint in (bad, good):
            one.content.summoned.observe(
                Observe(info_hash=info_hash, observers=[endpoint], token="0" * 32), gateway
            )
        assert one.swarm.calls.shown == [good]


async def test_a_torrent_that_the_disk_does_not_give_back_is_waited_for_and_ends_nothing(
    nodes: Nodes, tmp_path: Path, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    one = Fetching(nodes, tmp_path, "device")
    place = nodes.home(tmp_path / "home", swarms=[SWARM]).torrent(one.made.info_hash)
    place.mkdir()
    nursery.start_soon(one.content.run)
    one.content.want(release(one.made))
    await trio.sleep(10)
    assert not one.swarm.added.is_set()
    place.rmdir()
    await one.swarm.added.wait()
    assert place.read_bytes() == one.made.torrent


async def test_an_artifact_that_the_disk_does_not_let_go_is_an_error_of_ours(
    nodes: Nodes, tmp_path: Path
) -> None:
    one = Fetching(nodes, tmp_path, "device")
    home = nodes.home(tmp_path / "home", swarms=[SWARM])
    home.artifact(one.made.info_hash).mkdir()
    with pytest.raises(Unavailable, match="could not be deleted"):
        await one.content.drop(one.made.info_hash, delete=True)
    home.artifact(one.made.info_hash).rmdir()
    await one.content.drop(one.made.info_hash, delete=True)
