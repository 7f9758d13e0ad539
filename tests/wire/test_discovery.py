"""Sightings are checked when they arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerError
from p2pdist.wire import codec
from p2pdist.wire.discovery import Interface, Sighting, canonical_address, printable


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"names": ["pc\x1b[2J"]},
        {"names": [" pc"]},
        {"names": ["a\u202eb"]},
        {"names": [""]},
        {"addresses": ["10.1.0.007"]},
        {"addresses": ["10.1.0.7/24"]},
        {"addresses": ["FD00::1"]},
        {"addresses": ["224.0.0.251"]},
        {"macs": ["00:1B:21:00:00:01"]},
        {"guid": "x"},
        {"node": "x"},
        {"names": ["a"] * 17},
        {"names": ["a"], "services": ["tcp/22\n"]},
        {"names": ["a"], "unit": "OU=\0"},
    ],
)
def test_a_sighting_that_is_not_valid_is_refused_where_it_arrives(fields: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        codec.decode(codec.encode({"method": "mdns", **fields}), Sighting)


def test_a_sighting_survives_the_way() -> None:
    sighting = Sighting(method="mdns", names=["Büro 7"], addresses=["10.1.0.7", "fd00::7"])
    assert codec.decode(codec.encode(sighting), Sighting) == sighting


@given(st.text(max_size=80), st.integers(1, 40))
def test_what_is_printable_is_taken_whatever_it_was(text: str, chars_max: int) -> None:
    shown = printable(text, chars_max)
    assert len(shown) <= chars_max and shown.isprintable() and shown == printable(shown)


def test_addresses_are_written_one_way() -> None:
    assert canonical_address("FE80:0::1%eth0") == "fe80::1"
    assert canonical_address("::ffff:10.1.0.7") == "10.1.0.7"
    for nobody in ("127.0.0.1", "0.0.0.0", "ff02::1", "host", "", "1"):
        assert canonical_address(nobody) == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"mac": "02:00:00:00:00:07", "addresses": ["10.1.0.007"]},
        {"mac": "02:00:00:00:00:07", "addresses": ["127.0.0.1"]},
        {"mac": "02:00:00:00:00:07", "addresses": [f"10.1.0.{number}" for number in range(9)]},
        {"mac": "02:00:00:00:00:0G", "addresses": []},
        {"mac": "", "addresses": []},
        {"mac": "02:00:00:00:00:07"},
    ],
)
def test_an_interface_that_is_not_valid_is_refused_where_it_arrives(fields: dict[str, object]) -> None:
    with pytest.raises(PeerError):
        codec.decode(codec.encode(fields), Interface)


@given(st.text(max_size=45))
def test_whatever_a_node_says_of_its_addresses_is_taken_as_it_is_or_refused(text: str) -> None:
    said = {"mac": "02:00:00:00:00:07", "addresses": [text]}
    try:
        taken = codec.decode(codec.encode(said), Interface)
    except PeerError:
        return
    assert taken.addresses == [text] == [canonical_address(text)]
