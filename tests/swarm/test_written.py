"""What has come and is right is on the disk at once, and only what the disk has makes an artifact whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libtorrent as lt
import trio
from swarm_fleet import PATIENCE_S, SWARM, Node, artifact, authority, content, made

from p2pdist.ids import InfoHash
from p2pdist.swarm.alerts import AlertDesk
from p2pdist.swarm.carried import Carried
from p2pdist.swarm.ledger import NodeBook
from p2pdist.swarm.model import Artifact

SIZE = 1 << 20
VERIFIED = lt.piece_finished_alert
ALL_VERIFIED = lt.torrent_finished_alert
WRITTEN = lt.cache_flushed_alert


async def test_what_is_verified_is_on_the_disk_before_the_rest_has_come(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    half = tmp_path / "half"
    half.write_bytes(data[: SIZE // 2])
    fleet = authority()
    point, device = Node(fleet, "point", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    path = tmp_path / "fetched"
    async with point.open() as serving, device.open() as fetching:
        await serving.add(artifact(torrent, half))
        await fetching.add(artifact(torrent, path))
        fetching.set_sources(torrent.info_hash, [point.source(serving)])
        with trio.fail_after(PATIENCE_S):
            while not path.exists() or path.read_bytes()[: SIZE // 2] != data[: SIZE // 2]:
                await trio.sleep(0.02)
        assert not fetching.statistics(torrent.info_hash).complete


def test_every_batch_in_which_pieces_were_verified_has_them_written_out() -> None:
    desk = Desk()
    desk.told(VERIFIED, VERIFIED)
    assert desk.flushes == 1
    desk.told(WRITTEN)
    assert desk.flushes == 1
    desk.told(VERIFIED)
    assert desk.flushes == 2


def test_what_is_verified_while_libtorrent_is_writing_is_written_out_as_soon_as_it_is_done() -> None:
    desk = Desk()
    desk.told(VERIFIED)
    desk.told(VERIFIED)
    desk.told(VERIFIED)
    assert desk.flushes == 1
    desk.told(WRITTEN)
    assert desk.flushes == 2


def test_an_artifact_is_whole_when_it_was_written_after_its_last_piece_was_verified() -> None:
    desk = Desk()
    desk.told(VERIFIED, ALL_VERIFIED)
    assert (desk.flushes, desk.whole) == (1, False)
    desk.told(WRITTEN)
    assert desk.whole


def test_it_is_not_whole_because_of_what_was_being_written_before_its_last_piece_was_verified() -> None:
    desk = Desk()
    desk.told(VERIFIED)
    desk.told(VERIFIED, ALL_VERIFIED)
    desk.told(WRITTEN)
    assert not desk.whole
    desk.told(WRITTEN)
    assert desk.whole


def test_nothing_is_asked_of_an_artifact_that_is_being_taken_out_or_is_whole() -> None:
    leaving, whole = Desk(), Desk()
    leaving.carried.present = False
    whole.carried.complete = True
    for desk in (leaving, whole):
        desk.told(VERIFIED)
        assert desk.flushes == 0


class Desk:
    """An alert desk with one artifact. The test says what libtorrent tells it, and is the torrent, too."""

    def __init__(self) -> None:
        self.flushes = 0
        self.whole = False
        one = Artifact(
            info_hash=InfoHash("0" * 64), torrent=b"", path=Path("/nowhere"), swarm=SWARM, length=SIZE
        )
        self._handle: Any = self
        self.carried = Carried(one, self._handle, pieces=16, piece_bytes=SIZE // 16)
        self._desk = AlertDesk(
            book=NodeBook(), emit=lambda event: None, flushed=self._flushed, failed=lambda carried: None
        )
        self._desk.carry(self.carried)

    def told(self, *kinds: type) -> None:
        """One batch of alerts."""
        for kind in kinds:
            self._desk._handlers[kind](SimpleNamespace(handle=self._handle, piece_index=0))
        self._desk.read([], now=0.0)

    def flush_cache(self) -> None:
        """What a torrent's handle has."""
        self.flushes += 1

    def _flushed(self, carried: Carried) -> None:
        self.whole = True
