"""What the indexes of an apt repository say, and what they may not."""

from __future__ import annotations

from contextlib import suppress
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.aptindexes import (
    PACKAGE_FIELDS,
    NewestPackages,
    ReleaseIndex,
    check_release,
    packages_index,
    parse_release,
)
from p2pdist.core.deb822 import Paragraphs
from p2pdist.errors import P2PDistError, PeerError, TrustError, UsageError
from p2pdist.wire.following import AptSource

HASH = "ab" * 32
DATE = 1_800_000_000  # Fri, 15 Jan 2027 08:00:00 UTC
RELEASE = f"""Origin: Vendor
Suite: stable
Codename: bookworm
Date: Fri, 15 Jan 2027 08:00:00 UTC
Valid-Until: Fri, 22 Jan 2027 08:00:00 UTC
Acquire-By-Hash: yes
MD5Sum:
 {"0" * 32} 7 main/binary-amd64/Packages
SHA256:
 {HASH} 1000 main/binary-amd64/Packages
 {HASH} 100 main/binary-amd64/Packages.gz
 {HASH} 90 main/binary-amd64/Packages.xz
"""


def source(**fields: Any) -> AptSource:
    usual = {
        "url": "https://vendor.example/debian/",
        "suite": "stable",
        "components": ["main"],
        "architectures": ["amd64"],
        "packages": ["tool*"],
    }
    return AptSource(**{**usual, **fields})


def release(text: str = RELEASE) -> ReleaseIndex:
    return parse_release(text.encode())


def paragraph(**fields: str) -> dict[str, str]:
    usual = {
        "package": "tool",
        "version": "1.0",
        "architecture": "amd64",
        "filename": "pool/t/tool_1.0_amd64.deb",
        "size": "7",
        "sha256": HASH,
    }
    return {**usual, **fields}


def newest(*packages: dict[str, str], **fields: Any) -> NewestPackages:
    found = NewestPackages(source(**fields))
    found.take(packages, ["amd64"])
    return found


# InRelease ---------------------------------------------------------------------------------------


def test_a_release_says_when_it_is_from_and_what_it_lists() -> None:
    found = release()
    assert (found.date, found.valid_until) == (DATE, DATE + 7 * 86_400)
    assert (found.names, found.by_hash) == ({"stable", "bookworm"}, True)
    assert packages_index(found, "main", "amd64").path == "main/binary-amd64/Packages.xz"


def test_one_that_is_current_and_of_the_suite_is_taken_by_either_name() -> None:
    for suite in ("stable", "bookworm"):
        check_release(release(), source(suite=suite), seen=DATE, now=DATE + 60)


@pytest.mark.parametrize(
    ("suite", "seen", "now", "said"),
    [
        ("testing", 0, DATE, "is of bookworm, stable, and not of testing"),
        ("stable", 0, DATE + 8 * 86_400, "has expired on 2027-01-22"),
        ("stable", DATE + 1, DATE, "is older than the one of"),
        ("stable", 0, DATE - 2 * 86_400, "in the future"),
    ],
)
def test_one_that_is_not_what_it_should_be_now_is_refused(suite: str, seen: int, now: int, said: str) -> None:
    with pytest.raises(TrustError, match=said):
        check_release(release(), source(suite=suite), seen=seen, now=now)


def test_a_component_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="contrib/binary-arm64"):
        packages_index(release(), "contrib", "arm64")


def test_an_index_that_is_too_large_is_not_fetched() -> None:
    huge = release(RELEASE.replace(f"{HASH} 90 ", f"{HASH} {limits.PACKAGES_PACKED_BYTES_MAX + 1} "))
    with pytest.raises(PeerError, match="too much for an index"):
        packages_index(huge, "main", "amd64")


@pytest.mark.parametrize(
    "text",
    [
        "",
        RELEASE + "\n" + RELEASE,
        RELEASE.replace("Date:", "Dated:"),
        RELEASE.replace("15 Jan 2027", "35 Jan 2027"),
        RELEASE.replace("Suite: stable", "Suite: stable\nSuite: testing"),
        RELEASE.replace(f"{HASH} 90", f"{HASH} -90"),
        RELEASE.replace("Suite: stable", "no field"),
    ],
)
def test_what_is_no_release_is_refused(text: str) -> None:
    with pytest.raises(PeerError):
        release(text)


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reading_of_a_release(data: bytes) -> None:
    for text in (data, RELEASE.encode() + data):
        with suppress(PeerError):
            parse_release(text)


