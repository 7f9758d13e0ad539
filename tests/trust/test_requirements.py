"""Mirrors as people and signed metadata name them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import UsageError
from p2pdist.trust.catalog import Mirror
from p2pdist.trust.phrases import field_words
from p2pdist.trust.requirements import mirrors_of, parse_mirror

URL = "https://vendor.example/a,b/app-3.1.deb"


def test_an_address_alone_stays_a_string_so_that_older_devices_read_it() -> None:
    assert parse_mirror(URL) == URL
    assert parse_mirror(f"{URL},priority=100") == URL


def test_priority_and_region_follow_the_address_in_any_order() -> None:
    near = Mirror(url=URL, priority=10, region="eu")
    assert parse_mirror(f"{URL},priority=10,region=eu") == near
    assert parse_mirror(f"{URL},region=eu,priority=10") == near
    assert parse_mirror(f"{URL},region=eu") == Mirror(url=URL, region="eu")


@given(st.integers(0, 255), st.from_regex(r"[a-z0-9-]{0,32}", fullmatch=True))
def test_what_is_written_is_read_back(priority: int, region: str) -> None:
    mirror = Mirror(url=URL, priority=priority, region=region)
    assert mirrors_of([parse_mirror(str(mirror))]) == (mirror,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",priority=1",
        "http://vendor.example/x",
        "http://vendor.example/x,priority=1",
        "https:///x,region=eu",
        "https://user@vendor.example/x",
        f"{URL},priority=256",
        f"{URL},priority=-1",
        f"{URL},priority=high",
        f"{URL},priority=",
        f"{URL},priority=1,priority=2",
        f"{URL},region=Europe",
        f"{URL},region=" + "e" * 33,
    ],
)
def test_what_is_no_mirror_is_explained(text: str) -> None:
    with pytest.raises(UsageError, match="mirror"):
        parse_mirror(text)


@given(st.text(max_size=60) | st.text("htps:/.,=priority0region", max_size=60).map("https://h/".__add__))
def test_any_text_is_a_mirror_or_explained(text: str) -> None:
    try:
        parse_mirror(text)
    except UsageError:
        return


def test_strings_and_tables_are_mirrors_and_each_address_counts_once() -> None:
    signed = msgspec.convert(
        ["https://a/", {"url": "https://b/", "priority": 1}, "https://a/"], list[str | Mirror]
    )
    assert mirrors_of(signed) == (Mirror(url="https://a/"), Mirror(url="https://b/", priority=1))


def test_people_read_what_is_signed() -> None:
    signed = ["https://a/", {"url": "https://b/", "priority": 1, "region": "eu"}]
    assert field_words("mirrors", signed) == ("mirrors", "https://a/, https://b/,priority=1,region=eu")
    assert field_words("mirrors", [7]) == ("mirrors", "[7]")
