"""The origin: the admin server's own seed, which serves every published artifact that does not come from
vendors' mirrors.

Published content is sealed: libtorrent never writes to it, and checks each piece before it serves it for
the first time. A file that does not match its torrent is not served, and everybody who wants it is told.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from p2pdist.core.rates import lowest_at
from p2pdist.errors import P2PDistError, Unavailable
from p2pdist.ids import FleetName, InfoHash, NodeId, swarm_of
from p2pdist.logs import get_logger
from p2pdist.swarm.session import (
    Artifact,
    ContentAltered,
    Source,
    StorageFailed,
    StrangerRefused,
    Swarm,
    SwarmSettings,
    open_swarm,
)
from p2pdist.swarm.torrents import check_torrent
from p2pdist.swarm.tuning import REQUESTS
from p2pdist.trust.catalog import Release
from p2pdist.wire.frames import Candidate, Endpoint, Presence
from p2pdist.wire.messages import RateLimits, SourceBytes

_log = get_logger()

_RATES_EVERY_S = 30.0
_CLOSE_S = 15.0  # libtorrent has ten of them


class OriginSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the origin listens (port 0 takes any), and how fast it may send; 0 is unlimited.

    ``windows`` lower that by time of day; see :mod:`p2pdist.core.rates`. ``requests`` as in
    :data:`p2pdist.swarm.tuning.REQUESTS`.
    """

    host: str
    port: int
    up_bytes_per_s: int = 0
    windows: tuple[str, ...] = ()
    requests: int = REQUESTS

    @property
    def rates(self) -> RateLimits:
        """The limits of its swarm: everybody reaches the origin over the WAN."""
        return RateLimits(wan_up=self.up_bytes_per_s, windows=list(self.windows))


