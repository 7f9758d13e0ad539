"""When a task is due."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.schedules import next_time
from p2pdist.errors import UsageError

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def test_it_is_due_at_the_next_moment_that_the_line_names() -> None:
    assert next_time("30 2 * * 1-5", BERLIN, at("2026-11-27 02:30")) == at("2026-11-30 02:30")
    assert next_time("*/15 * * * *", "UTC", at("2026-11-27 02:31", "UTC")) == at("2026-11-27 02:45", "UTC")


def test_an_hour_that_is_skipped_is_made_up_for_and_one_that_is_twice_counts_once() -> None:
    assert next_time("30 2 * * *", BERLIN, at("2027-03-28 00:00")) == at("2027-03-28 03:00")
    first = next_time("30 2 * * *", BERLIN, at("2027-10-31 00:00"))
    assert first is not None
    assert next_time("30 2 * * *", BERLIN, first) == at("2027-11-01 02:30")


@given(st.integers(0, 2**32))
def test_what_is_due_is_always_later(after: int) -> None:
    found = next_time("7 */3 * * *", BERLIN, after)
    assert found is not None
    assert after < found <= after + 4 * 3_600


@pytest.mark.parametrize(
    ("schedule", "zone"), [("", "UTC"), ("hourly", "UTC"), ("61 * * * *", "UTC"), ("0 0 31 2 *", "UTC"),
                           ("* * * * *", "Mars/Base"), ("* * * * *", "../etc/passwd"), ("* * * * *", "")]
)  # fmt: skip
def test_what_is_no_schedule_is_refused(schedule: str, zone: str) -> None:
    with pytest.raises(UsageError):
        next_time(schedule, zone, 0)


@given(st.text(max_size=40), st.text(max_size=20))
def test_nothing_but_a_refusal_comes_of_garbage(schedule: str, zone: str) -> None:
    try:
        next_time(schedule, zone, 1_800_000_000)
    except UsageError:
        return
