"""One artifact in the session: whom it dials when, when it counts as stuck, and what may not be asked of it
while it leaves."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import libtorrent as lt
import msgspec
import pytest
from swarm_fleet import SWARM

from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.alerts import BATCH_S, LAST_BATCH_S, AlertDesk
from p2pdist.swarm.calls import FAMILY_S, Call
from p2pdist.swarm.carried import PATIENCE_S, STUCK_S, Carried
from p2pdist.swarm.ledger import NodeBook
from p2pdist.swarm.model import Artifact, Source, SwarmEvent
from p2pdist.wire.frames import Endpoint

PEER = b"-PD1Daaaaaaaaaaaaaaa"


class Handle:
    """Writes down what a torrent is told to do."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def connect_peer(self, address: tuple[str, int]) -> None:
        self.told.append(f"dial {address[0]}")

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


@pytest.fixture
def handle() -> Handle:
    return Handle()


@pytest.fixture
def carried(handle: Handle) -> Carried:
    return made(handle)


def made(handle: Any, *, fresh: bool = False) -> Carried:
    artifact = Artifact(
        info_hash=InfoHash("0" * 64), torrent=b"", path=Path("/nowhere"), swarm=SWARM, length=1 << 16
    )
    return Carried(artifact, handle, pieces=4, piece_bytes=1 << 14, fresh=fresh)


def source(host: str, *, expected: bool = False) -> Source:
    return Source(node=NodeId("a" * 32), role="point", host=host, port=7602, expected=expected)


def test_a_source_is_dialled_at_once_and_one_that_is_expected_only_when_it_lets_us_wait(
    carried: Carried, handle: Handle
) -> None:
    carried.sources = (source("192.0.2.1"), source("192.0.2.2", expected=True))
    carried.dial(carried.sources, 100.0)
    assert handle.told == ["dial 192.0.2.1"]
    assert carried.is_moving()
    carried.dial_overdue(100.0 + PATIENCE_S - 0.1)
    assert handle.told == ["dial 192.0.2.1"]
    carried.dial_overdue(100.0 + PATIENCE_S)
    carried.dial_overdue(100.0 + 2 * PATIENCE_S)
    assert handle.told == ["dial 192.0.2.1", "dial 192.0.2.2"]


def test_of_one_that_is_to_be_called_one_address_is_dialled_or_none_while_it_is_expected_to_dial(
    carried: Carried, handle: Handle
) -> None:
    endpoints = (Endpoint(host="2001:db8::1", port=7602), Endpoint(host="192.0.2.3", port=7602))
    called = msgspec.structs.replace(source("192.0.2.9"), path="punched", endpoints=endpoints)
    carried.dial([called], 0.0)
    assert handle.told == ["dial 2001:db8::1"]
    expected = msgspec.structs.replace(called, expected=True)
    carried.sources = (expected,)
    carried.dial([expected], 0.0)
    assert handle.told == ["dial 2001:db8::1"]
    carried.dial_overdue(PATIENCE_S)
    assert handle.told == ["dial 2001:db8::1"] * 2


def test_a_call_goes_to_one_address_first_then_to_both_and_nowhere_once_somebody_answers(
    carried: Carried,
) -> None:
    endpoints = (Endpoint(host="2001:db8::1", port=7602), Endpoint(host="192.0.2.3", port=7602))
    call = Call(carried=carried, node=NodeId("a" * 32), endpoints=endpoints, dials=True, begun=100.0)
    assert call.dialled(100.0) == endpoints[:1]
    assert call.dialled(100.0 + FAMILY_S) == endpoints
    carried.answering = {"192.0.2.3"}
    assert call.dialled(100.0 + FAMILY_S) == ()


def test_hearing_of_an_expected_source_again_does_not_put_it_off(carried: Carried, handle: Handle) -> None:
    carried.sources = (source("192.0.2.2", expected=True),)
    carried.dial(carried.sources, 0.0)
    carried.dial(carried.sources, PATIENCE_S / 2)
    carried.dial_overdue(PATIENCE_S)
    assert handle.told == ["dial 192.0.2.2"]


def test_an_expected_source_that_is_none_any_more_is_not_dialled(carried: Carried, handle: Handle) -> None:
    carried.sources = (source("192.0.2.2", expected=True),)
    carried.dial(carried.sources, 0.0)
    carried.sources = ()
    carried.dial_overdue(PATIENCE_S)
    assert handle.told == []


def test_an_artifact_that_nobody_knows_of_yet_is_started_again_with_its_first_sources(handle: Handle) -> None:
    carried = made(handle, fresh=True)
    carried.dial([source("192.0.2.2", expected=True)], 0.0)
    assert handle.told == []
    carried.dial([source("192.0.2.1")], 0.0)
    assert handle.told == ["dial 192.0.2.1", "pause", "resume"]
    carried.dial([source("192.0.2.3")], 0.0)
    assert handle.told[3:] == ["dial 192.0.2.3"]


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


@pytest.mark.parametrize(("have", "complete", "hurried"), [(0, False, True), (4, True, False)])
def test_alerts_gather_for_a_shorter_time_where_the_last_pieces_are_awaited(
    carried: Carried, have: int, complete: bool, hurried: bool
) -> None:
    desk = AlertDesk(
        book=NodeBook(), emit=lambda event: None, flushed=lambda carried: None, failed=lambda carried: None
    )
    desk.carry(carried)
    carried.have, carried.complete = have, complete
    assert desk.batch_s() == (LAST_BATCH_S if hurried else BATCH_S)


class Gone:
    """A handle whose torrent has been taken out: whatever is asked of it fails, as libtorrent's does."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was used of an artifact that is being taken out")


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        (lt.torrent_finished_alert, {}),
        (lt.state_changed_alert, {"state": lt.torrent_status.states.checking_files}),
        (lt.state_update_alert, {"status": [SimpleNamespace(num_pieces=4, num_peers=1)]}),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_what_is_still_told_of_an_artifact_that_is_being_taken_out_asks_nothing_of_it(
    kind: type, alert: dict[str, Any], sealed: bool
) -> None:
    handle: Any = Gone()
    artifact = Artifact(
        info_hash=InfoHash("0" * 64), torrent=b"", path=Path("/nowhere"), swarm=SWARM, length=1, sealed=sealed
    )
    carried = Carried(artifact, handle, pieces=1, piece_bytes=1 << 14)
    carried.present = False
    carried.ledger.block_requested(PEER, 0, 0)
    carried.ledger.block_requested(b"-PD1Dbbbbbbbbbbbbbbb", 0, 0)
    carried.ledger.piece_verified(0)
    assert carried.ledger.in_doubt
    told: list[SwarmEvent] = []
    desk = AlertDesk(
        book=NodeBook(), emit=told.append, flushed=lambda carried: None, failed=lambda carried: None
    )
    desk.carry(carried)
    for status in alert.get("status", []):
        status.handle = handle
    desk._handlers[kind](SimpleNamespace(handle=handle, **alert))
    assert carried.idle_at() == math.inf
