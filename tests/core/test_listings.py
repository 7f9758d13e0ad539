"""Which files a directory of a web server offers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.listings import check_directory, compile_pattern, newest_file, parse_links, parse_sums
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.following import DirectorySource

URL = "https://vendor.example/tool/"
HASH = "ab" * 32


def source(**fields: Any) -> DirectorySource:
    usual = {"url": URL, "pattern": "tool-{version}-linux.run", "product": "tool"}
    return DirectorySource(**{**usual, **fields})


def newest(*names: str, **fields: Any) -> str:
    offer = newest_file(source(**fields), names, {}, signed=False)
    return offer.file if offer is not None else ""


@pytest.mark.parametrize(
    ("pattern", "name", "version"),
    [
        ("tool-{version}.run", "tool-1.10.2.run", "1.10.2"),
        ("tool-{version}.run", "tool-1.10.2-rc1.run", None),
        ("tool-{version:any}.run", "tool-1.10.2-rc1.run", "1.10.2-rc1"),
        ("*-{version}.run", "a-b-1.0.run", "1.0"),
        ("tool-{version}*.run", "tool-1.0-linux.run", "1.0"),
        ("tool-{version}.run", "tool-1.0xrun", None),
        ("tool-{version}.run", "xtool-1.0.run", None),
        ("tool-{version}.run", "tool-1.0.run.sig", None),
    ],
)
def test_a_pattern_finds_the_version_in_a_name(pattern: str, name: str, version: str | None) -> None:
    match = compile_pattern(pattern).match(name)
    assert (match["version"] if match else None) == version


@pytest.mark.parametrize(
    "pattern", ["tool.run", "{version}{version}", "a{version", "{v}", "*-*-{version}", "{version:x}"]
)
def test_what_has_no_version_or_too_many_stars_is_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError, match="is not a pattern"):
        compile_pattern(pattern)


def test_the_newest_is_told_by_numbers_and_not_by_letters() -> None:
    assert newest("tool-1.9-linux.run", "tool-1.10-linux.run", "tool-1.2-linux.run") == "tool-1.10-linux.run"
    assert newest("other", "tool-linux.run") == ""


def test_links_to_elsewhere_are_not_looked_at() -> None:
    page = """<html><a href="../">up</a> <a href='a.run'>a</a> <A HREF="/tool/b.run">b</A>
      <a href="https://vendor.example/tool/c%2B1.run">c</a> <a href="https://evil.example/tool/d.run">d</a>
      <a href="//evil.example/tool/e.run">e</a> <a href="http://vendor.example/tool/f.run">f</a>
      <a href="../secret/g.run">g</a> <a href="%2e%2e/h.run">h</a> <a href="i%2Fj.run">i</a>
      <a href="?C=N;O=D">sorted</a> <a href="k.run?x=1">k</a> <a href="sub/">s</a>
      <a href="javascript:l.run">l</a>
      <a href="https://vendor.example:444/tool/m.run">m</a>
      <a href="https://u@vendor.example/tool/n.run">n</a>
      <a href="..%2f..%2fo.run">o</a> <a href=".hidden">p</a> <a href="http://[">q</a>
      <a href="a.run">again</a>"""
    assert parse_links(page, URL) == ["a.run", "b.run", "c+1.run"]


def test_a_page_with_too_many_links_is_refused() -> None:
    page = "".join(f'<a href="{number}">' for number in range(limits.LISTING_NAMES_MAX + 1))
    with pytest.raises(PeerError, match="links"):
        parse_links(page, URL)


@given(st.text(max_size=300))
def test_whatever_a_page_says_names_are_those_of_files_right_there(page: str) -> None:
    for name in [*parse_links(page, URL), *parse_links(f'<a href="{page}">', URL)]:
        assert "/" not in name and not name.startswith(".")


def test_checksums_are_read_as_sha256sum_writes_them() -> None:
    text = (
        f"{HASH}  a.run\n{HASH.upper()} *b.run\n{HASH}  ./c.run\n{HASH}  ../d.run\n{HASH}  e/f.run\nx  g\n\n"
    )
    assert parse_sums(text) == {"a.run": HASH, "b.run": HASH, "c.run": HASH}


def test_two_checksums_for_one_file_are_refused() -> None:
    with pytest.raises(PeerError, match="has two for a"):
        parse_sums(f"{HASH}  a\n{'cd' * 32}  a\n")


def test_an_offer_has_the_checksum_that_the_list_says() -> None:
    name = "tool-2.0-linux.run"
    offer = newest_file(source(), [name], {name: HASH}, signed=True)
    assert offer is not None
    assert (offer.version, offer.sha256, offer.signed, offer.url) == ("2.0", HASH, True, URL + name)


@pytest.mark.parametrize(
    ("fields", "signed", "said"),
    [
        ({"url": URL[:-1]}, False, "is not a directory"),
        ({"url": "http://vendor.example/"}, False, "over plain HTTP"),
        ({}, True, "over a list of checksums"),
        ({"sums": "SUMS", "signature": "SUMS.asc"}, False, "needs the key"),
        ({"product": "No!"}, False, "not a product name"),
    ],
)
def test_a_directory_that_cannot_be_followed_safely_is_refused(
    fields: dict[str, str], signed: bool, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        check_directory(source(**fields), signed=signed)
