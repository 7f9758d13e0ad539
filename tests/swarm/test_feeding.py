"""Pieces that come from mirrors, given to real sessions."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from swarm_fleet import PATIENCE_S, SWARM, Node, artifact, authority, content, made, wait_event

from p2pdist.errors import UsageError
from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.session import ArtifactFinished, ArtifactStatistics, PieceRefused, Swarm
from p2pdist.swarm.torrents import MadeTorrent, PieceHashes
from p2pdist.wire.messages import RateLimits

pytestmark = pytest.mark.slow  # real swarms, that take their time

KIB = 1024
SIZE = 1_000_003
MIRROR, OTHER = NodeId("m" * 32), NodeId("n" * 32)


def hashes_of(torrent: MadeTorrent) -> PieceHashes:
    return PieceHashes(torrent.torrent, swarm=SWARM)


def feed(swarm: Swarm, torrent: MadeTorrent, data: bytes, pieces: Iterable[int]) -> None:
    size = torrent.piece_bytes
    for piece in pieces:
        swarm.feeding.feed(torrent.info_hash, piece, data[piece * size : (piece + 1) * size], [(MIRROR, 0)])


async def ready(swarm: Swarm, torrent: MadeTorrent) -> None:
    """Wait until the artifact can be fed."""
    with trio.fail_after(PATIENCE_S):
        while await swarm.feeding.holdings(torrent.info_hash) is None:
            await trio.sleep(0.01)


def received(statistics: ArtifactStatistics) -> dict[str, int]:
    found = {f"{each.role} {each.node[0]}": each.received for each in statistics.sources if each.received}
    return {**found, "?": statistics.unattributed} if statistics.unattributed else found


async def wait_accounted(swarm: Swarm, info_hash: InfoHash, total: int) -> dict[str, int]:
    """Wait until the word on the last blocks is there."""
    with trio.fail_after(PATIENCE_S):
        while sum(each.received for each in swarm.statistics(info_hash).sources) < total:
            await trio.sleep(0.05)
    return received(swarm.statistics(info_hash))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 300 * KIB) | st.sampled_from([64 * KIB, 128 * KIB, 64 * KIB + 1, 64 * KIB - 1]), st.data()
)
def test_a_piece_is_right_when_it_is_the_signed_one(
    tmp_path_factory: pytest.TempPathFactory, length: int, data: st.DataObject
) -> None:
    whole = content(length, seed=length)
    torrent = made(tmp_path_factory.mktemp("made"), whole)
    hashes, size = hashes_of(torrent), torrent.piece_bytes
    piece = data.draw(st.integers(0, -(-length // size) - 1))
    right = whole[piece * size : (piece + 1) * size]
    assert hashes.is_right(piece, right)
    at = data.draw(st.integers(0, len(right) - 1))
    assert not hashes.is_right(piece, right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
    assert not hashes.is_right(piece, right[:-1])
    assert not hashes.is_right(piece, right + b"\0")
    assert not hashes.is_right(piece + 1, right)


async def test_an_artifact_is_fed_and_every_byte_is_in_the_mirrors_account(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    async with Node(authority(), "point", "127.0.0.1").open() as swarm:
        await swarm.add(artifact(torrent, tmp_path / "content"))
        await ready(swarm, torrent)
        feed(swarm, torrent, data, range(16))
        await wait_event(swarm, ArtifactFinished)
        assert (tmp_path / "content").read_bytes() == data
        statistics = swarm.statistics(torrent.info_hash)
        assert received(statistics) == {"mirror m": SIZE}
        assert (statistics.complete, statistics.have, statistics.bytes_done) == (True, 16, SIZE)


async def test_parts_of_a_piece_are_in_the_accounts_of_the_mirrors_that_sent_them(tmp_path: Path) -> None:
    data = content(64 * KIB)
    torrent = made(tmp_path, data)
    async with Node(authority(), "point", "127.0.0.1").open() as swarm:
        await swarm.add(artifact(torrent, tmp_path / "content"))
        await ready(swarm, torrent)
        swarm.feeding.feed(torrent.info_hash, 0, data, [(MIRROR, 0), (OTHER, 20 * KIB)])
        await wait_event(swarm, ArtifactFinished)
        # A block belongs to who sent its first byte.
        assert received(swarm.statistics(torrent.info_hash)) == {"mirror m": 32 * KIB, "mirror n": 32 * KIB}


async def test_what_comes_from_a_mirror_and_from_the_origin_at_once_is_all_accounted_for(
    tmp_path: Path,
) -> None:
    data = content(4_000_000)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, point = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    async with origin.open() as seeding, point.open() as fetching:
        seeding.set_rates(RateLimits(wan_up=2_000_000, site_up=2_000_000))
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, tmp_path / "content"))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding, wan=True)])
        with trio.fail_after(PATIENCE_S):
            while fetching.statistics(torrent.info_hash).have < 5:
                await trio.sleep(0.02)
        feed(fetching, torrent, data, range(62))
        event = await wait_event(fetching, ArtifactFinished, PieceRefused)
        assert isinstance(event, ArtifactFinished)
        accounts = await wait_accounted(fetching, torrent.info_hash, len(data))
        assert set(accounts) == {f"origin {origin.node[0]}", "mirror m"}
        assert sum(accounts.values()) == len(data)


async def test_two_points_that_are_fed_half_each_get_the_other_half_from_each_other(tmp_path: Path) -> None:
    data = content(2_000_000)
    torrent = made(tmp_path, data)
    fleet = authority()
    nodes = [Node(fleet, "point", f"127.0.0.{host}") for host in (1, 2)]
    async with AsyncExitStack() as stack:
        swarms = [await stack.enter_async_context(node.open()) for node in nodes]
        for number, swarm in enumerate(swarms):
            await swarm.add(artifact(torrent, tmp_path / str(number)))
        for own, other in ((0, 1), (1, 0)):
            await ready(swarms[own], torrent)
            swarms[own].set_sources(torrent.info_hash, [nodes[other].source(swarms[other])])
            feed(swarms[own], torrent, data, range(own, 31, 2))
        for own, other in ((0, 1), (1, 0)):
            await wait_event(swarms[own], ArtifactFinished)
            accounts = received(swarms[own].statistics(torrent.info_hash))
            assert sum(accounts.values()) == len(data)
            assert set(accounts) == {"mirror m", f"point {nodes[other].node[0]}"}


async def test_holdings_say_what_is_here_and_what_peers_have(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, point = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    async with origin.open() as seeding, point.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, tmp_path / "content"))
        fetching.set_rates(RateLimits(wan_down=1_000, site_down=1_000))
        await ready(fetching, torrent)
        feed(fetching, torrent, data, [3])
        fetching.set_sources(torrent.info_hash, [origin.source(seeding, wan=True)])
        with trio.fail_after(PATIENCE_S):
            while True:
                holdings = await fetching.feeding.holdings(torrent.info_hash)
                if holdings is not None and holdings.held[3] and all(holdings.elsewhere):
                    break
                await trio.sleep(0.05)
        assert len(holdings.held) == len(holdings.elsewhere) == 16
        whole = await seeding.feeding.holdings(torrent.info_hash)
        assert whole is not None
        assert whole.held == b"\1" * 16


async def test_what_is_not_in_the_swarm_cannot_be_fed(tmp_path: Path) -> None:
    async with Node(authority(), "point", "127.0.0.1").open() as swarm:
        with pytest.raises(UsageError, match="not in the swarm"):
            swarm.feeding.feed(InfoHash("a" * 64), 0, b"", [(MIRROR, 0)])
        with pytest.raises(UsageError, match="not in the swarm"):
            await swarm.feeding.holdings(InfoHash("a" * 64))
