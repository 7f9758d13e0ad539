"""Rate limits by time of day."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.rates import RatesTable, RateWindow, lowest_at, parse_window
from p2pdist.errors import UsageError
from p2pdist.wire.messages import RATE_WINDOW, RateLimits

NOON = 12 * 60

CLASSES = ("site_up", "site_down", "wan_up", "wan_down")


def at_noon(*limits: RateLimits) -> RateLimits:
    return lowest_at(limits, NOON)


def test_a_window_lowers_both_classes_both_ways() -> None:
    rates = RateLimits(site_up=9, wan_down=1_000, windows=["08:00-18:00 wan=500 site=7"])
    assert at_noon(rates) == RateLimits(site_up=7, site_down=7, wan_up=500, wan_down=500)


def test_a_window_for_one_class_leaves_the_other_alone() -> None:
    assert at_noon(RateLimits(windows=["08:00-18:00 site=7"])) == RateLimits(site_up=7, site_down=7)
    assert at_noon(RateLimits(windows=["08:00-18:00 wan=7"])) == RateLimits(wan_up=7, wan_down=7)


def test_the_short_form_is_for_the_wan() -> None:
    assert parse_window("08:00-18:00=500") == parse_window("08:00-18:00 wan=500")


def test_outside_its_window_a_limit_does_not_count() -> None:
    assert lowest_at([RateLimits(windows=["08:00-18:00=500"])], 18 * 60) == RateLimits()


def test_a_window_may_span_midnight() -> None:
    window = parse_window("22:00-06:00=1")
    assert window.holds(23 * 60)
    assert window.holds(5 * 60 + 59)
    assert not window.holds(6 * 60)


def test_of_several_windows_the_lowest_counts() -> None:
    assert at_noon(RateLimits(windows=["00:00-24:00=500", "11:00-13:00=200"])).wan_down == 200


def test_of_a_group_a_node_and_a_grant_the_lowest_counts() -> None:
    group, node, grant = (
        RateLimits(site_up=9, wan_up=5),
        RateLimits(wan_up=7, wan_down=100),
        RateLimits(wan_up=6),
    )
    assert at_noon(group, node, grant) == RateLimits(site_up=9, wan_up=5, wan_down=100)


@pytest.mark.parametrize(
    "text",
    [
        "", "8-18=1", "08:00-25:00=1", "08:61-09:00=1", "08:00-24:01=1", "08:00-09:00", "08:00-09:00 lan=1",
        "08:00-09:00 wan=1 wan=2", "08:00-09:00 wan=-1", "08:00-09:00=1 site=1", "08:00-09:00=1\n",
        "०८:00-09:00=1",
    ],
)  # fmt: skip
def test_a_malformed_window_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="is not a rate window") as refused:
        parse_window(text)
    assert "08:00-18:00 wan=250000" in refused.value.hint
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"windows": [text]}, RateLimits)


def test_a_table_with_a_malformed_window_is_refused_when_it_is_read() -> None:
    with pytest.raises(UsageError, match="is not a rate window"):
        RatesTable(windows=("at night",)).limits()


@given(st.text(max_size=40))
def test_any_text_is_a_window_or_a_usage_error(text: str) -> None:
    try:
        window = parse_window(text)
    except UsageError:
        return
    assert 0 <= window.start_min <= 1440
    assert 0 <= window.end_min <= 1440


@given(st.from_regex(RATE_WINDOW))
def test_whatever_may_cross_the_wire_can_be_read(text: str) -> None:
    assert isinstance(parse_window(text), RateWindow)


clocks = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
windows = st.builds(
    "{}-{}{}".format,
    clocks,
    clocks,
    st.sampled_from(["=3", " wan=40", " site=5", " wan=6 site=70", " site=8 wan=0"]),
)
rates = st.builds(
    RateLimits,
    windows=st.lists(windows, max_size=3),
    **{name: st.sampled_from([0, 1, 10, 100]) for name in CLASSES},
)


@given(st.lists(rates, max_size=3), rates, st.integers(0, 1_439))
def test_another_limit_lowers_and_never_raises(
    some: list[RateLimits], other: RateLimits, minute: int
) -> None:
    without, together = lowest_at(some, minute), lowest_at([*some, other], minute)
    for name in CLASSES:
        before, after = getattr(without, name) or 2**60, getattr(together, name) or 2**60
        assert after <= min(before, getattr(other, name) or 2**60)
    assert together == lowest_at([other, *some], minute)
    assert lowest_at([together], minute) == together
