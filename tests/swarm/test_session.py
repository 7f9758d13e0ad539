"""Real sessions on loopback, with real certificates."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from swarm_fleet import PATIENCE_S, Node, artifact, authority, content, made, wait_event

from p2pdist.errors import Unavailable, UsageError
from p2pdist.ids import InfoHash, SwarmName
from p2pdist.swarm import carried
from p2pdist.swarm.alerts import AlertDesk
from p2pdist.swarm.session import (
    ArtifactFinished,
    ContentAltered,
    PieceRefused,
    StorageFailed,
    StrangerRefused,
    Swarm,
)
from p2pdist.swarm.tuning import SITE_SLOTS
from p2pdist.wire.frames import Role
from p2pdist.wire.messages import RateLimits

pytestmark = pytest.mark.slow  # real swarms, that take their time

SIZE = 1_000_003
SLOW = RateLimits(site_down=400_000, wan_down=400_000)
VERY_SLOW = RateLimits(site_down=100_000, wan_down=100_000)


def place(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name / "content"


def received(swarm: Swarm, info_hash: InfoHash) -> dict[str, int]:
    statistics = swarm.statistics(info_hash)
    assert statistics.unattributed == 0
    return {source.node: source.received for source in statistics.sources if source.received}


async def wait_have(swarm: Swarm, info_hash: InfoHash, pieces: int) -> None:
    with trio.fail_after(30):
        while swarm.statistics(info_hash).have < pieces:
            await trio.sleep(0.05)


async def test_a_device_fetches_an_artifact_and_every_byte_is_put_to_the_origins_account(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    path = place(tmp_path, "device")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, path))
        seeding.learn([device.node])
        fetching.set_sources(torrent.info_hash, [origin.source(seeding, wan=True)])
        assert await wait_event(fetching, ArtifactFinished) == ArtifactFinished(info_hash=torrent.info_hash)
        assert path.read_bytes() == content(SIZE)
        assert received(fetching, torrent.info_hash) == {origin.node: SIZE}
        statistics = fetching.statistics(torrent.info_hash)
        assert (statistics.complete, statistics.have, statistics.bytes_done) == (True, 16, SIZE)
        with trio.fail_after(PATIENCE_S):
            while sum(source.sent for source in seeding.statistics(torrent.info_hash).sources) < SIZE:
                await trio.sleep(0.05)  # it counts what it sends when it hears of it
        (sent,) = seeding.statistics(torrent.info_hash).sources
        assert (sent.node, sent.role, sent.sent, sent.received) == (device.node, "device", SIZE, 0)


async def test_a_device_that_knows_only_its_point_gets_the_content_through_it_while_it_is_incomplete(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, point = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    device, half = Node(fleet, "device", "127.0.0.3"), Node(fleet, "point", "127.0.0.4")
    held = place(tmp_path, "half")
    held.write_bytes(content(SIZE)[: SIZE // 2])
    async with (
        origin.open() as first,
        point.open() as second,
        device.open() as third,
        half.open() as fourth,
    ):
        await second.add(artifact(torrent, place(tmp_path, "point")))
        await third.add(artifact(torrent, place(tmp_path, "device")))
        third.set_sources(torrent.info_hash, [point.source(second)])
        await first.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fourth.add(artifact(torrent, held))
        second.set_sources(torrent.info_hash, [half.source(fourth, wan=True)])
        await wait_have(third, torrent.info_hash, 1)
        assert not second.statistics(torrent.info_hash).complete
        second.set_sources(torrent.info_hash, [origin.source(first, wan=True)])
        await wait_event(third, ArtifactFinished)
        assert received(third, torrent.info_hash) == {point.node: SIZE}


async def test_the_accounts_of_several_sources_add_up_to_the_artifact(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(4 * SIZE))
    fleet = authority()
    first, second = Node(fleet, "point", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    device = Node(fleet, "device", "127.0.0.3")
    held, rest = place(tmp_path, "beginning"), place(tmp_path, "end")
    held.write_bytes(content(4 * SIZE)[: 3 * SIZE])  # each has what the other lacks
    rest.write_bytes(bytes(SIZE) + content(4 * SIZE)[SIZE:])
    async with first.open() as one, second.open() as two, device.open() as fetching:
        await one.add(artifact(torrent, held))
        await two.add(artifact(torrent, rest))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [first.source(one), second.source(two)])
        await wait_event(fetching, ArtifactFinished)
        statistics = fetching.statistics(torrent.info_hash)
        assert {source.node for source in statistics.sources} == {first.node, second.node}
        assert sum(source.received for source in statistics.sources) + statistics.unattributed == 4 * SIZE


async def test_of_a_small_artifact_from_several_sources_every_byte_is_in_somebodys_account(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE // 4))
    fleet = authority()
    sources = [Node(fleet, "point", f"127.0.0.{number}") for number in range(1, 5)]
    device = Node(fleet, "device", "127.0.0.9")
    async with AsyncExitStack() as stack:
        open_sources = [(node, await stack.enter_async_context(node.open())) for node in sources]
        fetching = await stack.enter_async_context(device.open())
        for _, swarm in open_sources:
            swarm.learn([device.node])
            await swarm.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [node.source(swarm) for node, swarm in open_sources])
        await wait_event(fetching, ArtifactFinished)
        with trio.fail_after(PATIENCE_S):
            while fetching.statistics(torrent.info_hash).unattributed:
                await trio.sleep(0.05)
            came = received(fetching, torrent.info_hash)
            assert sum(came.values()) == torrent.length
            for node, swarm in open_sources:  # which count what they send when they hear of it
                while came.get(node.node, 0) > sum(
                    source.sent for source in swarm.statistics(torrent.info_hash).sources
                ):
                    await trio.sleep(0.05)


@pytest.mark.slow
async def test_the_accounts_survive_reconnections(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_rates(SLOW)
        for pieces in (2, 4):
            fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
            await wait_have(fetching, torrent.info_hash, pieces)
            fetching.set_sources(torrent.info_hash, [])
            with trio.fail_after(10):
                while fetching.statistics(torrent.info_hash).peers:
                    await trio.sleep(0.05)
        assert not fetching.statistics(torrent.info_hash).complete
        fetching.set_rates(RateLimits())
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(fetching, ArtifactFinished)
        assert received(fetching, torrent.info_hash) == {origin.node: SIZE}


async def test_a_partial_file_is_read_through_and_only_the_rest_is_fetched(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    path = place(tmp_path, "device")
    damaged = bytearray(data[: 10 * torrent.piece_bytes])
    damaged[3 * torrent.piece_bytes + 7] ^= 1
    path.write_bytes(damaged)
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, path))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(fetching, ArtifactFinished)
        assert path.read_bytes() == data
        assert received(fetching, torrent.info_hash) == {origin.node: SIZE - 9 * torrent.piece_bytes}


async def test_a_complete_file_is_finished_without_any_source(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    device = Node(authority(), "device", "127.0.0.2")
    async with device.open() as swarm:
        await swarm.add(artifact(torrent, tmp_path / "original"))
        await wait_event(swarm, ArtifactFinished)
        assert swarm.statistics(torrent.info_hash).complete


async def test_bytes_altered_on_a_sources_disk_are_refused_and_the_source_is_named(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    bad, good = Node(fleet, "point", "127.0.0.1"), Node(fleet, "origin", "127.0.0.2")
    device = Node(fleet, "device", "127.0.0.3")
    altered, path = place(tmp_path, "bad"), place(tmp_path, "device")
    altered.write_bytes(data)
    async with bad.open() as lying, good.open() as seeding, device.open() as fetching:
        await lying.add(artifact(torrent, altered))
        await wait_event(lying, ArtifactFinished)
        altered.write_bytes(bytes(SIZE))
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, path))
        fetching.set_sources(torrent.info_hash, [bad.source(lying)])
        refused = await wait_event(fetching, PieceRefused)
        assert isinstance(refused, PieceRefused)
        assert (refused.info_hash, refused.source) == (torrent.info_hash, bad.node)
        assert fetching.statistics(torrent.info_hash).have == 0
        fetching.set_sources(torrent.info_hash, [bad.source(lying), good.source(seeding, wan=True)])
        await wait_event(fetching, ArtifactFinished)
        assert path.read_bytes() == data
        assert received(fetching, torrent.info_hash) == {good.node: SIZE}
        assert fetching.statistics(torrent.info_hash).refused_bytes > 0


@pytest.mark.slow
async def test_an_honest_node_that_sent_parts_of_a_refused_piece_is_never_named(tmp_path: Path) -> None:
    data = content(2_000_000)
    path = tmp_path / "original"
    path.write_bytes(data)
    torrent = made(tmp_path, data, piece_bytes=1 << 20)
    fleet = authority()
    bad, good = Node(fleet, "point", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    device = Node(fleet, "device", "127.0.0.3")
    altered = place(tmp_path, "bad")
    altered.write_bytes(data)
    async with bad.open() as lying, good.open() as honest, device.open() as fetching:
        await lying.add(artifact(torrent, altered))
        await wait_event(lying, ArtifactFinished)
        altered.write_bytes(bytes(len(data)))
        await honest.add(artifact(torrent, path, sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        for swarm in (lying, honest):
            swarm.set_rates(RateLimits(site_up=600_000))
        fetching.set_sources(torrent.info_hash, [bad.source(lying), good.source(honest)])
        refused = await wait_event(fetching, PieceRefused)
        while isinstance(refused, PieceRefused):
            assert refused.source in (None, bad.node)
            assert bad.node in refused.suspects
            for swarm in (lying, honest):
                swarm.set_rates(RateLimits())
            refused = await wait_event(fetching, PieceRefused, ArtifactFinished)


async def test_a_sealed_file_that_was_altered_is_not_served_and_not_mended(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    altered = tmp_path / "original"
    altered.write_bytes(bytes(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, altered, sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        event = await wait_event(seeding, ContentAltered)
        assert isinstance(event, ContentAltered)
        assert event.info_hash == torrent.info_hash
        assert str(altered) in event.reason
        assert not seeding.statistics(torrent.info_hash).complete
        assert fetching.statistics(torrent.info_hash).have == 0
        assert altered.read_bytes() == bytes(SIZE)


@pytest.mark.parametrize("dialled", [True, False], ids=["dialled", "dials"])
@pytest.mark.parametrize("kind", ["other fleet", "other swarm", "no swarm", "expired"])
async def test_a_stranger_gets_no_byte_and_gives_none(tmp_path: Path, kind: str, dialled: bool) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    member = Node(fleet, "origin", "127.0.0.1")
    stranger = {
        "other fleet": lambda: Node(authority(), "device", "127.0.0.2", trusts=fleet),
        "other swarm": lambda: Node(
            fleet, "device", "127.0.0.2", swarms=[SwarmName("beta.acme.swarm.p2pdist.internal")]
        ),
        "no swarm": lambda: Node(fleet, "device", "127.0.0.2", swarms=[]),
        "expired": lambda: Node(fleet, "device", "127.0.0.2", expired=True),
    }[kind]()
    async with member.open() as inside, stranger.open() as outside:
        await inside.add(artifact(torrent, tmp_path / "original", sealed=True))
        await outside.add(artifact(torrent, place(tmp_path, "stranger")))
        if dialled:
            inside.set_sources(torrent.info_hash, [stranger.source(outside)])
        else:
            outside.set_sources(torrent.info_hash, [member.source(inside)])
        event = await wait_event(inside, StrangerRefused)
        assert isinstance(event, StrangerRefused)
        assert event.address == "127.0.0.2"
        assert "certificate" in event.reason
        assert inside.statistics(torrent.info_hash).sources == ()
        assert outside.statistics(torrent.info_hash).have == 0


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"GET / HTTP/1.1\r\n\r\n", "TLS"), (b"\x13BitTorrent protocol" + bytes(48), "TLS")],
    ids=["http", "plain bittorrent"],
)
async def test_a_client_that_does_not_speak_tls_is_turned_away(
    tmp_path: Path, sent: bytes, reason: str
) -> None:
    torrent = made(tmp_path, content(SIZE))
    member = Node(authority(), "origin", "127.0.0.1")
    async with member.open() as inside:
        await inside.add(artifact(torrent, tmp_path / "original", sealed=True))
        stream = await trio.open_tcp_stream("127.0.0.1", inside.port)
        async with stream:
            await stream.send_all(sent)
            event = await wait_event(inside, StrangerRefused)
    assert isinstance(event, StrangerRefused)
    assert reason in event.reason


async def test_a_tls_client_without_a_certificate_is_turned_away(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    member = Node(authority(), "origin", "127.0.0.1")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with member.open() as inside:
        await inside.add(artifact(torrent, tmp_path / "original", sealed=True))
        # libtorrent takes the first 40 digits of the info-hash for the server's name.
        for name in (torrent.info_hash[:40], None):
            stream = await trio.open_tcp_stream("127.0.0.1", inside.port)
            encrypted = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
            with pytest.raises(trio.BrokenResourceError):
                await encrypted.receive_some(1)
            await trio.aclose_forcefully(encrypted)
        event = await wait_event(inside, StrangerRefused)
    assert isinstance(event, StrangerRefused)
    assert "no certificate" in event.reason


async def test_a_sealed_file_that_is_cut_short_while_it_is_served_counts_as_altered(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        fetching.set_rates(VERY_SLOW)
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_have(fetching, torrent.info_hash, 1)
        os.truncate(tmp_path / "original", SIZE // 4)
        fetching.set_rates(RateLimits())
        await wait_event(seeding, ContentAltered)
        assert not fetching.statistics(torrent.info_hash).complete
        assert (tmp_path / "original").read_bytes() == content(SIZE)[: SIZE // 4]


@pytest.mark.slow
async def test_a_file_that_is_cut_short_while_it_is_served_is_fetched_again_and_serves_on(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, point = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "point", "127.0.0.2")
    device, held, fetched = Node(fleet, "device", "127.0.0.3"), place(tmp_path, "point"), place(tmp_path, "d")
    async with origin.open() as first, point.open() as second, device.open() as third:
        await first.add(artifact(torrent, tmp_path / "original", sealed=True))
        await second.add(artifact(torrent, held))
        second.set_sources(torrent.info_hash, [origin.source(first, wan=True)])
        await wait_event(second, ArtifactFinished)
        third.set_rates(VERY_SLOW)
        await third.add(artifact(torrent, fetched))
        third.set_sources(torrent.info_hash, [point.source(second)])
        await wait_have(third, torrent.info_hash, 1)
        os.truncate(held, SIZE // 4)
        third.set_rates(RateLimits())
        await wait_event(second, StorageFailed)
        await wait_event(third, ArtifactFinished)
        assert fetched.read_bytes() == content(SIZE)
        await wait_event(second, ArtifactFinished)
        assert held.read_bytes() == content(SIZE)


@pytest.mark.slow
async def test_a_renewed_certificate_lets_a_node_in(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin = Node(fleet, "origin", "127.0.0.1")
    late = Node(fleet, "device", "127.0.0.2", expired=True)
    async with origin.open() as seeding, late.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(seeding, StrangerRefused)
        fetching.set_identity(late.issue(), late.key.private_pem())
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(fetching, ArtifactFinished)


@pytest.mark.slow
async def test_a_connection_does_not_outlive_its_certificate_for_longer_than_until_the_next_reconnection(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        fetching.set_rates(VERY_SLOW)
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_have(fetching, torrent.info_hash, 1)
        fetching.set_identity(device.issue(expired=True), device.key.private_pem())
        had = fetching.statistics(torrent.info_hash).have
        await wait_have(fetching, torrent.info_hash, had + 1)  # the open connection stays
        seeding.reconnect()
        event = await wait_event(seeding, StrangerRefused)
        assert isinstance(event, StrangerRefused)
        assert "not valid now" in event.reason
        assert not fetching.statistics(torrent.info_hash).complete


async def test_an_asked_for_artifact_that_is_not_here_makes_nobody_a_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned_away = trio.Event()
    judge = AlertDesk._handshake_failed

    def watch(desk: AlertDesk, alert: Any) -> None:
        judge(desk, alert)
        if alert.endpoint[0] == "127.0.0.2":
            turned_away.set()

    monkeypatch.setattr(AlertDesk, "_handshake_failed", watch)
    here = made(tmp_path, content(SIZE))
    elsewhere = made(tmp_path, content(SIZE, seed=1))
    (tmp_path / "original").write_bytes(content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    other = Node(fleet, "device", "127.0.0.3", expired=True)
    async with origin.open() as seeding, device.open() as asking, other.open() as late:
        await seeding.add(artifact(here, tmp_path / "original", sealed=True))
        await asking.add(artifact(elsewhere, place(tmp_path, "device")))
        asking.set_sources(elsewhere.info_hash, [origin.source(seeding)])
        await late.add(artifact(here, place(tmp_path, "late")))
        with trio.fail_after(PATIENCE_S):
            await turned_away.wait()
        late.set_sources(here.info_hash, [origin.source(seeding)])
        event = await wait_event(seeding, StrangerRefused)
        assert isinstance(event, StrangerRefused)
        assert event.address == "127.0.0.3"


@pytest.mark.slow
async def test_a_limited_uplink_is_not_exceeded(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        seeding.set_rates(RateLimits(wan_up=400_000))
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        started = trio.current_time()
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(fetching, ArtifactFinished)
        assert trio.current_time() - started > 1.5


async def test_an_artifact_is_removed_with_its_file_or_without(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    device = Node(authority(), "device", "127.0.0.2")
    path = place(tmp_path, "device")
    async with device.open() as swarm:
        for delete in (False, True):
            path.write_bytes(content(SIZE))
            await swarm.add(artifact(torrent, path))
            await wait_event(swarm, ArtifactFinished)
            await swarm.remove(torrent.info_hash, delete=delete)
            assert path.exists() is not delete
            with pytest.raises(UsageError):
                swarm.statistics(torrent.info_hash)


async def test_what_makes_no_sense_is_refused_with_a_hint(tmp_path: Path) -> None:
    torrent = made(tmp_path, content(SIZE))
    device = Node(authority(), "device", "127.0.0.2")
    (tmp_path / "long").write_bytes(bytes(SIZE + 1))
    (tmp_path / "link").symlink_to(tmp_path / "original")
    (tmp_path / "short").write_bytes(bytes(5))
    async with device.open() as swarm:
        for path, sealed in (
            (tmp_path / "long", False),
            (tmp_path / "link", False),
            (tmp_path, False),
            (tmp_path / "missing" / "content", False),
            (tmp_path / "absent", True),
            (tmp_path / "short", True),
        ):
            with pytest.raises(UsageError) as caught:
                await swarm.add(artifact(torrent, path, sealed=sealed))
            assert caught.value.hint
        await swarm.add(artifact(torrent, tmp_path / "original"))
        with pytest.raises(UsageError):
            await swarm.add(artifact(torrent, tmp_path / "original"))
        with pytest.raises(UsageError):
            swarm.set_sources(InfoHash("0" * 64), [])
        with pytest.raises(UsageError):
            await swarm.remove(InfoHash("0" * 64), delete=False)


async def test_a_port_in_use_is_reported() -> None:
    device = Node(authority(), "device", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Unavailable, match="listen"):
            async with device.open(port=taken.getsockname()[1]):
                raise AssertionError("it must not open")


async def test_an_error_in_the_block_leaves_as_it_is() -> None:
    device = Node(authority(), "device", "127.0.0.1")
    with pytest.raises(ZeroDivisionError):
        async with device.open():
            raise ZeroDivisionError


async def test_the_events_end_with_the_swarm() -> None:
    device = Node(authority(), "device", "127.0.0.1")
    async with device.open() as swarm:
        events = swarm.events()
    assert [event async for event in events] == []


@pytest.mark.slow
async def test_connections_outlive_completeness_for_the_slower_side_and_close_when_nothing_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "IDLE_S", 2.0)
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    async with origin.open() as seeding, device.open() as fetching:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, place(tmp_path, "device")))
        fetching.set_sources(torrent.info_hash, [origin.source(seeding)])
        await wait_event(fetching, ArtifactFinished)
        with trio.fail_after(PATIENCE_S):
            while not seeding.statistics(torrent.info_hash).peers:
                await trio.sleep(0.05)
            while any(swarm.statistics(torrent.info_hash).peers for swarm in (seeding, fetching)):
                await trio.sleep(0.05)
        late = Node(fleet, "device", "127.0.0.3")
        async with late.open() as fetching_late:
            await fetching_late.add(artifact(torrent, place(tmp_path, "late")))
            fetching_late.set_sources(torrent.info_hash, [device.source(fetching)])
            await wait_event(fetching_late, ArtifactFinished)


@pytest.mark.slow
async def test_a_point_serves_few_devices_at_a_time_and_all_of_them_also_where_they_cannot_reach_each_other(
    tmp_path: Path,
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    point = Node(fleet, "point", "127.0.0.1")
    devices = [Node(fleet, "device", f"127.0.0.{number}") for number in range(2, 2 + SITE_SLOTS + 2)]
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(point.open())
        serving.learn([device.node for device in devices])
        serving.set_rates(RateLimits(site_up=SIZE // 4))
        await serving.add(artifact(torrent, tmp_path / "original", sealed=True))
        fetching = [await stack.enter_async_context(device.open()) for device in devices]
        for number, swarm in enumerate(fetching):
            await swarm.add(artifact(torrent, place(tmp_path, str(number))))
            swarm.set_sources(torrent.info_hash, [point.source(serving)])

        def begun() -> int:
            return sum(swarm.statistics(torrent.info_hash).have > 0 for swarm in fetching)

        with trio.fail_after(PATIENCE_S):
            while serving.statistics(torrent.info_hash).peers < len(devices) or not begun():
                await trio.sleep(0.05)
        assert begun() <= SITE_SLOTS
        serving.set_rates(RateLimits())
        for swarm in fetching:
            await wait_event(swarm, ArtifactFinished)


@pytest.mark.parametrize("role", ["device", "point"])
async def test_a_certificate_and_sources_may_come_while_an_artifact_is_being_taken_out(
    tmp_path: Path, role: Role
) -> None:
    torrent = made(tmp_path, content(SIZE))
    fleet = authority()
    origin, node = Node(fleet, "origin", "127.0.0.1"), Node(fleet, role, "127.0.0.2")
    async with origin.open() as seeding, node.open() as leaving, trio.open_nursery() as nursery:
        await leaving.add(artifact(torrent, place(tmp_path, "device")))
        out = trio.Event()

        async def leave() -> None:
            await leaving.remove(torrent.info_hash, delete=True)
            out.set()

        nursery.start_soon(leave)
        while not out.is_set():
            leaving.set_identity(node.issue(), node.key.private_pem())
            with contextlib.suppress(UsageError):
                leaving.set_sources(torrent.info_hash, [origin.source(seeding)])
            await trio.lowlevel.checkpoint()


async def test_a_node_that_does_not_dial_fetches_from_whoever_dials_it(tmp_path: Path) -> None:
    ours = authority()
    torrent = made(tmp_path, content(500_000))
    origin, point = Node(ours, "origin", "127.0.9.1"), Node(ours, "point", "127.0.9.2", dials=False)
    async with origin.open() as serving, point.open() as fetching:
        await serving.add(artifact(torrent, tmp_path / "original", sealed=True))
        await fetching.add(artifact(torrent, tmp_path / "copy"))
        source = msgspec.structs.replace(origin.source(serving), dialled=False)
        fetching.set_sources(torrent.info_hash, [source])
        await trio.sleep(1.5)  # libtorrent dials once a second
        assert fetching.statistics(torrent.info_hash).peers == 0
        serving.set_sources(torrent.info_hash, [point.source(fetching)])
        await wait_event(fetching, ArtifactFinished)
        serving.reconnect()
        await trio.sleep(1.5)
        assert dialled_from(point.host) == set()


def dialled_from(host: str) -> set[int]:
    """The ports of connections that begin at an address which nobody else uses, whatever their state."""
    ours = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = {line[1] for line in lines if line[3] == "0A"}
    local = {line[1] for line in lines if line[1].startswith(ours)}
    return {int(each.partition(":")[2], 16) for each in local - listening}
