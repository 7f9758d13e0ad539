"""Sealed envelopes: only the two ends can open them, nobody can change, turn or repeat them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import ReplayWindow, open_anonymous, open_envelope, seal, seal_anonymous
from p2pdist.wire.envelope import Envelope

DEVICE, SERVER, STRANGER = IdentityKey.generate(), IdentityKey.generate(), IdentityKey.generate()
NOW = 1_900_000_000


def envelope(data: bytes = b"report", *, counter: int = 7, expires: int = NOW + 60) -> Envelope:
    return seal(
        data,
        key=DEVICE,
        recipient_public=SERVER.public,
        counter=counter,
        expires=expires,
        nonce=counter.to_bytes(24, "big"),
    )


@settings(deadline=None)
@given(data=st.binary(max_size=5_000))
def test_what_was_sealed_opens_for_the_recipient(data: bytes) -> None:
    sealed = envelope(data)
    assert (sealed.sender, sealed.recipient) == (DEVICE.node, SERVER.node)
    assert open_envelope(sealed, key=SERVER, sender_public=DEVICE.public, now=NOW) == data


def test_a_node_on_the_way_can_neither_read_nor_claim_an_envelope() -> None:
    sealed = envelope(b"secret report")
    assert b"secret report" not in sealed.box
    with pytest.raises(TrustError, match="for "):
        open_envelope(sealed, key=STRANGER, sender_public=DEVICE.public, now=NOW)
    taken = msgspec.structs.replace(sealed, recipient=STRANGER.node)
    with pytest.raises(TrustError, match="does not open"):
        open_envelope(taken, key=STRANGER, sender_public=DEVICE.public, now=NOW)


@pytest.mark.parametrize("change", [{"counter": 8}, {"expires": NOW + 10_000}])
def test_a_changed_header_is_refused(change: dict[str, int]) -> None:
    changed = msgspec.structs.replace(envelope(), **change)
    with pytest.raises(TrustError, match="header"):
        open_envelope(changed, key=SERVER, sender_public=DEVICE.public, now=NOW)


def test_an_envelope_cannot_be_turned_around() -> None:
    turned = msgspec.structs.replace(envelope(), sender=SERVER.node, recipient=DEVICE.node)
    with pytest.raises(TrustError, match="header"):
        open_envelope(turned, key=DEVICE, sender_public=SERVER.public, now=NOW)


def test_an_envelope_from_somebody_else_is_refused() -> None:
    with pytest.raises(TrustError, match="expected was"):
        open_envelope(envelope(), key=SERVER, sender_public=STRANGER.public, now=NOW)


def test_an_envelope_past_its_expiry_and_the_clocks_skew_is_refused() -> None:
    sealed = envelope(expires=NOW)
    open_envelope(sealed, key=SERVER, sender_public=DEVICE.public, now=NOW + limits.CLOCK_SKEW_S)
    with pytest.raises(TrustError, match="expired"):
        open_envelope(sealed, key=SERVER, sender_public=DEVICE.public, now=NOW + limits.CLOCK_SKEW_S + 1)


@settings(deadline=None)
@given(box=st.binary(min_size=0, max_size=400))
def test_an_arbitrary_box_is_refused(box: bytes) -> None:
    with pytest.raises(TrustError):
        open_envelope(
            msgspec.structs.replace(envelope(), box=box), key=SERVER, sender_public=DEVICE.public, now=NOW
        )
    with pytest.raises(TrustError):
        open_anonymous(box, key=SERVER)


def test_a_message_too_large_for_an_envelope_is_the_callers_mistake() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        envelope(bytes(limits.ENVELOPE_BYTES_MAX))


def test_a_public_key_of_low_order_is_not_used_for_sealing() -> None:
    low_order = bytes(32)
    with pytest.raises(UsageError):
        seal_anonymous(b"token", low_order)
    with pytest.raises(UsageError):
        seal(b"", key=DEVICE, recipient_public=low_order, counter=1, expires=NOW, nonce=bytes(24))


def test_an_anonymous_box_opens_for_its_recipient_only() -> None:
    box = seal_anonymous(b"token", SERVER.public)
    assert open_anonymous(box, key=SERVER) == b"token"
    with pytest.raises(TrustError):
        open_anonymous(box, key=STRANGER)


@settings(deadline=None)
@given(counters=st.lists(st.integers(1, 60), max_size=80))
def test_a_window_accepts_each_counter_once_and_only_recent_ones(counters: list[int]) -> None:
    window = ReplayWindow(16)
    accepted: set[int] = set()
    highest = 0
    for counter in counters:
        expected = counter not in accepted and counter > highest - 16
        assert window.accept(counter) == expected
        if expected:
            accepted.add(counter)
        highest = max(highest, counter)
        restored = ReplayWindow(16)
        restored.restore(window.snapshot())
        window = restored


def test_a_window_takes_a_jump_to_the_last_counter_and_nothing_below_one() -> None:
    window = ReplayWindow()
    assert not window.accept(0)
    assert window.accept(2**63 - 1)
    assert not window.accept(2**63 - 1)
    assert not window.accept(5)


@settings(deadline=None)
@given(data=st.binary(max_size=100))
def test_a_damaged_window_is_told(data: bytes) -> None:
    with pytest.raises(UsageError, match="damaged"):
        ReplayWindow().restore(b"\xc1" + data)


def test_keys_that_were_agreed_on_are_told_apart_by_both_ends() -> None:
    other = IdentityKey.generate()
    for key in (DEVICE, other, DEVICE):
        sealed = seal(
            b"report", key=key, recipient_public=SERVER.public, counter=1, expires=NOW, nonce=bytes(24)
        )
        assert open_envelope(sealed, key=SERVER, sender_public=key.public, now=NOW) == b"report"
