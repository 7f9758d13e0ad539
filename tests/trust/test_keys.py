"""Keys: what is written, what is refused, and that signatures are TUF's."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import UnverifiedSignatureError

from p2pdist.errors import UsageError
from p2pdist.ids import node_id_of
from p2pdist.trust.keys import Ed25519Signer, IdentityKey, SealedKeyFile, key_name, public_key_of

SEALED = SealedKeyFile.create("alice", b"correct horse", kdf="interactive")


def test_an_identity_key_survives_a_save_and_a_load(tmp_path: Path) -> None:
    key = IdentityKey.generate()
    key.save(tmp_path / "identity.key")
    loaded = IdentityKey.load(tmp_path / "identity.key")
    assert loaded.public == key.public
    assert loaded.node == key.node == node_id_of(key.public)


def test_an_identity_key_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    IdentityKey.generate().save(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_an_identity_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    IdentityKey.generate().save(path)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        IdentityKey.load(path)


def test_another_kind_of_private_key_is_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    rsa = generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(UsageError, match="no Ed25519 key"):
        IdentityKey.load(path)


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_identity_and_no_sealed_key(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "key"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(UsageError):
        IdentityKey.load(path)
    with pytest.raises(UsageError):
        SealedKeyFile.load(path)


def test_a_missing_key_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        IdentityKey.load(tmp_path / "nowhere")


def test_the_private_key_does_not_show_in_the_representation() -> None:
    key = IdentityKey.generate()
    assert repr(key) == f"IdentityKey({key.node})"


def test_a_sealed_key_opens_with_its_passphrase_and_signs_as_tuf_verifies() -> None:
    signer = SEALED.open(b"correct horse")
    signature = signer.sign(b"payload")
    signer.public_key.verify_signature(signature, b"payload")
    with pytest.raises(UnverifiedSignatureError):
        signer.public_key.verify_signature(signature, b"another payload")
    assert signer.public_key.keyid == SEALED.keyid


def test_a_wrong_passphrase_is_told_without_a_trace_of_the_key() -> None:
    with pytest.raises(UsageError, match="does not open the key of alice"):
        SEALED.open(b"wrong horse")


def test_an_empty_passphrase_and_an_empty_name_are_not_taken() -> None:
    with pytest.raises(UsageError, match="empty"):
        SealedKeyFile.create("alice", b"", kdf="interactive")
    with pytest.raises(UsageError, match="name"):
        SealedKeyFile.create("", b"secret", kdf="interactive")


def test_a_sealed_key_file_is_private_and_says_whose_it_is_without_the_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    SEALED.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"correct horse" not in path.read_bytes()
    loaded = SealedKeyFile.load(path)
    assert (loaded.name, loaded.keyid) == ("alice", SEALED.keyid)
    loaded.open(b"correct horse")


def test_a_key_file_whose_public_half_was_exchanged_is_refused() -> None:
    altered = msgspec.structs.replace(SEALED, public=IdentityKey.generate().public)
    with pytest.raises(UsageError, match="altered"):
        altered.open(b"correct horse")


def test_a_key_file_cannot_ask_for_endless_memory(tmp_path: Path) -> None:
    path = tmp_path / "greedy.key"
    SEALED.save(path)
    raw = msgspec.json.decode(path.read_bytes())
    raw["kdf"]["memory_bytes"] = 1 << 40
    path.write_bytes(msgspec.json.encode(raw))
    with pytest.raises(UsageError, match="not a sealed key file"):
        SealedKeyFile.load(path)


def test_a_new_passphrase_replaces_the_old_one_and_keeps_the_key() -> None:
    resealed = SEALED.reseal(b"correct horse", b"battery staple", kdf="interactive")
    assert resealed.keyid == SEALED.keyid
    resealed.open(b"battery staple")
    with pytest.raises(UsageError):
        resealed.open(b"correct horse")


def test_a_signer_can_be_opened_by_uri_as_securesystemslib_does(tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    SEALED.save(path)
    signer = Ed25519Signer.from_priv_key_uri(f"sealed:{path}", SEALED.public_key, lambda _: "correct horse")
    signer.public_key.verify_signature(signer.sign(b"x"), b"x")
    other = Ed25519Signer(bytes(32)).public_key
    with pytest.raises(UsageError, match="another key"):
        Ed25519Signer.from_priv_key_uri(f"sealed:{path}", other, lambda _: "correct horse")


def test_a_name_is_no_part_of_the_key_id() -> None:
    public = IdentityKey.generate().public
    named, nameless = public_key_of(public, name="bob"), public_key_of(public)
    assert named.keyid == nameless.keyid
    assert key_name(named) == f"bob ({named.keyid[:8]})"
    assert key_name(nameless) == named.keyid[:8]
