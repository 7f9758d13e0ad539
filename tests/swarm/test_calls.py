"""Calls over uTP, and everything else over TCP."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from swarm_fleet import Node, artifact, authority, content, made, wait_event

from p2pdist.ids import node_id_of
from p2pdist.swarm.session import ArtifactFinished, Swarm
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.messages import RateLimits

pytestmark = pytest.mark.slow  # connections that take their time

BYTES = 2_000_000


async def until_path(swarm: Swarm, info_hash: object, node: object) -> str:
    """Return how a node is connected, as soon as that is known."""
    with trio.fail_after(20):
        while node not in (paths := swarm.statistics(info_hash).paths):  # type: ignore[arg-type]
            await trio.sleep(0.05)
    return paths[node]  # type: ignore[index]


async def test_ordinary_connections_are_made_over_tcp(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(BYTES))
    fleet = authority()
    here, there = Node(fleet, "device", "127.71.0.1"), Node(fleet, "device", "127.71.0.2")
    async with here.open() as serving, there.open() as fetching:
        await serving.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, tmp_path / "copy"))
        fetching.set_sources(torrent.info_hash, [here.source(serving)], watched=True)
        await wait_event(fetching, ArtifactFinished)
        assert await until_path(fetching, torrent.info_hash, here.node) == "direct"


async def test_a_call_is_made_over_utp_and_what_is_dialled_after_it_over_tcp_again(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(BYTES))
    fleet = authority()
    caller, called, other = (Node(fleet, "device", f"127.71.1.{n}") for n in (1, 2, 3))
    async with caller.open() as calling, called.open() as serving, other.open() as second:
        calling.set_rates(RateLimits(site_down=200_000))
        for swarm in (serving, second):
            await swarm.add(artifact(torrent, tmp_path / "original", sealed=True))
        await calling.add(artifact(torrent, tmp_path / "copy"))
        endpoint = Endpoint(host=called.host, port=serving.port)
        calling.calls.call(torrent.info_hash, called.node, [endpoint], dials=True)
        assert await until_path(calling, torrent.info_hash, called.node) == "punched"
        calling.set_sources(torrent.info_hash, [other.source(second)], watched=True)
        assert await until_path(calling, torrent.info_hash, other.node) == "direct"


async def test_a_gateway_passes_pieces_on_before_it_has_the_artifact(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(BYTES), piece_bytes=64 * 1024)
    fleet = authority()
    source, gateway, device = (
        Node(fleet, role, f"127.71.2.{n}") for n, role in ((1, "origin"), (2, "point"), (3, "device"))
    )
    async with source.open() as origin, gateway.open() as passing, device.open() as fetching:
        origin.set_rates(RateLimits(wan_up=300_000))
        await origin.add(artifact(torrent, tmp_path / "original", sealed=True))
        await passing.add(artifact(torrent, tmp_path / "passing"))
        await fetching.add(artifact(torrent, tmp_path / "copy"))
        passing.set_sources(torrent.info_hash, [source.source(origin, wan=True)])
        fetching.set_sources(torrent.info_hash, [gateway.source(passing)])
        with trio.fail_after(20):
            while not fetching.statistics(torrent.info_hash).have:
                await trio.sleep(0.02)
        assert not passing.statistics(torrent.info_hash).complete
        await wait_event(fetching, ArtifactFinished)


@pytest.mark.slow
async def test_a_gateway_that_has_calls_made_without_end_keeps_nobody_from_fetching(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(BYTES))
    fleet = authority()
    here, there = Node(fleet, "device", "127.71.3.1"), Node(fleet, "device", "127.71.3.2")

    async def lie(swarm: Swarm) -> None:
        """Calls of nobody, and observers that are not there, for ever."""
        nobody = Endpoint(host="127.71.3.9", port=9)
        source = Endpoint(host=here.host, port=9)
        while True:
            for number in range(4):
                stranger = node_id_of(bytes([number]) * 32)
                swarm.calls.call(torrent.info_hash, stranger, [nobody, source], dials=True)
                swarm.calls.show(torrent.info_hash, [nobody], f"{number:032x}")
            await trio.sleep(0.05)

    async with here.open() as serving, there.open() as fetching, trio.open_nursery() as nursery:
        await serving.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, tmp_path / "copy"))
        nursery.start_soon(lie, fetching)
        with trio.fail_after(5):
            while not fetching.calls.holds_back():
                await trio.sleep(0.01)
        fetching.set_sources(torrent.info_hash, [here.source(serving)], watched=True)
        await wait_event(fetching, ArtifactFinished)
        assert await until_path(fetching, torrent.info_hash, here.node) == "direct"
        nursery.cancel_scope.cancel()
