"""Certificates: issued, parsed, checked in a real TLS handshake, and refused when they are wrong."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.errors import P2PDistError, PeerError, TrustError, UsageError
from p2pdist.ids import FleetName, GroupPath, SwarmName
from p2pdist.trust.certificates import (
    FleetAuthority,
    check_certificate,
    make_request,
    parse_certificate,
    parse_request,
)
from p2pdist.trust.keys import IdentityKey

NOW = datetime(2031, 5, 4, 12, 0, tzinfo=UTC)
SWARM = SwarmName("stable.acme.swarm.p2pdist.internal")
AUTHORITY = FleetAuthority.create(FleetName("acme"), NOW)
KEY = IdentityKey.generate()


def issue(
    authority: FleetAuthority = AUTHORITY, *, now: datetime = NOW, hosts: tuple[str, ...] = ()
) -> bytes:
    return authority.issue(
        KEY.public, group=GroupPath("/emea/berlin"), swarms=[SWARM], life_s=3600, now=now, hosts=hosts
    )


def test_a_certificate_names_its_node_group_and_swarms() -> None:
    certificate = parse_certificate(issue(hosts=("admin.example", "10.0.0.2")))
    assert certificate.node == KEY.node
    assert certificate.public == KEY.public
    assert certificate.group == "/emea/berlin"
    assert certificate.swarms == (SWARM,)
    assert certificate.hosts == ("admin.example", "10.0.0.2")
    assert certificate.not_after == NOW + timedelta(hours=1)
    assert certificate.not_before < NOW


def test_der_and_pem_say_the_same() -> None:
    pem = issue()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert parse_certificate(der) == parse_certificate(pem)


def test_the_authority_survives_a_save_and_a_load(tmp_path: Path) -> None:
    AUTHORITY.save(tmp_path)
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    loaded = FleetAuthority.load(tmp_path)
    assert loaded.fleet == "acme"
    assert check_certificate(issue(loaded), ca_pem=AUTHORITY.certificate_pem, now=NOW).node == KEY.node


def test_a_key_and_a_certificate_of_two_authorities_do_not_load(tmp_path: Path) -> None:
    AUTHORITY.save(tmp_path)
    IdentityKey.generate().save(tmp_path / "ca.key")
    with pytest.raises(UsageError, match="do not belong together"):
        FleetAuthority.load(tmp_path)


def test_a_certificate_of_another_fleets_authority_is_refused() -> None:
    stranger = issue(FleetAuthority.create(FleetName("acme"), NOW))
    with pytest.raises(TrustError, match="not of this fleet"):
        check_certificate(stranger, ca_pem=AUTHORITY.certificate_pem, now=NOW)


def test_a_certificate_is_refused_after_its_end_and_long_before_its_begin() -> None:
    for moment in (NOW + timedelta(hours=2), NOW - timedelta(hours=2)):
        with pytest.raises(TrustError, match="valid from"):
            check_certificate(issue(), ca_pem=AUTHORITY.certificate_pem, now=moment)


def test_a_nodes_certificate_cannot_act_as_the_authority() -> None:
    with pytest.raises(TrustError, match="not an authority"):
        check_certificate(issue(), ca_pem=issue(), now=NOW)


@pytest.mark.parametrize("host", ["*", "*.example", SWARM, "a b", "", "x/y"])
def test_a_host_name_that_could_be_a_swarm_or_a_wildcard_is_not_issued(host: str) -> None:
    with pytest.raises(UsageError):
        issue(hosts=(host,))


def test_a_swarm_name_must_be_a_swarm_name() -> None:
    with pytest.raises(UsageError, match="swarm"):
        AUTHORITY.issue(KEY.public, group=GroupPath("/"), swarms=[SwarmName("*")], life_s=60, now=NOW)


def test_a_certificate_without_a_life_is_not_issued() -> None:
    with pytest.raises(UsageError, match="cannot live"):
        AUTHORITY.issue(KEY.public, group=GroupPath("/"), swarms=[], life_s=0, now=NOW)


def test_the_authoritys_own_certificate_is_no_nodes() -> None:
    with pytest.raises(TrustError):
        parse_certificate(AUTHORITY.certificate_pem)


def test_a_certificate_that_names_another_node_than_its_keys_is_refused() -> None:
    other = IdentityKey.generate()
    signing = KEY.for_certificates()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, other.node)])
    forged = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(signing.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"p2pdist:node:{other.node}")]),
            critical=False,
        )
        .sign(signing, None)
    )
    with pytest.raises(TrustError, match=other.node):
        parse_certificate(forged.public_bytes(Encoding.PEM))


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(deadline=None)
@given(
    data=st.binary(max_size=400) | st.binary(max_size=100).map(lambda b: b"-----BEGIN CERTIFICATE-----" + b)
)
def test_arbitrary_bytes_are_refused_as_certificate_and_as_request(data: bytes) -> None:
    with pytest.raises(TrustError):
        parse_certificate(data)
    with pytest.raises(PeerError):
        parse_request(data)


ISSUED_DER = x509.load_pem_x509_certificate(issue()).public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")  # odd, but parsed
@settings(max_examples=400, deadline=None)
@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_an_altered_certificate_never_says_anything_else(position: int, flip: int) -> None:
    der = bytearray(ISSUED_DER)
    der[position % len(der)] ^= flip
    try:
        said = check_certificate(bytes(der), ca_pem=AUTHORITY.certificate_pem, now=NOW)
    except P2PDistError:
        return
    # The count of unused bits before the signature is outside of what is signed.
    assert position % len(der) == len(der) - 65
    assert said == parse_certificate(ISSUED_DER)


def test_a_request_yields_the_key_that_signed_it() -> None:
    assert parse_request(make_request(KEY)) == KEY.public


def test_a_request_with_a_broken_signature_is_not_trusted() -> None:
    request = x509.load_pem_x509_csr(make_request(KEY))
    der = bytearray(request.public_bytes(Encoding.DER))
    der[-1] ^= 1
    pem = ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")
    with pytest.raises(TrustError, match="signature"):
        parse_request(pem.encode())


def test_a_request_for_another_kind_of_key_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    with pytest.raises(PeerError, match="Ed25519"):
        parse_request(request.public_bytes(Encoding.PEM))


def test_openssl_accepts_both_ends_under_its_strictest_rules(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    authority = FleetAuthority.create(FleetName("acme"), now)
    (tmp_path / "leaf.pem").write_bytes(issue(authority, now=now))
    (tmp_path / "leaf.key").write_bytes(KEY.private_pem())
    contexts = []
    for purpose in (ssl.Purpose.CLIENT_AUTH, ssl.Purpose.SERVER_AUTH):
        context = ssl.create_default_context(purpose, cadata=authority.certificate_pem.decode())
        context.load_cert_chain(tmp_path / "leaf.pem", tmp_path / "leaf.key")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        contexts.append(context)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = contexts[0].wrap_bio(to_server, to_client, server_side=True)
    client = contexts[1].wrap_bio(to_client, to_server)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for side in (client, server):
        peer = side.getpeercert(binary_form=True)
        assert peer is not None
        assert parse_certificate(peer).node == KEY.node
