"""A node's directory: what makes it this node, and what it must remember.

::

    identity.key       the Ed25519 identity key (owner only)
    certificate.pem    the newest certificate of the fleet's CA
    enrolment.json     the fleet: CA, trust root, admin server
    trust/             verified metadata
    artifacts/         content by info-hash, whole or in part
    torrents/          torrents by info-hash
    state/             desired state, journal, counters
    node.lock          held while a program runs on this directory
"""

from __future__ import annotations

from pathlib import Path

from p2pdist import limits
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded, storage_error, write_atomic
from p2pdist.ids import FleetName, InfoHash, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.certificates import NodeCertificate, check_issuer, parse_certificate
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire import codec
from p2pdist.wire.messages import DesiredState

_log = get_logger()


class Home:
    """Paths of one node, and its credentials. Blocking file access; small files only.

    Attributes:
        key: The node's identity key.
        enrolment: The fleet that the node belongs to.
        certificate: What the newest certificate says.
    """

    def __init__(
        self, root: Path, key: IdentityKey, enrolment: EnrolmentBundle, certificate_pem: bytes
    ) -> None:
        self.root = root
        self.key = key
        self.enrolment = enrolment
        self.certificate_pem = certificate_pem
        self.certificate: NodeCertificate = parse_certificate(certificate_pem)
        self._shown: TlsIdentity | None = None
        for directory in (self.trust, self.artifacts, self.torrents, self.state):
            directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def open(cls, root: Path) -> Home:
        """Open the directory of an enrolled node.

        Raises:
            UsageError: nothing is enrolled there, or a file is damaged.
        """
        if not (root / "certificate.pem").exists():
            raise UsageError(
                f"{root} holds no enrolled node",
                hint="enrol it first: p2pdist-agent enrol --data DIR --bundle FILE --token-file FILE",
            )
        key = IdentityKey.load(root / "identity.key")
        enrolment = EnrolmentBundle.load(root / "enrolment.json")
        pem = read_bounded(root / "certificate.pem", bytes_max=limits.ENROL_BYTES_MAX)
        home = cls(root, key, enrolment, pem)
        if home.certificate.node != key.node:
            raise UsageError(
                f"{root}: the certificate names {home.certificate.node}, the key is {key.node}",
                hint="enrol the node again",
            )
        return home

    @property
    def node(self) -> NodeId:
        """The node's id."""
        return self.key.node

    @property
    def fleet(self) -> FleetName:
        """The fleet's name."""
        return FleetName(self.enrolment.fleet)

    @property
    def trust(self) -> Path:
        """Where verified metadata is kept."""
        return self.root / "trust"

    @property
    def artifacts(self) -> Path:
        """Where content is kept, one file per info-hash."""
        return self.root / "artifacts"

    @property
    def torrents(self) -> Path:
        """Where torrents are kept, one file per info-hash."""
        return self.root / "torrents"

    @property
    def state(self) -> Path:
        """Where the node remembers what it was told and what it did."""
        return self.root / "state"

    @property
    def lock(self) -> Path:
        """The file whose lock keeps a second program off this directory."""
        return self.root / "node.lock"

    def artifact(self, info_hash: InfoHash) -> Path:
        """Return the content file of an artifact."""
        return self.artifacts / info_hash

    def torrent(self, info_hash: InfoHash) -> Path:
        """Return the torrent file of an artifact."""
        return self.torrents / f"{info_hash}.torrent"

    def read_torrent(self, info_hash: InfoHash) -> bytes:
        """Return an artifact's torrent, unchecked. Blocking. Raises Unavailable when it cannot be read."""
        path = self.torrent(info_hash)
        try:
            return path.read_bytes()
        except OSError as error:
            raise storage_error(f"{path} could not be read", error) from error

    def tls_identity(self) -> TlsIdentity:
        """Return what the node shows on its links right now; the same object until that changes."""
        if self._shown is None or self._shown.certificate_pem != self.certificate_pem:
            self._shown = TlsIdentity(
                certificate_pem=self.certificate_pem,
                key_pem=self.key.private_pem(),
                ca_pem=self.enrolment.ca_pem,
            )
        return self._shown

    def replace_certificate(self, pem: bytes) -> None:
        """Take a renewed certificate into use, durably.

        Raises:
            UsageError: it is not one for this node's key, or issued before the present
                one: an envelope may come late, and after a restart a second time.
            TrustError: it is not of the fleet's authority: whoever passed it on may have made it.
            Unavailable: it could not be written; the old one stays.
        """
        certificate = check_issuer(pem, ca_pem=self.enrolment.ca_pem)
        if certificate.node != self.node:
            raise UsageError(f"a certificate for {certificate.node} was offered to {self.node}")
        if certificate.not_before < self.certificate.not_before:
            raise UsageError("a certificate was offered that is older than the present one")
        write_atomic(self.root / "certificate.pem", pem)
        self.certificate_pem = pem
        self.certificate = certificate


def load_desired(home: Home) -> DesiredState | None:
    """Return what the admin server last wanted of this node; None if it never said, or the file is damaged.

    A damaged file costs nothing but time: the next heartbeat says that the node knows nothing.
    """
    path = home.state / "desired"
    if not path.exists():
        return None
    try:
        data = read_bounded(path, bytes_max=limits.ENVELOPE_BYTES_MAX)
        desired: DesiredState = codec.decode(data, DesiredState, bytes_max=limits.ENVELOPE_BYTES_MAX)
    except P2PDistError as error:
        _log.warning("state.damaged", path=str(path), reason=str(error))
        return None
    return desired


def save_desired(home: Home, desired: DesiredState) -> None:
    """Keep what the admin server wants, durably. Raises Unavailable when the disk is full."""
    data = codec.encode(desired, bytes_max=limits.ENVELOPE_BYTES_MAX)
    write_atomic(home.state / "desired", data)
