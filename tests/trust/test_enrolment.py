"""The enrolment bundle: complete and consistent, or refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, Root

from p2pdist.errors import UsageError
from p2pdist.ids import FleetName
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.keys import Ed25519Signer, IdentityKey

SERVER = IdentityKey.generate()


def signed_root() -> bytes:
    signer = Ed25519Signer(b"s" * 32, name="alice")
    root = Metadata(Root(expires=datetime(2040, 1, 1, tzinfo=UTC)))
    root.signed.add_key(signer.public_key, Root.type)
    root.sign(signer)
    return root.to_bytes()


BUNDLE = EnrolmentBundle(
    fleet=FleetName("acme"),
    ca_pem=FleetAuthority.create(FleetName("acme"), datetime(2031, 1, 1, tzinfo=UTC)).certificate_pem,
    root=signed_root(),
    server_node=SERVER.node,
    server_public=SERVER.public,
    addresses=("admin.example:7600", "[::1]:7600"),
)


def changed(**fields: Any) -> bytes:
    raw = msgspec.json.decode(BUNDLE.encode())
    raw.update(fields)
    return msgspec.json.encode(raw)


def test_a_bundle_survives_a_save_and_a_load(tmp_path: Path) -> None:
    BUNDLE.save(tmp_path / "fleet.json")
    assert EnrolmentBundle.load(tmp_path / "fleet.json") == BUNDLE


@pytest.mark.parametrize(
    "fields",
    [
        {"fleet": "Not A Label"},
        {"ca": "-----BEGIN CERTIFICATE-----"},
        {"root": "AAAA"},
        {"server_node": IdentityKey.generate().node},
        {"server_public": "AAAA"},
        {"addresses": []},
        {"addresses": ["admin.example"]},
        {"addresses": ["http://admin.example:1/x"]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_bundle_with_a_wrong_field_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="not a valid enrolment bundle"):
        EnrolmentBundle.decode(changed(**fields))


def test_a_bundle_whose_root_lacks_its_signature_is_refused() -> None:
    root = Metadata[Root].from_bytes(BUNDLE.root)
    root.signatures.clear()
    with pytest.raises(UsageError, match="trust root"):
        EnrolmentBundle.decode(msgspec.structs.replace(BUNDLE, root=root.to_bytes()).encode())


@settings(deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_no_bundle(data: bytes) -> None:
    with pytest.raises(UsageError):
        EnrolmentBundle.decode(data)


def test_an_oversized_bundle_is_refused_before_it_is_read() -> None:
    with pytest.raises(UsageError, match="too large"):
        EnrolmentBundle.decode(b" " * (2 << 20))