# Paragraphs ---------------------------------------------------------------------------------------

TEXT = (
    b"Package: a\nVersion: 1\nDescription: x\n y\n  z\n\n\nPackage: b\n"
    b" \nIgnored:\n continued\npackage: c\nSIZE:3"
)


@given(st.lists(st.integers(0, len(TEXT)), max_size=8))
def test_paragraphs_are_the_same_in_whatever_pieces_they_come(cuts: list[int]) -> None:
    reader, found = Paragraphs(("package", "size", "description")), []
    edges = [0, *sorted(cuts), len(TEXT)]
    for begin, end in pairwise(edges):
        found += reader.feed(TEXT[begin:end])
    assert [*found, *reader.finish()] == [
        {"package": "a", "description": "x\ny\nz"},
        {"package": "b"},
        {"package": "c", "size": "3"},
    ]


@pytest.mark.parametrize("piece", [b"x" * 1_000, b" x\n" * 300, b"Package: a" + b"\n y" * 300])
def test_a_paragraph_without_an_end_is_cut_off(piece: bytes) -> None:
    reader = Paragraphs(("package",), bytes_max=2_000)
    with pytest.raises(PeerError, match="more than 2000 bytes"):
        list(chain.from_iterable(reader.feed(piece) for _ in range(10)))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading_of_packages(data: bytes) -> None:
    reader = Paragraphs(PACKAGE_FIELDS)
    with suppress(PeerError):
        newest(*reader.feed(data), *reader.finish())


# Packages -----------------------------------------------------------------------------------------


def test_the_newest_version_of_each_wanted_package_is_offered() -> None:
    found = newest(
        paragraph(version="1.9"),
        paragraph(version="1.10", filename="./pool/t/tool_1.10+x_amd64.deb"),
        paragraph(version="1.10~rc1"),
        paragraph(package="tool-data", architecture="all", filename="pool/tool-data.deb"),
        paragraph(package="tool", architecture="arm64", version="9"),
        paragraph(package="another", version="9"),
    )
    assert [(each.product, each.version, each.architecture) for each in found.offers()] == [
        ("tool", "1.10", "amd64"),
        ("tool-data", "1.0", "all"),
    ]
    offer = found.offers()[0]
    assert offer.url == "https://vendor.example/debian/pool/t/tool_1.10%2Bx_amd64.deb"
    assert (offer.file, offer.size_bytes, offer.sha256, offer.signed) == (
        "tool_1.10+x_amd64.deb",
        7,
        HASH,
        True,
    )


@pytest.mark.parametrize(
    "filename",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "pool//x",
        "https://evil.example/x",
        "pool/../x",
        "pool/x y",
        "",
        "pool/.x",
        "pool/\u202ex",
        "a/" * 300,
        "pool/" + "x" * 300,
    ],
)
def test_a_place_outside_of_the_repository_or_without_sense_is_not_offered(filename: str) -> None:
    found = newest(paragraph(filename=filename))
    assert (found.offers(), list(found.left_out)) == ([], ["tool"])


@pytest.mark.parametrize(
    "fields", [{"version": "a b"}, {"version": ""}, {"sha256": ""}, {"size": "-1"}, {"size": "9" * 30}]
)
def test_a_package_without_version_size_or_hash_is_left_out_with_the_reason(fields: dict[str, str]) -> None:
    found = newest(paragraph(**fields))
    assert found.offers() == []
    assert found.left_out["tool"]


def test_a_name_that_no_product_can_have_is_left_out() -> None:
    assert "is not a product name" in newest(paragraph(package="tool++")).left_out["tool++"]


def test_more_packages_than_a_task_may_have_are_refused() -> None:
    many = [paragraph(package=f"tool{number}") for number in range(limits.FOLLOW_OFFERS_MAX + 1)]
    with pytest.raises(PeerError, match="more than"):
        newest(*many)


@given(st.fixed_dictionaries({name: st.text(max_size=20) for name in PACKAGE_FIELDS}))
def test_whatever_fields_say_what_is_offered_stays_in_the_repository(fields: dict[str, str]) -> None:
    found = NewestPackages(source(packages=["*"]))
    try:
        found.take([{**fields, "architecture": "amd64"}], ["amd64"])
    except P2PDistError:
        return
    for offer in found.offers():
        assert offer.url.startswith("https://vendor.example/debian/")
        assert ".." not in offer.url.split("/")
