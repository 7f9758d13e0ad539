"""OpenPGP signatures: what GnuPG has made, and what somebody made of it."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vendor import GPG, Signer

from p2pdist.duties.follow.openpgp import Keyring, split_keys
from p2pdist.errors import P2PDistError, TrustError, UsageError

pytestmark = pytest.mark.skipif(GPG is None, reason="needs GnuPG")

TEXT = b"Origin: Vendor\nDate: today\n"
NOW = int(time.time())


def ring(*keys: bytes, now: int = NOW) -> Keyring:
    return Keyring([part for key in keys for part in split_keys(key, "the key")], now=now)


def test_what_a_key_has_signed_is_returned_without_what_stands_around_it(signer: Signer) -> None:
    signed = signer.clear(TEXT, "vendor")
    opened = ring(signer.export("vendor")).open_clear(signed + b"Suite: another\n", "the InRelease")
    assert opened.strip() == TEXT.strip()


def test_one_of_several_signatures_is_enough(signer: Signer) -> None:
    signed = signer.clear(TEXT, "other", "vendor")
    for names in (("vendor",), ("other",), ("vendor", "other")):
        assert ring(*map(signer.export, names)).open_clear(signed, "it").strip() == TEXT.strip()


def test_an_altered_text_another_key_and_no_signature_are_refused(signer: Signer) -> None:
    signed = signer.clear(TEXT, "vendor")
    vendor, other = ring(signer.export("vendor")), ring(signer.export("other"))
    for keys, data in (
        (vendor, signed.replace(b"today", b"never")),
        (other, signed),
        (vendor, TEXT),
        (vendor, b"Suite: another\n" + signed),
        (vendor, signed[: len(signed) // 2]),
        (vendor, signer.gpg("-u", "vendor", "--sign", data=TEXT)),
    ):
        with pytest.raises(TrustError):
            keys.open_clear(data, "the InRelease")


def test_a_weak_hash_is_refused(signer: Signer) -> None:
    weak = signer.gpg("-u", "vendor", "--digest-algo", "SHA1", "--clearsign", data=TEXT)
    with pytest.raises(TrustError):
        ring(signer.export("vendor")).open_clear(weak, "it")


def test_a_key_that_has_expired_signs_nothing_any_more(signer: Signer) -> None:
    then = signer.clear(TEXT, "old", at="20250110T000000")
    key = signer.export("old")
    assert ring(key, now=1_736_500_000).open_clear(then, "it").strip() == TEXT.strip()
    with pytest.raises(TrustError, match="has expired on 2025-01-31"):
        ring(key).open_clear(then, "it")
    assert ring(key, signer.export("vendor")).open_clear(signer.clear(TEXT, "vendor"), "it")


def test_a_revoked_key_signs_nothing_any_more(signer: Signer) -> None:
    key = signer.make("revoked")
    signed = signer.clear(TEXT, "revoked")
    assert ring(key).open_clear(signed, "it")
    with pytest.raises(TrustError, match="is revoked"):
        ring(signer.revoke("revoked")).open_clear(signed, "it")


def test_a_signature_from_the_future_does_not_count_yet(signer: Signer) -> None:
    with pytest.raises(TrustError):
        ring(signer.export("vendor")).open_clear(signer.clear(TEXT, "vendor", at="20990101T000000"), "it")


def test_a_detached_signature_says_when_it_was_made(signer: Signer) -> None:
    keys = ring(signer.export("vendor"))
    assert abs(keys.check_detached(TEXT, signer.detached(TEXT, "vendor"), "it") - time.time()) < 60
    for data, signature in (
        (TEXT + b"x", signer.detached(TEXT, "vendor")),
        (TEXT, signer.detached(TEXT, "other")),
    ):
        with pytest.raises(TrustError):
            keys.check_detached(data, signature, "it")


def test_a_keyring_is_cut_into_its_certificates_armoured_or_not(signer: Signer) -> None:
    both = signer.export("vendor") + signer.export("other")
    assert len(split_keys(both, "both")) == 2
    assert split_keys(signer.export("vendor", "--armor"), "one") == split_keys(signer.export("vendor"), "one")


def test_a_secret_key_does_not_travel(signer: Signer) -> None:
    secret = signer.gpg("--export-secret-keys", "vendor")
    assert split_keys(secret, "mine") == split_keys(signer.export("vendor"), "mine")


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nno key"])
def test_what_is_no_keyring_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError):
        split_keys(data, "it")


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    keyring = Keyring([], now=NOW)
    for call in (
        lambda: split_keys(data, "it"),
        lambda: Keyring([data], now=NOW),
        lambda: keyring.open_clear(b"-----BEGIN PGP SIGNED MESSAGE-----\n" + data, "it"),
        lambda: keyring.check_detached(b"", data, "it"),
    ):
        with pytest.raises(P2PDistError):
            call()


Change = tuple[int, int, bytes]
changes = st.lists(
    st.tuples(st.integers(0, 2_000), st.integers(0, 9), st.binary(max_size=5)), min_size=1, max_size=4
)


def changed(data: bytes, by: list[Change]) -> bytes:
    for place, length, new in by:
        place %= len(data) + 1
        data = data[:place] + new + data[place + length :]
    return data


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(changes)
def test_whatever_becomes_of_signatures_and_keys_they_are_taken_or_refused(
    made: tuple[bytes, bytes, bytes], by: list[Change]
) -> None:
    clear, detached, key = made
    keys = ring(key)
    with suppress(P2PDistError):
        assert keys.open_clear(changed(clear, by), "it").split() == TEXT.split()
    for call in (
        lambda: keys.check_detached(TEXT, changed(detached, by), "it"),
        lambda: ring(changed(key, by)),
        lambda: Keyring([changed(key, by)], now=NOW),
    ):
        with suppress(P2PDistError):
            call()


@pytest.fixture(scope="module")
def made(signer: Signer) -> tuple[bytes, bytes, bytes]:
    """A signed text, a detached signature over it, and the certificate."""
    detached = signer.gpg("-u", "vendor", "--detach-sign", data=TEXT)
    return signer.clear(TEXT, "vendor"), detached, signer.export("vendor")
