"""Rate limits by time of day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.rates import parse_window, rates_at, within_grant
from p2pdist.errors import UsageError
from p2pdist.wire.messages import RateLimits

NOON = 12 * 60


def test_a_window_lowers_the_wan_limits_and_leaves_the_site_alone() -> None:
    rates = RateLimits(site_up=9, wan_up=0, wan_down=1_000, windows=["08:00-18:00=500"])
    now = rates_at(rates, NOON)
    assert (now.site_up, now.wan_up, now.wan_down, now.windows) == (9, 500, 500, [])


def test_outside_its_window_a_limit_does_not_count() -> None:
    assert rates_at(RateLimits(windows=["08:00-18:00=500"]), 18 * 60).wan_up == 0


def test_a_window_may_span_midnight() -> None:
    window = parse_window("22:00-06:00=1")
    assert window.holds(23 * 60)
    assert window.holds(5 * 60 + 59)
    assert not window.holds(6 * 60)


def test_of_several_windows_the_lowest_counts() -> None:
    assert rates_at(RateLimits(windows=["00:00-24:00=500", "11:00-13:00=200"]), NOON).wan_down == 200


def test_a_seed_grant_lowers_the_wan_limits_and_never_raises_them() -> None:
    assert within_grant(RateLimits(site_up=9, wan_up=0, wan_down=100), 500) == RateLimits(
        site_up=9, wan_up=500, wan_down=100
    )
    assert within_grant(RateLimits(wan_up=7), 0) == RateLimits(wan_up=7)


def test_a_limit_below_the_window_stays() -> None:
    assert rates_at(RateLimits(wan_up=100, windows=["00:00-24:00=500"]), NOON).wan_up == 100


@pytest.mark.parametrize(
    "text", ["", "8-18=1", "08:00-25:00=1", "08:61-09:00=1", "08:00-24:01=1", "08:00-09:00"]
)
def test_a_malformed_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_window(text)


@given(st.text(max_size=40))
def test_any_text_is_a_window_or_a_usage_error(text: str) -> None:
    try:
        window = parse_window(text)
    except UsageError:
        return
    assert 0 <= window.start_min <= 1440
    assert 0 <= window.end_min <= 1440
