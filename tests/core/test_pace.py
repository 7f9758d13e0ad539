"""How often neighbours may ask a node for a sign of life."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.pace import pace_s

BEST = limits.LINK_PACES_S[0]


@pytest.mark.parametrize(("neighbours", "pace"), [(1, 3), (900, 3), (901, 6), (3_600, 12), (15_000, 20)])
def test_the_more_there_are_the_less_often_each_may_ask(neighbours: int, pace: float) -> None:
    assert pace_s(neighbours, BEST) == pace


def test_some_who_come_and_go_change_nothing() -> None:
    assert [pace_s(n, 6.0) for n in (900, 500, 451, 450)] == [6, 6, 6, 3]


@given(st.lists(st.integers(0, 30_000), min_size=1))
def test_they_never_ask_more_often_than_it_can_bear(counts: list[int]) -> None:
    pace = BEST
    for count in counts:
        pace = pace_s(count, pace)
        assert pace == limits.LINK_KEEPALIVE_S or count / pace <= limits.LINK_PACE_ASKED_PER_S
