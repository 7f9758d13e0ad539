"""Files of known hosts as OpenSSH writes them."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.duties.deploy.knownhosts import known_key
from p2pdist.errors import UsageError


def make_key(directory: Path, kind: str = "ed25519") -> str:
    path = directory / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def test_a_host_is_found_by_its_name_its_address_and_with_its_port(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    file = f"desk-7,10.1.0.7 {key}\n[10.1.0.8]:2222 {key}\n"
    assert known_key(file, "desk-7", "10.1.0.99", 22) == key
    assert known_key(file, "x", "10.1.0.7", 22) == key
    assert known_key(file, "x", "10.1.0.8", 2222) == key
    assert known_key(file, "x", "10.1.0.8", 22) == ""
    assert known_key(file, "desk-7:22", "desk-7", 22) == key


def test_a_hashed_file_serves_as_well(tmp_path: Path) -> None:
    key, file = make_key(tmp_path), tmp_path / "known_hosts"
    file.write_text(f"desk-7 {key}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    assert "desk-7" not in file.read_text()
    assert known_key(file.read_text(), "desk-7", "10.1.0.7", 22) == key


def test_of_several_keys_it_is_the_one_that_is_asked_for_first(tmp_path: Path) -> None:
    ecdsa, ed25519 = make_key(tmp_path, "ecdsa"), make_key(tmp_path)
    assert known_key(f"a {ecdsa}\na {ed25519}\n", "a", "a", 22) == ed25519


def test_a_revoked_key_is_not_pinned(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    with pytest.raises(UsageError, match="revoked"):
        known_key(f"a {key}\n@revoked a {key}\n", "a", "a", 22)


@given(st.text(max_size=300))
def test_whatever_the_file_is_it_is_read_or_refused(text: str) -> None:
    with suppress(UsageError):
        known_key(text, "a", "10.1.0.7", 22)
