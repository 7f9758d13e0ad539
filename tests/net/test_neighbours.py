"""The kernel's table of neighbours."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.net.neighbours import Neighbour, parse_neighbours, read_neighbours


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def entry(address: bytes, mac: bytes, state: int) -> bytes:
    body = struct.pack("=BxxxiHBB", 2, 3, state, 0, 0) + attribute(1, address) + attribute(2, mac)
    return struct.pack("=IHHII", 16 + len(body), 28, 2, 1, 0) + body


MAC = bytes.fromhex("020000000007")


def test_a_neighbour_that_was_heard_is_read_with_its_hardware_address() -> None:
    datagram = entry(bytes([10, 1, 0, 7]), MAC, 0x02) + entry(bytes(15) + b"\1", MAC, 0x04)
    found, ended = parse_neighbours(datagram)
    assert not ended
    assert found == [
        Neighbour(ip_address("10.1.0.7"), "02:00:00:00:00:07"),
        Neighbour(ip_address("::1"), "02:00:00:00:00:07"),
    ]


def test_one_that_was_asked_for_and_did_not_answer_is_none() -> None:
    for state in (0x00, 0x01, 0x20, 0x40):  # none, incomplete, failed, noarp
        assert parse_neighbours(entry(bytes([10, 1, 0, 7]), MAC, state)) == ([], False)
    assert parse_neighbours(entry(bytes([10, 1, 0, 7]), bytes(6), 0x02)) == ([], False)


def test_the_end_of_the_table_is_seen() -> None:
    assert parse_neighbours(struct.pack("=IHHIIi", 20, 3, 2, 1, 0, 0)) == ([], True)


@given(st.binary(max_size=300))
def test_garbage_is_nobody(datagram: bytes) -> None:
    parse_neighbours(datagram)


@given(st.data())
def test_a_table_that_is_cut_or_changed_anywhere_raises_nothing(data: st.DataObject) -> None:
    good = bytearray(entry(bytes([10, 1, 0, 7]), MAC, 0x02) * 2)
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    parse_neighbours(bytes(good[: data.draw(st.integers(0, len(good)))]))


def test_the_kernel_answers() -> None:
    assert isinstance(read_neighbours(), list)
