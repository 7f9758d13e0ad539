"""What the kernel says of this machine's network."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.net.netlink import is_own_address, removed_addresses, source_towards

NEW, GONE = 20, 21


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def message(kind: int, address: str, *, label: str = "eth0") -> bytes:
    packed = ipaddress.ip_address(address).packed
    body = bytes(8) + attribute(1, packed) + attribute(3, label.encode() + b"\0")
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body + bytes(-len(body) % 4)


def test_the_addresses_that_went_away_are_named_and_those_that_came_are_not() -> None:
    datagram = message(GONE, "192.0.2.7") + message(NEW, "192.0.2.8") + message(GONE, "2001:db8::1")
    assert list(removed_addresses(datagram)) == ["192.0.2.7", "2001:db8::1"]


@given(st.binary(max_size=200))
def test_whatever_comes_names_addresses_or_nothing(datagram: bytes) -> None:
    for address in removed_addresses(datagram):
        ipaddress.ip_address(address)


@given(st.integers(0, 60))
def test_a_message_that_is_cut_off_names_nothing(length: int) -> None:
    whole = message(GONE, "192.0.2.7")
    assert list(removed_addresses(whole[: min(length, len(whole) - 1)])) == []


@pytest.mark.parametrize(
    ("host", "ours"), [("127.0.0.1", True), ("127.7.7.7", True), ("192.0.2.1", False), ("no address", False)]
)
def test_an_address_is_this_machines_own_or_not(host: str, ours: bool) -> None:
    assert is_own_address(host) is ours


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.1"), ("a.name.invalid", None)])
def test_where_something_is_reached_from_is_what_the_routes_say(host: str, source: str | None) -> None:
    assert source_towards(host) == source
