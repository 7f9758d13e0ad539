"""The fleet's certificate authority, and what a node's certificate says (RFC 5280).

A node's certificate names its node id (common name and ``URI:p2pdist:node:<id>``), its administration
group (``URI:p2pdist:group:<path>``) and, as DNS names, the swarms that it may join, because that is
what libtorrent compares a torrent's name with. The key in it is the node's identity key, so the node
id can be checked from the certificate alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError, UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.ids import (
    FleetName,
    GroupPath,
    NodeId,
    SwarmName,
    node_id_of,
    parse_fleet,
    parse_group,
    parse_node_id,
)
from p2pdist.trust.keys import IdentityKey

_AUTHORITY_LIFE = timedelta(days=3650)  # replacing it means enrolling every node again
_SKEW = timedelta(seconds=limits.CLOCK_SKEW_S)
_NODE_URI = "p2pdist:node:"
_GROUP_URI = "p2pdist:group:"
_SWARM_SUFFIX = ".swarm.p2pdist.internal"
_CERTIFICATE_FILE = "ca.pem"
_KEY_FILE = "ca.key"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")

_MALFORMED = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

T = TypeVar("T")


class NodeCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says about its node. Times are aware, in UTC.

    ``hosts`` are further DNS names and addresses: those under which the admin server serves HTTPS.
    """

    node: NodeId
    public: bytes
    group: GroupPath
    swarms: tuple[SwarmName, ...]
    not_before: datetime
    not_after: datetime
    serial: int
    hosts: tuple[str, ...] = ()


class FleetAuthority:
    """The certificate authority of one fleet: an Ed25519 key and a self-signed certificate.

    Attributes:
        fleet: The fleet's name.
        certificate_pem: The authority's own certificate; every node has it.
    """

    def __init__(self, key: IdentityKey, certificate_pem: bytes) -> None:
        certificate = load_authority_certificate(certificate_pem)
        if _public_bytes(certificate.public_key()) != key.public:
            raise UsageError("the authority's key and certificate do not belong together")
        self._key = key
        self._certificate = certificate
        self.certificate_pem = certificate_pem
        self.fleet: FleetName = parse_fleet(_common_name(certificate, NameOID.ORGANIZATION_NAME))

    @classmethod
    def create(cls, fleet: FleetName, now: datetime) -> FleetAuthority:
        """Make a new authority for *fleet*, valid for ten years from *now* (aware)."""
        key = IdentityKey.generate()
        signing = key.for_certificates()
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{fleet} fleet authority"),
            ]
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(signing.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + _AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(signing.public_key()), critical=False)
            .sign(signing, None)
        )
        return cls(key, certificate.public_bytes(serialization.Encoding.PEM))

    @classmethod
    def load(cls, directory: Path) -> FleetAuthority:
        """Read what :meth:`save` wrote. Raises UsageError if it is not there or damaged."""
        pem = read_bounded(directory / _CERTIFICATE_FILE, bytes_max=limits.KEY_FILE_BYTES_MAX)
        return cls(IdentityKey.load(directory / _KEY_FILE), pem)

    def save(self, directory: Path) -> None:
        """Write ``ca.key`` (owner only) and ``ca.pem`` into *directory*, which must exist.

        Raises:
            Unavailable: the disk is full or fails.
        """
        self._key.save(directory / _KEY_FILE)
        write_atomic(directory / _CERTIFICATE_FILE, self.certificate_pem)

    def issue(
        self,
        public_key: bytes,
        *,
        group: GroupPath,
        swarms: Sequence[SwarmName],
        life_s: int,
        now: datetime,
        hosts: Sequence[str] = (),
    ) -> bytes:
        """Issue a node's certificate, and return it as PEM.

        Args:
            public_key: The node's identity key, 32 bytes.
            group: Its administration group.
            swarms: The swarms that it may join.
            life_s: Seconds from *now* until it ends. It begins some minutes in the past, for nodes
                whose clocks are late.
            now: The time, aware.
            hosts: DNS names and addresses for HTTPS; never a swarm's name.

        Raises:
            UsageError: a name is not valid, or *life_s* is not positive.
        """
        if life_s <= 0:
            raise UsageError(f"a certificate cannot live for {life_s} seconds")
        node = node_id_of(public_key)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(_NODE_URI + node),
            x509.UniformResourceIdentifier(_GROUP_URI + parse_group(group)),
        ]
        names += [x509.DNSName(_checked_swarm(swarm)) for swarm in swarms]
        names += [_host_name(host) for host in hosts]
        authority_key = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        subject = Ed25519PublicKey.from_public_bytes(public_key)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
            .issuer_name(self._certificate.subject)
            .public_key(subject)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + timedelta(seconds=life_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority_key), critical=False
            )
            .sign(self._key.for_certificates(), None)
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def parse_certificate(data: bytes) -> NodeCertificate:
    """Read a node's certificate, PEM or DER. Its signature and dates are not checked here: TLS does that.

    Raises:
        TrustError: it is malformed, or does not say what a certificate of a fleet says.
    """
    certificate = _load_certificate(data)
    with _malformed(TrustError, "a certificate"):
        public = _public_bytes(certificate.public_key())
        node = node_id_of(public)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns = names.get_values_for_type(x509.DNSName)
        addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
        named = [_parsed(parse_node_id, u.removeprefix(_NODE_URI)) for u in uris if u.startswith(_NODE_URI)]
        groups = [_parsed(parse_group, u.removeprefix(_GROUP_URI)) for u in uris if u.startswith(_GROUP_URI)]
        if named != [node] or _common_name(certificate, NameOID.COMMON_NAME) != node:
            raise TrustError(
                f"a certificate names {', '.join(named) or 'no node'}, but its key is that of {node}",
                hint="somebody issued it wrongly; look into the admin server's audit log",
            )
        if len(groups) != 1:
            raise TrustError(f"the certificate of {node} names {len(groups)} groups instead of one")
        return NodeCertificate(
            node=node,
            public=public,
            group=groups[0],
            swarms=tuple(SwarmName(name) for name in dns if name.endswith(_SWARM_SUFFIX)),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
            hosts=(*(name for name in dns if not name.endswith(_SWARM_SUFFIX)), *addresses),
        )


