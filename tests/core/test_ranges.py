"""Ranges and gaps against a plain set of numbers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.ranges import Gaps, Ranges
from p2pdist.errors import PeerError

RANGE = st.tuples(st.integers(0, 40), st.integers(0, 40))


@given(st.lists(st.tuples(st.booleans(), RANGE)))
def test_ranges_hold_what_was_put_in_and_not_taken_out(changes: list[tuple[bool, tuple[int, int]]]) -> None:
    ranges = Ranges()
    numbers: set[int] = set()
    for put, (start, stop) in changes:
        if put:
            ranges.add(start, stop)
            numbers |= set(range(start, stop))
        else:
            ranges.remove(start, stop)
            numbers -= set(range(start, stop))
        found = list(ranges)
        assert {number for a, b in found for number in range(a, b)} == numbers
        assert all(b < c for (_, b), (c, _) in pairwise(found))
        assert ranges.first() == (found[0] if found else None)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10))))
def test_what_came_in_any_order_and_more_than_once_is_taken_whole(pieces: list[tuple[int, int]]) -> None:
    stream = bytes(range(50))
    gaps = Gaps(50)
    for offset, length in pieces:
        gaps.put(offset, stream[offset : offset + length])
    there = {number for offset, length in pieces for number in range(offset, min(50, offset + length))}
    first = min(there, default=0)
    stop = next(number for number in range(first, 52) if number not in there)
    assert gaps.take(first) == stream[first:stop]
    assert gaps.take(first) == b""


def test_too_many_gaps_are_refused() -> None:
    gaps = Gaps(2)
    gaps.put(0, b"a")
    gaps.put(2, b"c")
    with pytest.raises(PeerError):
        gaps.put(4, b"e")
