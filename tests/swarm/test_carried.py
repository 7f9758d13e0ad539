"""When an artifact counts as stuck: bytes were refused, and then nothing comes from whoever is connected."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from swarm_fleet import SWARM

from p2pdist.ids import InfoHash
from p2pdist.swarm.carried import STUCK_S, Carried
from p2pdist.swarm.model import Artifact

PEER = b"-PD1Daaaaaaaaaaaaaaa"


@pytest.fixture
def carried() -> Carried:
    artifact = Artifact(
        info_hash=InfoHash("0" * 64), torrent=b"", path=Path("/nowhere"), swarm=SWARM, length=1 << 16
    )
    handle: Any = None
    return Carried(artifact, handle, pieces=4, piece_bytes=1 << 14)


def seen(carried: Carried, *, come: int, peers: int = 1) -> None:
    status: Any = SimpleNamespace(total_payload_download=come, num_peers=peers)
    carried.status = status


def refuse(carried: Carried, piece: int) -> None:
    carried.ledger.block_requested(PEER, piece, 0)
    carried.ledger.piece_failed(piece)


def test_silence_after_a_refused_piece_is_told_once(carried: Carried) -> None:
    refuse(carried, 0)
    seen(carried, come=100)
    assert not carried.is_stuck(0.0)
    assert not carried.is_stuck(STUCK_S - 0.1)
    assert carried.is_stuck(STUCK_S)
    assert not carried.is_stuck(STUCK_S * 10)


def test_another_refused_piece_and_another_silence_are_told_again(carried: Carried) -> None:
    refuse(carried, 0)
    seen(carried, come=100)
    assert [carried.is_stuck(now) for now in (0.0, STUCK_S)] == [False, True]
    refuse(carried, 1)
    seen(carried, come=200)
    assert [carried.is_stuck(now) for now in (50.0, 50.0 + STUCK_S)] == [False, True]


def test_silence_alone_is_the_networks_fault(carried: Carried) -> None:
    seen(carried, come=100)
    assert not any(carried.is_stuck(now) for now in (0.0, STUCK_S, 100 * STUCK_S))


def test_bytes_that_come_and_sources_that_are_away_are_not_stuck(carried: Carried) -> None:
    refuse(carried, 0)
    for second in range(60):
        seen(carried, come=second)
        assert not carried.is_stuck(float(second))
    seen(carried, come=59, peers=0)
    assert not carried.is_stuck(1_000.0)
