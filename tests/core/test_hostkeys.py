"""Fingerprints of SSH servers' keys, as OpenSSH shows them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.hostkeys import fingerprint, first_fingerprint, is_fingerprint


def test_a_fingerprint_is_the_one_that_openssh_shows(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout
    assert fingerprint(key.with_suffix(".pub").read_text()) == first_fingerprint(shown) != ""


def test_a_fingerprint_is_its_own() -> None:
    text = "SHA256:" + "a" * 43
    assert fingerprint(text) == text and is_fingerprint(text)


def test_what_is_too_long_or_too_short_is_no_fingerprint() -> None:
    assert first_fingerprint(f"key SHA256:{'a' * 42} and SHA256:{'b' * 44}") == ""


@given(st.text(max_size=200))
def test_whatever_is_taken_for_a_key_has_a_fingerprint_or_none(text: str) -> None:
    found = fingerprint(text)
    assert not found or is_fingerprint(found)
