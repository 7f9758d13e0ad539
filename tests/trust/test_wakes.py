"""Sealed wakes: nobody but the admin server makes one, and each is good once."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from p2pdist.errors import TrustError, UsageError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.wakes import WakeKey
from p2pdist.wire.wakes import DATAGRAM_BYTES, Wake

SERVER, DEVICE, OTHER = IdentityKey.generate(), IdentityKey.generate(), IdentityKey.generate()
AT_SERVER, AT_DEVICE = WakeKey(SERVER, DEVICE.public), WakeKey(DEVICE, SERVER.public)
NOW = 1_900_000_000
WAKE = Wake(counter=7, expires=NOW + 60, reason="deployment")
SEALED = AT_SERVER.seal(WAKE, bytes(24))


def test_the_device_opens_what_the_admin_server_sealed() -> None:
    assert len(SEALED) == DATAGRAM_BYTES
    assert AT_DEVICE.open(SEALED, newer_than=6, now=NOW) == WAKE


def test_it_does_not_show_for_whom_it_is() -> None:
    assert DEVICE.public[:4] not in SEALED and DEVICE.node.encode()[:8] not in SEALED


def test_a_wake_for_another_device_is_told_by_its_beginning() -> None:
    assert WakeKey(SERVER, OTHER.public).prefix != AT_DEVICE.prefix
    with pytest.raises(TrustError, match="no wake for this device"):
        WakeKey(OTHER, SERVER.public).open(SEALED, newer_than=0, now=NOW)


def test_a_repeated_or_replayed_one_is_refused() -> None:
    with pytest.raises(TrustError, match="come before"):
        AT_DEVICE.open(SEALED, newer_than=7, now=NOW)


def test_one_that_comes_too_late_is_refused() -> None:
    with pytest.raises(TrustError, match="expired"):
        AT_DEVICE.open(SEALED, newer_than=0, now=NOW + 61)


@given(place=st.integers(0, DATAGRAM_BYTES - 1), bit=st.integers(0, 7))
def test_whatever_bit_is_changed_it_does_not_open(place: int, bit: int) -> None:
    changed = bytearray(SEALED)
    changed[place] ^= 1 << bit
    with pytest.raises(TrustError):
        AT_DEVICE.open(bytes(changed), newer_than=0, now=NOW)


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
@example(b"", True)
@example(bytes(DATAGRAM_BYTES - 12), True)
def test_no_bytes_of_a_stranger_open(data: bytes, knows_beginning: bool) -> None:
    with pytest.raises(TrustError):
        AT_DEVICE.open(AT_DEVICE.prefix * knows_beginning + data, newer_than=0, now=NOW)


def test_a_short_nonce_is_a_mistake_of_ours() -> None:
    with pytest.raises(UsageError):
        AT_SERVER.seal(WAKE, bytes(12))
