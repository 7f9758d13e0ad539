"""A fleet with real certificates, and servers of links on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from p2pdist.ids import GroupPath, NodeId, parse_fleet
from p2pdist.net.link import (
    Link,
    OpenLinks,
    RequestHandler,
    RequestTable,
    StreamTable,
    open_link,
    serve_links,
)
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.certificates import FleetAuthority, NodeCertificate, parse_certificate
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.requests import Torrent, TorrentRequest
from tests.net.raw_peer import RawPeer, open_against


@dataclass
class Fleet:
    """A fleet's authority, and nodes made by it."""

    authority: FleetAuthority = field(
        default_factory=lambda: FleetAuthority.create(parse_fleet("acme"), datetime.now(UTC))
    )

    def identity(
        self,
        key: IdentityKey | None = None,
        *,
        group: str = "/a",
        now: datetime | None = None,
        life_s: int = 3600,
        ca_pem: bytes | None = None,
    ) -> TlsIdentity:
        """Return a node's identity; a new node's unless *key* is given."""
        key = key or IdentityKey.generate()
        pem = self.authority.issue(
            key.public, group=GroupPath(group), swarms=[], life_s=life_s, now=now or datetime.now(UTC)
        )
        return TlsIdentity(
            certificate_pem=pem, key_pem=key.private_pem(), ca_pem=ca_pem or self.authority.certificate_pem
        )

    @staticmethod
    def node_of(identity: TlsIdentity) -> NodeId:
        """Return whose identity it is."""
        return parse_certificate(identity.certificate_pem).node


async def read_all(link: Link) -> None:
    """Read frames until the link ends."""
    async for _ in link.frames():
        pass


async def empty_torrent(link: Link, request: TorrentRequest) -> Torrent:
    """Answer with an info-hash's own characters, so that an answer can be told from another."""
    return Torrent(torrent=request.info_hash.encode())


REQUESTS: RequestTable = {
    "/torrent": RequestHandler(TorrentRequest, empty_torrent),
    "/enrol": RequestHandler(TorrentRequest, empty_torrent, strangers=True),
}


@dataclass
class Server:
    """A server of links that runs in the background of a test."""

    host: str
    port: int
    identity: TlsIdentity
    links: OpenLinks
    scope: trio.CancelScope

    @property
    def node(self) -> NodeId:
        return Fleet.node_of(self.identity)


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(scope="session")
def device_certificate(fleet: Fleet) -> NodeCertificate:
    return parse_certificate(fleet.identity().certificate_pem)


@pytest.fixture(scope="session")
def server_certificate(fleet: Fleet) -> NodeCertificate:
    return parse_certificate(fleet.identity().certificate_pem)


@pytest.fixture
def serving(fleet: Fleet) -> Callable[..., AbstractAsyncContextManager[Server]]:
    """Serve links on a port of loopback for as long as the block runs."""

    @asynccontextmanager
    async def serve(
        *,
        on_link: Callable[[Link], Awaitable[None]] = read_all,
        requests: RequestTable = REQUESTS,
        streams: StreamTable | None = None,
        identity: TlsIdentity | Callable[[], TlsIdentity] | None = None,
        revoked: Callable[[NodeId], bool] = lambda node: False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> Any:
        shown = identity or fleet.identity()
        links = OpenLinks()

        async def run(*, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await serve_links(
                host=host,
                port=port,
                identity=shown if callable(shown) else lambda: shown,
                requests=requests,
                streams=streams,
                on_link=on_link,
                revoked=revoked,
                open_links=links,
                task_status=task_status,
            )

        async with trio.open_nursery() as nursery:
            host, bound = await nursery.start(run)
            yield Server(
                host=host,
                port=bound,
                identity=shown() if callable(shown) else shown,
                links=links,
                scope=nursery.cancel_scope,
            )
            nursery.cancel_scope.cancel()

    return serve


@pytest.fixture
def linked(serving: Any, fleet: Fleet) -> Callable[..., AbstractAsyncContextManager[tuple[Link, Server]]]:
    """Serve links and dial one, for as long as the block runs. Takes what ``serving`` takes."""

    @asynccontextmanager
    async def link(
        *,
        dialler_requests: RequestTable | None = None,
        dialler_streams: StreamTable | None = None,
        **arguments: Any,
    ) -> Any:
        async with (
            serving(**arguments) as server,
            open_link(
                server.host,
                server.port,
                identity=fleet.identity(),
                expect=server.node,
                requests=dialler_requests,
                streams=dialler_streams,
            ) as dialled,
        ):
            yield dialled, server

    return link


@pytest.fixture
def both_ways(
    serving: Any, fleet: Fleet
) -> Callable[..., AbstractAsyncContextManager[tuple[Link, Link, Server]]]:
    """A link over real sockets whose two sides answer and serve the same.

    Yields the side that asks, the side that answers, and the server.
    """

    @asynccontextmanager
    async def link(
        *, acceptor_asks: bool, requests: RequestTable = REQUESTS, streams: StreamTable | None = None
    ) -> Any:
        async with (
            serving(requests=requests, streams=streams) as server,
            open_link(
                server.host,
                server.port,
                identity=fleet.identity(),
                expect=server.node,
                requests=requests,
                streams=streams,
            ) as dialled,
        ):
            [accepted] = server.links
            yield (accepted, dialled, server) if acceptor_asks else (dialled, accepted, server)

    return link


@pytest.fixture
def against(
    device_certificate: NodeCertificate, server_certificate: NodeCertificate
) -> Callable[..., AbstractAsyncContextManager[tuple[Link, RawPeer]]]:
    """A link whose other end is a :class:`RawPeer`; takes what :func:`open_against` takes."""

    def opened(
        *, dialler: bool, requests: RequestTable = REQUESTS, streams: StreamTable | None = None
    ) -> AbstractAsyncContextManager[tuple[Link, RawPeer]]:
        remote = server_certificate if dialler else device_certificate
        return open_against(remote, dialler=dialler, requests=requests, streams=streams)

    return opened


@pytest.fixture
def standing(against: Any) -> Callable[..., AbstractAsyncContextManager[tuple[Link, RawPeer]]]:
    """The same, once the raw peer has brought the link up."""

    @asynccontextmanager
    async def opened(**arguments: Any) -> Any:
        async with against(**arguments) as (link, raw):
            await raw.stand(link)
            yield link, raw

    return opened
