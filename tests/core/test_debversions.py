"""Which Debian version is newer."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.core.debversions import is_newer, version_key
from p2pdist.errors import PeerError

pytestmark = pytest.mark.slow  # a process of dpkg for each example

DPKG = shutil.which("dpkg")

OLDEST_FIRST = (
    *(
        "0~~",
        "0~~a",
        "0~",
        "0",
        "0a",
        "0+",
        "1.0~rc1-1",
        "1.0",
        "1.0-0.1",
        "1.0-1~bpo12+1",
        "1.0-1",
        "1.0-1+b1",
    ),
    *("1.0-1.1", "1.0-2", "1.0-10", "1.0a-1", "1.0.1", "1.2", "1.10", "1:0.1", "2:0"),
)

parts = st.text("0123456789abzAZ.+~", min_size=1, max_size=8)
versions = st.builds(
    lambda epoch, upstream, revision: f"{epoch}0{upstream}{revision}",
    st.sampled_from(["", "0:", "1:"]),
    st.text("0123456789abzAZ.+~-", max_size=8),
    st.one_of(st.just(""), parts.map(lambda text: f"-{text}")),
)


def test_examples_are_in_the_order_of_the_manual() -> None:
    assert sorted({*OLDEST_FIRST}, key=version_key) == list(OLDEST_FIRST)


@pytest.mark.parametrize("pair", [("1.0", "1.00"), ("1.0", "1.0-0"), ("0:1", "1"), ("1.0-0", "1.0-000")])
def test_these_are_the_same_version(pair: tuple[str, str]) -> None:
    assert version_key(pair[0]) == version_key(pair[1])


@pytest.mark.parametrize("text", ["", "-1", "1-", ":1", "a:1", "1 2", "1/2", "1é", "1" * 65, "1\n"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(PeerError):
        version_key(text)
    assert not is_newer(text, "1")


@pytest.mark.skipif(DPKG is None, reason="needs dpkg")
@settings(max_examples=150, deadline=None)
@given(versions, versions)
def test_the_order_is_that_of_dpkg(one: str, other: str) -> None:
    try:
        first, second = version_key(one), version_key(other)
    except PeerError:
        return
    assert DPKG is not None
    for relation, holds in (("lt", first < second), ("eq", first == second)):
        asked = subprocess.run([DPKG, "--compare-versions", one, relation, other], capture_output=True)
        assert (asked.returncode == 0) == holds, (one, relation, other, asked.stderr)


@given(st.text(max_size=80))
def test_any_text_has_a_place_in_the_order_or_is_refused(text: str) -> None:
    with suppress(PeerError):
        version_key(text)
