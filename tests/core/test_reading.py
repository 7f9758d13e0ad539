"""What readers of mirrors ask for, in simulated time, with mirrors that do everything wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed, Mirrors
from p2pdist.core.reading import Reading
from p2pdist.trust.catalog import Mirror
from tests.core.simulated_mirrors import BAD, PIECE, Busy, Half, Liar, SimulatedMirror, World

URL = "https://m/f"
KINDS = st.lists(st.sampled_from(BAD), max_size=5)


def reading(pieces: int, *, reader: int = 0, readers: int = 1, urls: tuple[str, ...] = (URL,)) -> Reading:
    return Reading(
        length=pieces * PIECE,
        piece_bytes=PIECE,
        is_right=lambda piece, data: data == bytes([piece]) * PIECE,
        mirrors=Mirrors([Mirror(url=url) for url in urls]),
        reader=reader,
        readers=readers,
        now=0.0,
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(), KINDS, st.integers(1, 3), st.booleans())
def test_one_honest_mirror_is_enough_whatever_the_others_do(
    seed: int, bad: list[type[SimulatedMirror]], readers: int, connected: bool
) -> None:
    world = World(seed, [*bad, SimulatedMirror], readers=readers, connected=connected)
    assert world.run(3_600)
    for reader in world.readers:
        for each in reader.reading.mirrors.statistics():
            assert not each.lied or isinstance(world.mirrors[each.url], Liar)
        assert not reader.reading.mirrors.statistics()[-1].dropped


@settings(max_examples=40, deadline=None)
@given(st.integers(), st.integers(1, 4), st.integers(1, 3))
def test_readers_that_are_connected_read_each_piece_once_together(
    seed: int, readers: int, mirrors: int
) -> None:
    world = World(seed, [SimulatedMirror] * mirrors, readers=readers)
    assert world.run(600)
    assert world.read == world.pieces
    assert sum(mirror.sent for mirror in world.mirrors.values()) == len(world.content)


@settings(max_examples=20, deadline=None)
@given(st.integers(), st.integers(2, 3))
def test_readers_behind_slow_lines_are_not_taken_for_dead(seed: int, readers: int) -> None:
    world = World(seed, [SimulatedMirror], readers=readers, line=4)
    assert world.run(3_600)
    assert world.read == world.pieces


@settings(max_examples=20, deadline=None)
@given(st.integers(), st.integers(2, 4), st.data())
def test_the_others_read_the_part_of_one_that_does_nothing_once(
    seed: int, readers: int, data: st.DataObject
) -> None:
    world = World(seed, [SimulatedMirror], readers=readers)
    world.readers[data.draw(st.integers(0, readers - 1))].alive = False
    assert world.run(600)
    assert world.read == world.pieces


def test_readers_that_cannot_reach_each_other_read_everything_each_and_say_so() -> None:
    world = World(1, [SimulatedMirror], readers=2, connected=False)
    assert world.run(600)
    assert world.read == 2 * world.pieces
    assert sum(r.reading.statistics().taken_over for r in world.readers) == world.pieces


@settings(max_examples=30, deadline=None)
@given(st.integers())
def test_a_mirror_that_says_when_to_come_back_is_not_disturbed_before(seed: int) -> None:
    world = World(seed, [Busy, SimulatedMirror])
    assert world.run(3_600)
    busy = next(mirror for mirror in world.mirrors.values() if isinstance(mirror, Busy))
    assert busy.disturbed <= limits.MIRROR_REQUESTS_EACH_MAX  # those that were on their way


def test_a_mirror_that_serves_half_is_enough_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pdist.core.mirrors._PROGRESS_BYTES", 1)  # pieces are small here
    assert World(2, [Half]).run(3_600)


def test_a_mirror_that_lies_alone_ends_the_reading() -> None:
    world = World(3, [Liar])
    assert not world.run(600)
    assert world.readers[0].reading.is_hopeless(world.now)


def test_a_broken_request_goes_on_at_its_byte_at_another_mirror() -> None:
    other = "https://n/f"
    one = reading(1, urls=(URL, other))
    request = one.next_request(0.0)
    assert request is not None
    assert list(one.handle_bytes(request, bytes(40), 0.0, '"1"')) == []
    one.handle_ended(request, 0.0, MirrorFailed("it broke off"))
    again = one.next_request(0.0)
    assert again is not None
    assert (again.mirror.url, again.position, again.end, again.if_range) == (other, 40, PIECE, "")
    (piece,) = one.handle_bytes(again, bytes(PIECE - 40), 0.0)
    assert [tuple(part) for part in piece.parts] == [(URL, 0), (other, 40)]


def test_a_broken_request_goes_on_at_the_same_mirror_only_with_the_same_file() -> None:
    one = reading(1)
    request = one.next_request(0.0)
    assert request is not None
    assert list(one.handle_bytes(request, bytes(40), 0.0, '"1"')) == []
    one.handle_ended(request, 0.0, MirrorFailed("it broke off"))
    again = one.next_request(1.0)
    assert again is not None
    assert (again.position, again.if_range) == (40, '"1"')
    one.handle_ended(again, 1.0, MirrorFailed("its file has changed", fault="changed"))
    anew = one.next_request(3.0)
    assert anew is not None
    assert (anew.position, anew.if_range) == (0, "")


def test_bytes_beyond_the_range_are_left_out() -> None:
    one = reading(1)
    request = one.next_request(0.0)
    assert request is not None
    (piece,) = one.handle_bytes(request, bytes(PIECE + 5), 0.0)
    assert piece.data == bytes(PIECE)
    assert not one.is_wanted(request, 0.0)


def test_a_piece_that_libtorrent_was_given_and_does_not_have_is_read_again() -> None:
    one = reading(1)
    request = one.next_request(0.0)
    assert request is not None
    assert len(list(one.handle_bytes(request, bytes(PIECE), 0.0))) == 1
    assert one.handle_handed_over(0, 0.0)
    one.handle_ended(request, 0.0)
    one.handle_holdings(b"\0", b"\0", 1.0)
    assert one.next_request(1.0) is None
    one.handle_holdings(b"\0", b"\0", 11.0)
    assert one.next_request(11.0) is not None


def test_no_more_is_asked_for_than_the_disk_keeps_up_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MIRROR_UNVERIFIED_BYTES_MAX", 4 * PIECE)
    one = reading(8)
    for piece in range(4):
        request = one.next_request(0.0)
        assert request is not None
        assert len(list(one.handle_bytes(request, bytes([piece]) * PIECE, 0.0))) == 1
        assert one.handle_handed_over(piece, 0.0)
        one.handle_ended(request, 0.0)
    assert one.next_request(0.0) is None
    one.handle_holdings(b"\1" * 4 + bytes(4), bytes(8), 1.0)
    assert one.next_request(1.0) is not None


def test_what_came_through_the_swarm_meanwhile_counts_as_repeated() -> None:
    one = reading(1)
    request = one.next_request(0.0)
    assert request is not None
    one.handle_holdings(b"\1", b"\0", 1.0)
    assert len(list(one.handle_bytes(request, bytes(PIECE), 0.0))) == 1
    assert not one.handle_handed_over(0, 1.0)
    one.handle_ended(request, 1.0)
    assert (one.statistics().repeated, one.complete) == (1, True)


def test_a_piece_that_a_peer_has_is_left_to_the_swarm_until_nothing_comes_from_there() -> None:
    one = reading(1)
    one.handle_holdings(b"\0", b"\1", 1.0)
    assert one.next_request(1.0) is None
    one.handle_holdings(b"\0", b"\1", limits.MIRROR_PATIENCE_S)
    assert one.next_request(limits.MIRROR_PATIENCE_S) is not None
