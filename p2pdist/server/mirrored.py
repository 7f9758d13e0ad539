"""The admin server's content, for work that is about it: what it reads from mirrors itself, and then serves.

It is read in the origin's swarm, into a file beside the uploads, which a later run goes on with. When all of
it is here, it is hashed and put in its place like an upload. Until then uploads of it wait.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from p2pdist.core.mirrored import Chosen, choose
from p2pdist.duties.kinds import perform
from p2pdist.duties.repository import Place
from p2pdist.duties.runner import Perform
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId, swarm_of
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.swarm.session import Artifact, Swarm
from p2pdist.trust.catalog import Release
from p2pdist.trust.enrolment import EnrolmentBundle

if TYPE_CHECKING:  # which makes one of these
    from p2pdist.server.service import Service, ServiceSettings


def own_work(service: Service, settings: ServiceSettings) -> Perform:
    """Return what does the admin server's own work."""
    content = MirroredContent(service, settings.mirrors)
    return partial(perform, repository=content, directories=settings.directories)


class MirroredContent:
    """What :class:`~p2pdist.duties.repository.Repository` asks for, over the admin server's content."""

    def __init__(self, service: Service, settings: MirrorSettings) -> None:
        self._service = service
        self.settings = settings

    @property
    def node(self) -> NodeId:
        """The admin server."""
        return self._service.home.key.node

    @property
    def swarm(self) -> Swarm:
        """The origin's swarm."""
        return self._service.origin.swarm

    @property
    def dials(self) -> bool:
        """The admin server may dial anybody."""
        return True

    async def choose(self, targets: Iterable[str]) -> Chosen:
        """Find releases among those that are published."""
        catalog = self._service.catalog
        return choose(targets, catalog.releases if catalog is not None else {})

    def bundle(self) -> EnrolmentBundle:
        """Return the fleet's, without addresses: the work names them."""
        home = self._service.home
        return EnrolmentBundle(
            fleet=home.fleet,
            ca_pem=home.authority.certificate_pem,
            root=home.trusted_root,
            server_node=home.key.node,
            server_public=home.key.public,
            addresses=(),
        )

    @asynccontextmanager
    async def open(self, release: Release) -> AsyncIterator[Place]:
        """Have an artifact in the origin's swarm; take it as content afterwards if all of it is here.

        Raises:
            Unavailable: it is being uploaded, its torrent is not here, or the disk fails.
            TrustError: it is whole, and has another hash than the signed one.
        """
        service, info_hash = self._service, release.info_hash
        torrent = await trio.to_thread.run_sync(service.home.read_torrent, info_hash)
        if torrent is None:
            raise Unavailable(
                f"the torrent of {release.target} is not at the server", hint="publish it again"
            )
        _, complete = await service.uploads.state(info_hash)
        if complete:
            yield Place(self._artifact(release, torrent), True)
            return
        path = service.uploads.directory / f"{info_hash}.mirrored"
        with service.uploads.claimed(info_hash):
            async with service.origin.reading(release, torrent, path) as artifact:
                service.plane.swarms.set_origin(service.origin.presences())
                yield Place(artifact, False)
                at = service.origin.swarm.statistics(info_hash)
            if at.complete:
                await service.uploads.take(
                    info_hash,
                    path,
                    length=release.length,
                    sha256=release.sha256,
                    now=int(time.time()),
                    published=True,
                    sent_bytes=sum(source.sent for source in at.sources),
                )
        await service.content_arrived(info_hash)

    def _artifact(self, release: Release, torrent: bytes) -> Artifact:
        return Artifact(
            info_hash=release.info_hash,
            torrent=torrent,
            path=self._service.home.artifact(release.info_hash),
            swarm=swarm_of(release.channel, self._service.home.fleet),
            length=release.length,
            sealed=True,
        )
