"""Which mirror is asked next, and when one that failed is asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed, Mirrors, account_of, parse_retry_after, server_of
from p2pdist.ids import parse_node_id
from p2pdist.trust.catalog import Mirror

A, B, C = "https://a/f", "https://b/f", "https://c/f"
NOON = 1_800_000_000.0


def of(*mirrors: Mirror | str, region: str = "") -> Mirrors:
    return Mirrors([Mirror(url=m) if isinstance(m, str) else m for m in mirrors], region=region)


def chosen(mirrors: Mirrors, now: float = 0.0) -> str | None:
    found = mirrors.choose(now)
    return found.url if found else None


def fail(mirrors: Mirrors, url: str, now: float, error: MirrorFailed | None = None, count: int = 0) -> None:
    mirrors.handle_begun(url)
    mirrors.handle_failed(url, error or MirrorFailed("it is away"), count=count, now=now)


def done(mirrors: Mirrors, url: str, count: int, seconds: float = 1.0) -> None:
    mirrors.handle_begun(url)
    mirrors.handle_done(url, count=count, seconds=seconds)


def test_the_lowest_priority_is_asked_first() -> None:
    assert chosen(of(Mirror(url=A, priority=20), Mirror(url=B, priority=10))) == B


def test_a_mirror_of_the_readers_region_comes_first_and_one_of_another_region_last() -> None:
    far = Mirror(url=A, priority=1, region="us")
    anywhere, near = Mirror(url=B, priority=2), Mirror(url=C, priority=3, region="eu")
    assert chosen(of(far, anywhere, near, region="eu")) == C
    assert chosen(of(far, anywhere, region="eu")) == B
    assert chosen(of(far, anywhere, near)) == A


def test_of_equals_the_fastest_is_asked_once_both_are_measured() -> None:
    mirrors = of(A, B)
    done(mirrors, A, 1_000)
    assert chosen(mirrors) == B
    done(mirrors, B, 2_000)
    assert chosen(mirrors) == B
    for _ in range(20):
        done(mirrors, A, 4_000)
    assert chosen(mirrors) == A


def test_the_next_mirror_is_asked_beside_one_that_has_as_many_requests_as_it_may() -> None:
    mirrors = of(Mirror(url=A, priority=1), B)
    for _ in range(limits.MIRROR_REQUESTS_EACH_MAX):
        assert chosen(mirrors) == A
        mirrors.handle_begun(A)
    assert chosen(mirrors) == B


def test_a_mirror_many_times_slower_than_the_best_is_not_asked_while_that_one_can_be() -> None:
    mirrors = of(Mirror(url=A, priority=1), B)
    done(mirrors, A, 100)
    done(mirrors, B, 1_000)
    assert chosen(mirrors) == B
    fail(mirrors, B, now=0.0)
    assert chosen(mirrors) == A


def test_a_request_many_times_slower_than_the_best_mirror_is_given_up_after_a_while() -> None:
    mirrors = of(A, B)
    assert mirrors.is_wanted(A, count=0, seconds=60.0, now=0.0)
    done(mirrors, B, 1_000_000)
    assert mirrors.is_wanted(A, count=0, seconds=1.0, now=0.0)
    assert not mirrors.is_wanted(A, count=0, seconds=4.0, now=0.0)
    assert mirrors.is_wanted(A, count=1_000_000, seconds=4.0, now=0.0)
    assert mirrors.is_wanted(B, count=0, seconds=4.0, now=0.0)  # nobody else is known to be better


def test_a_mirror_that_fails_rests_twice_as_long_each_time() -> None:
    mirrors = of(A)
    now = 0.0
    for wait in (1.0, 2.0, 4.0, 8.0):
        fail(mirrors, A, now)
        assert chosen(mirrors, now + wait - 0.01) is None
        now += wait
        assert chosen(mirrors, now) == A
    for _ in range(40):
        fail(mirrors, A, now)
    assert chosen(mirrors, now + limits.MIRROR_BACKOFF_S_MAX) == A


def test_a_mirror_that_failed_is_tried_with_one_request_first() -> None:
    mirrors = of(A)
    fail(mirrors, A, now=0.0)
    mirrors.handle_begun(A)
    assert chosen(mirrors, 1.0) is None
    mirrors.handle_done(A, count=1, seconds=1.0)
    assert chosen(mirrors, 1.0) == A


def test_one_that_breaks_off_after_a_while_each_time_is_asked_again_soon() -> None:
    mirrors = of(A)
    for now in range(0, 20, 2):
        fail(mirrors, A, float(now), count=limits.MIB)
        assert chosen(mirrors, now + 1.0) == A


def test_retry_after_is_respected() -> None:
    mirrors = of(A)
    fail(mirrors, A, 0.0, MirrorFailed("busy", retry_after_s=120.0))
    assert chosen(mirrors, 119.9) is None
    assert chosen(mirrors, 120.0) == A


def test_a_mirror_that_wants_to_be_left_alone_for_ever_is_asked_after_an_hour() -> None:
    mirrors = of(A)
    fail(mirrors, A, 0.0, MirrorFailed("busy", retry_after_s=1e9))
    assert chosen(mirrors, limits.RETRY_AFTER_S_MAX) == A


def test_a_useless_mirror_is_dropped_with_its_reason() -> None:
    mirrors = of(A)
    fail(mirrors, A, 0.0, MirrorFailed("it has no such file", fault="useless"))
    assert chosen(mirrors, 1e9) is None
    assert mirrors.none_left
    (one,) = mirrors.statistics()
    assert (one.dropped, one.lied, one.reason) == (True, False, "it has no such file")


def test_a_mirror_that_lied_is_never_asked_again_and_named() -> None:
    mirrors = of(A, B)
    mirrors.handle_lied(A, 7)
    assert chosen(mirrors, 1e9) == B
    assert not mirrors.is_wanted(A, count=1, seconds=0.0, now=0.0)
    assert mirrors.statistics()[0].lied
    assert mirrors.statistics()[0].reason == "it sent wrong bytes for piece 7"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("99999999999999999999", limits.RETRY_AFTER_S_MAX),
        (format_datetime(datetime.fromtimestamp(NOON + 60, UTC), usegmt=True), 60.0),
        (format_datetime(datetime.fromtimestamp(NOON - 60, UTC), usegmt=True), 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("Fri, 99 Xxx 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    assert parse_retry_after(text, now=NOON) == seconds


@given(
    st.text(max_size=40)
    | st.from_regex(r"(Mon|Fri), \d{1,3} [JF][ae][nb] \d{1,6} \d\d:\d\d:\d\d [A-Z+-]*\d*")
)
def test_any_retry_after_is_a_bounded_wait_or_nothing(text: str) -> None:
    wait = parse_retry_after(text, now=NOON)
    assert wait is None or 0.0 <= wait <= limits.RETRY_AFTER_S_MAX


def test_a_mirrors_account_is_its_servers() -> None:
    assert server_of("https://vendor.example/a/b?c=d") == "vendor.example"
    assert server_of("https://vendor.example:8443/a") == "vendor.example:8443"
    assert account_of("https://h/a") == account_of("https://h:443/b") != account_of("https://h:444/a")
    assert parse_node_id(account_of("https://h/a"))