class Origin:
    """Serves published artifacts. Made by :func:`open_origin`.

    Args:
        fleet: The fleet's name.
        swarm: The admin server's swarm session, with the role ``origin``.
        content: Returns the content file of an artifact.
        altered: Called with an artifact whose file is not what was signed, and the reason.
        refused: Called with the address of a stranger who was turned away, and the reason.

    Attributes:
        damaged: The artifacts whose files are not what was signed, and why.
        mirrored: The artifacts that come from vendors' mirrors and are not served.
    """

    def __init__(
        self,
        fleet: FleetName,
        swarm: Swarm,
        *,
        content: Callable[[InfoHash], Path],
        altered: Callable[[InfoHash, str], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self._fleet = fleet
        self._refused = refused
        self._swarm = swarm
        self._content = content
        self._altered = altered
        self._served: dict[InfoHash, Release] = {}
        self.mirrored: frozenset[InfoHash] = frozenset()
        self._read: set[InfoHash] = set()
        self._rates = RateLimits()
        self.damaged: dict[InfoHash, str] = {}

    @property
    def swarm(self) -> Swarm:
        """The admin server's swarm session, for what it reads from mirrors itself."""
        return self._swarm

    @property
    def port(self) -> int:
        """The port of the swarm."""
        return self._swarm.port

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Where the swarm listens."""
        return self._swarm.endpoints

    def learn(self, nodes: list[NodeId]) -> None:
        """Learn of nodes that may connect, so that their bytes can be put to their names."""
        self._swarm.learn(nodes)

    def call(self, info_hash: InfoHash, points: Sequence[Candidate]) -> None:
        """Dial these points: they want an artifact, and dial nobody themselves."""
        if info_hash not in self._served and info_hash not in self._read:
            return
        calls = [
            Source(node=NodeId(point.node), role=point.role, host=point.host, port=point.port, wan=True)
            for point in points
        ]
        self._swarm.set_sources(info_hash, calls)

    def set_identity(self, certificate_pem: bytes, key_pem: bytes) -> None:
        """Show a renewed certificate from now on."""
        self._swarm.set_identity(certificate_pem, key_pem)

    async def serve(
        self,
        releases: Mapping[InfoHash, Release],
        torrents: Mapping[InfoHash, bytes],
        *,
        mirrored: frozenset[InfoHash] = frozenset(),
    ) -> None:
        """Serve exactly these releases: begin with new ones, stop those that are no longer published.

        Of the *mirrored* artifacts it is said that they come from vendors' mirrors.
        """
        self.mirrored = mirrored
        for info_hash in [h for h in self._served if h not in releases]:
            await self._swarm.remove(info_hash, delete=False)
            del self._served[info_hash]
            self.damaged.pop(info_hash, None)
        for info_hash, release in releases.items():
            if info_hash in self._served or info_hash in self._read or info_hash in self.damaged:
                continue
            try:
                await self._add(release, torrents[info_hash])
            except Unavailable as error:
                _log.error("origin.not_served", target=release.target, reason=str(error))
            except P2PDistError as error:
                self.distrust(info_hash, str(error))

    def presences(self) -> list[Presence]:
        """Return what the origin serves, as the tracker wants it."""
        found = []
        for info_hash in self._served:
            if info_hash not in self.damaged:
                pieces = self._swarm.statistics(info_hash).pieces
                found.append(Presence(info_hash=info_hash, have=pieces, pieces=pieces, complete=True))
        for info_hash in self._read:
            at = self._swarm.statistics(info_hash)
            found.append(Presence(info_hash=info_hash, have=at.have, pieces=at.pieces, complete=at.complete))
        for info_hash in self.mirrored - self._read:
            found.append(Presence(info_hash=info_hash, have=0, pieces=0, complete=False, mirrored=True))
        return found

    def sent(self) -> Mapping[InfoHash, tuple[SourceBytes, ...]]:
        """Return how many bytes of each artifact went to whom since the server started."""
        carried = [*self._served, *self._read]
        return {info_hash: self._swarm.statistics(info_hash).sources for info_hash in carried}

    @asynccontextmanager
    async def reading(self, release: Release, torrent: bytes, path: Path) -> AsyncIterator[Artifact]:
        """Take part in an artifact's swarm for as long as the block runs, to fill *path* with it.

        Raises:
            TrustError, PeerError: the torrent is not the release's.
            Unavailable, UsageError: it is in the swarm already, or there is no room.
        """
        swarm = swarm_of(release.channel, self._fleet)
        check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)
        artifact = Artifact(
            info_hash=release.info_hash,
            torrent=torrent,
            path=path,
            swarm=swarm,
            length=release.length,
            sealed=False,
        )
        await self._swarm.add(artifact)
        self._read.add(release.info_hash)
        try:
            yield artifact
        finally:
            self._read.discard(release.info_hash)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSE_S):
                await self._swarm.remove(release.info_hash, delete=False)

    def set_rates(self, rates: RateLimits) -> None:
        """Limit what the origin sends, by time of day, from now on."""
        self._rates = rates
        local = time.localtime()
        self._swarm.set_rates(lowest_at([rates], local.tm_hour * 60 + local.tm_min))

    async def run(self) -> None:
        """Watch the swarm and the clock until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_swarm)
            nursery.start_soon(self._follow_clock)

    async def _follow_clock(self) -> None:
        while True:
            self.set_rates(self._rates)
            await trio.sleep(_RATES_EVERY_S)

    async def _follow_swarm(self) -> None:
        async for event in self._swarm.events():
            match event:
                case ContentAltered(info_hash=info_hash, reason=reason):
                    self.distrust(info_hash, reason)
                case StrangerRefused(address=address, reason=reason):
                    _log.warning("origin.stranger_refused", address=address, reason=reason)
                    self._refused(address, reason)
                case StorageFailed(info_hash=info_hash, reason=reason):
                    _log.error("origin.storage_failed", info_hash=info_hash, reason=reason)
                case _:
                    _log.debug("origin.event", swarm_event=type(event).__name__)

    async def _add(self, release: Release, torrent: bytes) -> None:
        swarm = swarm_of(release.channel, self._fleet)
        check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)
        await self._swarm.add(
            Artifact(
                info_hash=release.info_hash,
                torrent=torrent,
                path=self._content(release.info_hash),
                swarm=swarm,
                length=release.length,
                sealed=True,
            )
        )
        self._served[release.info_hash] = release

    async def restore(self, info_hash: InfoHash) -> None:
        """Forget that an artifact was altered: a good file is there. The next :meth:`serve` takes it in."""
        self.damaged.pop(info_hash, None)
        if info_hash in self._served:
            await self._swarm.remove(info_hash, delete=False)
            del self._served[info_hash]

    def distrust(self, info_hash: InfoHash, reason: str) -> None:
        """An artifact's file is not what was signed: do not offer it, and say so."""
        if info_hash in self.damaged:
            return
        _log.error("origin.content_altered", info_hash=info_hash, reason=reason)
        self.damaged[info_hash] = reason
        self._altered(info_hash, reason)


@asynccontextmanager
async def open_origin(
    settings: OriginSettings,
    *,
    fleet: FleetName,
    node: NodeId,
    ca_pem: bytes,
    certificate_pem: bytes,
    key_pem: bytes,
    content: Callable[[InfoHash], Path],
    altered: Callable[[InfoHash, str], None],
    refused: Callable[[str, str], None],
) -> AsyncIterator[Origin]:
    """Open the origin's swarm; leaving the block closes it. The caller runs :meth:`Origin.run`.

    Raises:
        Unavailable: the address cannot be listened on.
    """
    swarm_settings = SwarmSettings(
        role="origin",
        node=node,
        host=settings.host,
        port=settings.port,
        ca_pem=ca_pem,
        certificate_pem=certificate_pem,
        key_pem=key_pem,
        requests=settings.requests,
    )
    async with open_swarm(swarm_settings) as swarm:
        origin = Origin(fleet, swarm, content=content, altered=altered, refused=refused)
        origin.set_rates(settings.rates)
        yield origin