def check_certificate(data: bytes, *, ca_pem: bytes, now: datetime) -> NodeCertificate:
    """Read a node's certificate that came outside of TLS, and check the CA's signature and the dates.

    Raises:
        TrustError: it is malformed, not of this fleet's authority, or not valid *now*.
    """
    parsed = check_issuer(data, ca_pem=ca_pem)
    if not parsed.not_before <= now <= parsed.not_after:
        raise TrustError(
            f"the certificate of {parsed.node} is valid from {parsed.not_before:%Y-%m-%d %H:%M} to"
            f" {parsed.not_after:%Y-%m-%d %H:%M} UTC, and now it is {now:%Y-%m-%d %H:%M}",
            hint="check the clock; then renew it",
        )
    return parsed


def check_issuer(data: bytes, *, ca_pem: bytes) -> NodeCertificate:
    """Read a node's certificate that came outside of TLS, and check the CA's signature, not the dates.

    Raises:
        TrustError: it is malformed, or not of this fleet's authority.
    """
    parsed = parse_certificate(data)
    try:
        _load_certificate(data).verify_directly_issued_by(load_authority_certificate(ca_pem))
    except (InvalidSignature, *_MALFORMED):
        raise TrustError(f"the certificate of {parsed.node} is not of this fleet's authority") from None
    return parsed


def make_request(key: IdentityKey) -> bytes:
    """Make a certificate request (PKCS #10, PEM), which proves that its sender holds *key*."""
    signing = key.for_certificates()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, key.node)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(signing, None)
    return request.public_bytes(serialization.Encoding.PEM)


def parse_request(pem: bytes) -> bytes:
    """Check a certificate request and return the public key in it. Nothing else in it counts.

    Raises:
        PeerError: it is malformed, too large, or not an Ed25519 key's.
        TrustError: its signature does not match: the sender does not hold the key.
    """
    if len(pem) > limits.ENROL_BYTES_MAX:
        raise PeerError(f"a certificate request of {len(pem)} bytes is too large")
    with _malformed(PeerError, "a certificate request"):
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        valid = request.is_signature_valid
    if not isinstance(key, Ed25519PublicKey):
        raise PeerError("a certificate request is not for an Ed25519 key")
    if not valid:
        raise TrustError("the signature on a certificate request does not match its key")
    return key.public_bytes_raw()


def load_authority_certificate(pem: bytes) -> x509.Certificate:
    """Read the certificate of a fleet's authority.

    Raises:
        TrustError: it is malformed, or not an authority's.
    """
    certificate = _load_certificate(pem)
    with _malformed(TrustError, "the fleet authority's certificate"):
        _public_bytes(certificate.public_key())
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if not constraints.ca:
        raise TrustError("a certificate that should be the fleet authority's is not an authority's")
    return certificate


def _load_certificate(data: bytes) -> x509.Certificate:
    if len(data) > limits.ENROL_BYTES_MAX:
        raise TrustError(f"a certificate of {len(data)} bytes is too large")
    with _malformed(TrustError, "a certificate"):
        if data.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)


@contextmanager
def _malformed(kind: type[TrustError] | type[PeerError], what: str) -> Generator[None, None, None]:
    """Turn what ``cryptography`` raises for malformed input into ours."""
    try:
        yield
    except _MALFORMED as error:
        raise kind(f"{what} is not valid ({error})") from None


def _public_bytes(key: object) -> bytes:
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError("a certificate holds no Ed25519 key")
    return key.public_bytes_raw()


def _common_name(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    names = certificate.subject.get_attributes_for_oid(oid)
    return str(names[0].value) if len(names) == 1 else ""


def _parsed(parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except UsageError as error:
        raise TrustError(f"a certificate holds a wrong name: {error.what}") from None


def _checked_swarm(swarm: str) -> str:
    if not swarm.endswith(_SWARM_SUFFIX) or "*" in swarm or not swarm.isascii():
        raise UsageError(f"{swarm!r} is not a swarm's name", hint="make it with swarm_of()")
    return swarm


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST.fullmatch(host) or host.endswith(_SWARM_SUFFIX):
        raise UsageError(f"{host!r} is not a host's name or address")
    return x509.DNSName(host)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
