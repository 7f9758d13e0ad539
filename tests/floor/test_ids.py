"""Identifiers from outside: checked completely, and never able to leave their place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import ids
from p2pdist.errors import UsageError

PARSERS: dict[Callable[[str], str], str] = {
    ids.parse_node_id: "a" * 32,
    ids.parse_info_hash: "0" * 64,
    ids.parse_channel: "stable",
    ids.parse_product: "app-1.0+b",
    ids.parse_group: "/emea/berlin",
    ids.parse_target: "stable/app/1.0/App_1.0~rc1.bin",
    ids.parse_fleet: "acme",
}
ALPHABET = st.sampled_from("/.-_+~a1Z\n\0 \\:\u00e9\u0131\u2028")


@pytest.mark.parametrize(("parse", "good"), PARSERS.items())
def test_what_is_well_formed_comes_back_as_it_is(parse: Callable[[str], str], good: str) -> None:
    assert parse(good) == good


@pytest.mark.parametrize(("parse", "good"), PARSERS.items())
@given(data=st.data())
def test_whatever_is_taken_is_plain_and_stays_in_its_place(
    parse: Callable[[str], str], good: str, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(good)))
    length = data.draw(st.integers(0, 2))
    text = data.draw(
        st.one_of(
            st.text(max_size=80),
            st.text(ALPHABET, max_size=12),
            st.text(ALPHABET, max_size=3).map(lambda piece: good[:at] + piece + good[at + length :]),
        )
    )
    try:
        parsed = parse(text)
    except UsageError as error:
        assert str(error)
        return
    assert parsed == text
    assert text.isascii()
    assert text.isprintable()
    parts = text.removeprefix("/").split("/") if parse in (ids.parse_group, ids.parse_target) else [text]
    assert text == "/" or all(part and not part.startswith((".", "-")) for part in parts)
    assert not set(text) & set(" \\:\0")
    assert len(text) <= 512


@pytest.mark.parametrize("parse", PARSERS)
def test_nothing_is_no_identifier(parse: Callable[[str], str]) -> None:
    with pytest.raises(UsageError):
        parse("")


@pytest.mark.parametrize("parse", PARSERS)
def test_a_trailing_line_break_is_not_overlooked(parse: Callable[[str], str]) -> None:
    with pytest.raises(UsageError):
        parse(PARSERS[parse] + "\n")
