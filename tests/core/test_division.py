"""Whose each piece is."""

from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.division import Division, place_among
from p2pdist.ids import NodeId


@given(st.integers(1, 500), st.sampled_from([64, 256, 4096]), st.integers(1, 6), st.data())
def test_each_piece_is_read_by_exactly_one_of_those_who_are_left(
    pieces: int, piece_kib: int, readers: int, data: st.DataObject
) -> None:
    given_up = data.draw(st.sets(st.integers(0, readers - 1), max_size=readers - 1))
    read: list[int] = []
    for reader in set(range(readers)) - given_up:
        division = Division(pieces, piece_kib * limits.KIB, readers=readers, reader=reader)
        division.given_up |= given_up
        mine = list(chain.from_iterable([*division.runs(reader), *division.runs_taken_over()]))
        assert all(division.owner_now(piece) == reader for piece in mine)
        read += mine
    assert sorted(read) == list(range(pieces))


@given(st.integers(1, 2_000), st.integers(16, 22), st.integers(1, 6))
def test_a_run_is_one_request_at_most(pieces: int, exponent: int, readers: int) -> None:
    division = Division(pieces, 2**exponent, readers=readers, reader=0)
    for run in division.every_run():
        assert 0 < len(run) * 2**exponent <= limits.MIRROR_RANGE_BYTES_MAX


def test_parts_are_about_the_same_size() -> None:
    for readers in (2, 3, 5):
        division = Division(400, 64 * limits.KIB, readers=readers, reader=0)
        sizes = [sum(map(len, division.runs(reader))) for reader in range(readers)]
        assert max(sizes) - min(sizes) <= 400 / readers / 10


def test_everybody_counts_the_readers_the_same_way() -> None:
    a, b, c = (NodeId(letter * 32) for letter in "abc")
    assert place_among([c, a], b) == (1, 3)
    assert place_among([b, a, c], c) == (2, 3)
    assert place_among([], a) == (0, 1)
