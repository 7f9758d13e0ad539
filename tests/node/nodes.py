"""Certificates, homes and neighbours for the tests of this room: all real, on loopback."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from p2pdist.ids import FleetName, GroupPath, SwarmName
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.home import Home
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.enrolment import EnrolmentBundle
from p2pdist.trust.keys import IdentityKey


class Nodes:
    """A fleet's authority and whoever it has certified."""

    def __init__(self, root: bytes = b"{}") -> None:
        self.authority = FleetAuthority.create(FleetName("acme"), datetime.now(UTC))
        self.server = IdentityKey.generate()
        self.root = root

    def certificate(
        self, key: IdentityKey, group: str = "/emea", *, swarms: Sequence[SwarmName] = ()
    ) -> bytes:
        return self.authority.issue(
            key.public, group=GroupPath(group), swarms=swarms, life_s=3600, now=datetime.now(UTC)
        )

    def identity(self, key: IdentityKey) -> TlsIdentity:
        return TlsIdentity(
            certificate_pem=self.certificate(key),
            key_pem=key.private_pem(),
            ca_pem=self.authority.certificate_pem,
        )

    def home(self, directory: Path, *, swarms: Sequence[SwarmName] = ()) -> Home:
        key = IdentityKey.generate()
        bundle = EnrolmentBundle(
            fleet=FleetName("acme"),
            ca_pem=self.authority.certificate_pem,
            root=self.root,
            server_node=self.server.node,
            server_public=self.server.public,
            addresses=("127.0.0.1:7443",),
        )
        return Home(directory, key, bundle, self.certificate(key, swarms=swarms))
