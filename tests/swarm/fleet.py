"""A small fleet for the swarm's tests: a certificate authority, nodes, and artifacts."""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from p2pdist.ids import NodeId, SwarmName, node_id_of
from p2pdist.swarm.session import Artifact, Source, Swarm, SwarmEvent, SwarmSettings, open_swarm
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.wire.frames import Role

SWARM = SwarmName("stable.acme.swarm.p2pdist.internal")
PATIENCE_S = 30.0


class Authority:
    """A certificate authority that issues whatever a test asks for."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self.pem = self._sign("authority", self._key, (), ca=True)

    def issue(self, key: Ed25519PrivateKey, swarms: Sequence[str], *, life_s: int = 3_600) -> bytes:
        return self._sign("node", key, swarms, life_s=life_s)

    def _sign(
        self,
        name: str,
        key: Ed25519PrivateKey,
        swarms: Sequence[str],
        *,
        ca: bool = False,
        life_s: int = 3_600,
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=2))
            .not_valid_after(now + datetime.timedelta(seconds=life_s))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if swarms:
            names = [x509.DNSName(swarm) for swarm in swarms]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, None).public_bytes(Encoding.PEM)


class Node:
    """A node's identity and address; :meth:`open` starts its swarm."""

    def __init__(
        self,
        authority: Authority,
        role: Role,
        host: str,
        *,
        swarms: Sequence[str] = (SWARM,),
        life_s: int = 3_600,
        trusts: Authority | None = None,
    ) -> None:
        key = Ed25519PrivateKey.generate()
        self.node: NodeId = node_id_of(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.role: Role = role
        self.host = host
        self.key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.certificate_pem = authority.issue(key, swarms, life_s=life_s)
        self.renewed_pem = authority.issue(key, (SWARM,))
        self.ca_pem = (trusts or authority).pem

    def open(self, *, port: int = 0) -> AbstractAsyncContextManager[Swarm]:
        return open_swarm(
            SwarmSettings(
                role=self.role,
                node=self.node,
                host=self.host,
                port=port,
                ca_pem=self.ca_pem,
                certificate_pem=self.certificate_pem,
                key_pem=self.key_pem,
            )
        )

    def source(self, swarm: Swarm, *, wan: bool = False) -> Source:
        return Source(node=self.node, role=self.role, host=self.host, port=swarm.port, wan=wan)


def content(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def made(directory: Path, data: bytes) -> MadeTorrent:
    path = directory / "original"
    path.write_bytes(data)
    return make_torrent(path, swarm=SWARM)


def artifact(torrent: MadeTorrent, path: Path, *, sealed: bool = False) -> Artifact:
    return Artifact(
        info_hash=torrent.info_hash,
        torrent=torrent.torrent,
        path=path,
        swarm=SWARM,
        length=torrent.length,
        sealed=sealed,
    )


async def wait_event(swarm: Swarm, *kinds: type[SwarmEvent]) -> SwarmEvent:
    """Return the next event of one of these kinds."""
    with trio.fail_after(PATIENCE_S):
        async for event in swarm.events():
            if isinstance(event, kinds):
                return event
    raise AssertionError("the swarm was closed")
