"""Wakes and their bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerError, UsageError
from p2pdist.wire.wakes import (
    DATAGRAM_BYTES,
    WAKE_BYTES,
    Wake,
    WakeReason,
    decode_wake,
    encode_wake,
    magic_packet,
)

reasons: st.SearchStrategy[WakeReason] = st.sampled_from(["synchronise", "deployment", "session"])
wakes = st.builds(
    Wake,
    counter=st.integers(1, 2**63 - 1),
    expires=st.integers(0, 2**40),
    reason=reasons,
    from_sleep=st.booleans(),
)


@given(wakes)
def test_what_was_encoded_is_decoded(wake: Wake) -> None:
    assert len(encode_wake(wake)) == WAKE_BYTES
    assert decode_wake(encode_wake(wake)) == wake


@given(st.binary(max_size=40) | st.binary(min_size=WAKE_BYTES, max_size=WAKE_BYTES))
def test_any_bytes_are_a_wake_or_the_peers_fault(data: bytes) -> None:
    try:
        wake = decode_wake(data)
    except PeerError:
        return
    assert decode_wake(encode_wake(wake)) == wake


def test_a_reason_of_a_newer_server_is_one_to_synchronise() -> None:
    data = bytearray(encode_wake(Wake(counter=1, expires=2, reason="session")))
    data[16] = 200
    assert decode_wake(bytes(data)).reason == "synchronise"


def test_a_datagram_fits_into_every_network() -> None:
    assert DATAGRAM_BYTES <= 200


def test_a_magic_packet_is_ones_and_the_address_sixteen_times() -> None:
    packet = magic_packet("02:00:5e:10:00:07")
    assert packet == b"\xff" * 6 + bytes.fromhex("02005e100007") * 16
    assert len(packet) == 102


@pytest.mark.parametrize("mac", ["", "02:00", "02:00:5e:10:00:07:08", "zz:00:5e:10:00:07"])
def test_what_is_no_hardware_address_makes_no_magic_packet(mac: str) -> None:
    with pytest.raises(UsageError):
        magic_packet(mac)
