"""A small fleet for the swarm's tests: a certificate authority, nodes, and artifacts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio

from p2pdist.ids import FleetName, GroupPath, NodeId, SwarmName
from p2pdist.swarm.session import Artifact, Source, Swarm, SwarmEvent, SwarmSettings, open_swarm
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import Role

SWARM = SwarmName("stable.acme.swarm.p2pdist.internal")
PATIENCE_S = 30.0


def authority() -> FleetAuthority:
    return FleetAuthority.create(FleetName("acme"), datetime.now(UTC) - timedelta(days=2))


class Node:
    """A node's identity and address; :meth:`open` starts its swarm."""

    def __init__(
        self,
        authority: FleetAuthority,
        role: Role,
        host: str,
        *,
        swarms: Sequence[SwarmName] = (SWARM,),
        expired: bool = False,
        trusts: FleetAuthority | None = None,
        dials: bool = True,
    ) -> None:
        self.dials = dials
        self.key = IdentityKey.generate()
        self.node: NodeId = self.key.node
        self.role: Role = role
        self.host = host
        self.authority = authority
        self.certificate_pem = self.issue(swarms, expired=expired)
        self.ca_pem = (trusts or authority).certificate_pem

    def issue(self, swarms: Sequence[SwarmName] = (SWARM,), *, expired: bool = False) -> bytes:
        return self.authority.issue(
            self.key.public,
            group=GroupPath("/"),
            swarms=swarms,
            life_s=60 if expired else 3_600,
            now=datetime.now(UTC) - timedelta(days=1 if expired else 0),
        )

    def open(self, *, port: int = 0) -> AbstractAsyncContextManager[Swarm]:
        return open_swarm(
            SwarmSettings(
                role=self.role,
                node=self.node,
                host=self.host,
                port=port,
                ca_pem=self.ca_pem,
                certificate_pem=self.certificate_pem,
                key_pem=self.key.private_pem(),
                dials=self.dials,
            )
        )

    def source(self, swarm: Swarm, *, wan: bool = False) -> Source:
        return Source(node=self.node, role=self.role, host=self.host, port=swarm.port, wan=wan)


def content(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


def made(directory: Path, data: bytes, *, piece_bytes: int | None = None) -> MadeTorrent:
    path = directory / "original"
    path.write_bytes(data)
    return make_torrent(path, swarm=SWARM, piece_bytes=piece_bytes)


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
