"""Which way a resting device is woken: the one that has worked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.ways import Tried, WayName, Ways, after_reaching, after_trying, begins_straight

names: st.SearchStrategy[WayName] = st.sampled_from(["point", "magic", "straight"])


def test_a_point_is_asked_first_while_nothing_is_known() -> None:
    assert not begins_straight({})


def test_what_has_not_worked_gives_way_to_what_has_and_comes_back_once_it_works() -> None:
    ways: Ways = {}
    for _ in range(2):
        ways = after_reaching(after_trying(after_trying(ways, "point"), "straight"), "straight", 2_300)
    assert begins_straight(ways)
    for _ in range(20):
        ways = after_reaching(after_trying(after_trying(ways, "point"), "straight"), "point", 60)
    assert not begins_straight(ways)


def test_delays_are_smoothed() -> None:
    ways = after_reaching(after_trying({}, "point"), "point", 1_000)
    assert ways["point"].delay_ms == 1_000
    ways = after_reaching(after_trying(ways, "point"), "point", 200)
    assert ways["point"].delay_ms == 800


@given(st.lists(st.tuples(names, st.booleans(), st.integers(0, 120_000)), max_size=60))
def test_no_way_reaches_more_often_than_it_was_tried_and_counts_stay_small(
    script: list[tuple[WayName, bool, int]],
) -> None:
    ways: Ways = {}
    for way, reached, delay_ms in script:
        ways = after_trying(ways, way)
        if reached:
            ways = after_reaching(ways, way, delay_ms)
        known = ways.get(way, Tried())
        assert 0 <= known.reached <= known.tried <= 16
