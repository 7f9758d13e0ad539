"""The admin server without its HTTP API: metadata, content, control plane, wired and kept going.

Publishing is the one step that matters. Content and torrents are on the disk before the metadata that
names them is taken in; taking metadata in is atomic; whatever follows (serving, telling the fleet) is
done again from the metadata at the next start. So a crash at any instant leaves the old publication or
the new one, whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import trio
from securesystemslib.signer import Signer

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import write_atomic
from p2pdist.ids import FleetName, GroupPath, InfoHash, swarm_of
from p2pdist.logs import get_logger
from p2pdist.net.tls import TlsIdentity
from p2pdist.server.control.plane import ControlPlane, PlaneSettings
from p2pdist.server.origin import Origin, OriginSettings, open_origin
from p2pdist.server.planestore import StoredPlane
from p2pdist.store.fleetstore import FleetStore
from p2pdist.swarm.torrents import check_torrent
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.publication import OnlineRepository

_log = get_logger()

_CERTIFICATE_LIFE_S = 7 * 24 * 3600  # the server's own; renewed with every publication and every day
_UPKEEP_S = 60.0


class ServerHome:
    """The admin server's directory: its identity, the fleet's authority, metadata, torrents, content.

    Raises:
        UsageError: something is missing or damaged there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.key = IdentityKey.load(root / "identity.key")
        self.authority = FleetAuthority.load(root / "authority")
        self.trusted_root = (root / "root.json").read_bytes()
        for directory in (self.torrents, self.artifacts):
            directory.mkdir(parents=True, exist_ok=True)

    @classmethod
    def create(cls, root: Path, fleet: FleetName, trusted_root: bytes, now: datetime) -> ServerHome:
        """Make the directory of a new admin server.

        Raises:
            UsageError: there is one already.
        """
        if (root / "identity.key").exists():
            raise UsageError(f"{root} holds an admin server already", hint="choose an empty directory")
        (root / "authority").mkdir(parents=True, exist_ok=True)
        write_atomic(root / "root.json", trusted_root)
        FleetAuthority.create(fleet, now).save(root / "authority")
        IdentityKey.generate().save(root / "identity.key")
        return cls(root)

    @property
    def fleet(self) -> FleetName:
        """The fleet's name."""
        return self.authority.fleet

    @property
    def metadata(self) -> Path:
        """Where signed metadata is kept."""
        return self.root / "metadata"

    @property
    def torrents(self) -> Path:
        """Where torrents are kept."""
        return self.root / "torrents"

    @property
    def artifacts(self) -> Path:
        """Where content is kept, one file per info-hash."""
        return self.root / "artifacts"

    def torrent(self, info_hash: InfoHash) -> Path:
        """Return the torrent file of an artifact."""
        return self.torrents / f"{info_hash}.torrent"

    def artifact(self, info_hash: InfoHash) -> Path:
        """Return the content file of an artifact."""
        return self.artifacts / info_hash

    def read_torrent(self, info_hash: InfoHash) -> bytes | None:
        """Return an artifact's torrent, or None. Blocking."""
        try:
            return self.torrent(info_hash).read_bytes()
        except FileNotFoundError:
            return None


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about the control plane, the origin and online signing."""

    plane: PlaneSettings
    origin: OriginSettings
    timestamp_life_s: int = 24 * 3600
    snapshot_life_s: int = 7 * 24 * 3600


class Service:
    """A running admin server. Made by :func:`open_service`."""

    def __init__(
        self, home: ServerHome, settings: ServiceSettings, store: FleetStore, online_signer: Signer
    ) -> None:
        self.home = home
        self.store = store
        self.repository = OnlineRepository(
            home.metadata,
            home.trusted_root,
            online_signer,
            timestamp_life_s=settings.timestamp_life_s,
            snapshot_life_s=settings.snapshot_life_s,
        )
        self.catalog: Catalog | None = None
        self._publishing = trio.Lock()
        self._certificate_pem = self._issue(())
        self.origin: Origin
        self.plane = ControlPlane(
            settings.plane,
            key=home.key,
            authority=home.authority,
            identity=self.identity,
            store=StoredPlane(store),
            threads=trio.CapacityLimiter(1),
            export=self.repository.export,
            torrent=home.read_torrent,
            swarm_port=lambda: self.origin.port,
            welcome=lambda node: self.origin.learn([node]),
        )

    def identity(self) -> TlsIdentity:
        """Return what the admin server shows on its links."""
        return TlsIdentity(
            certificate_pem=self._certificate_pem,
            key_pem=self.home.key.private_pem(),
            ca_pem=self.home.authority.certificate_pem,
        )

    async def publish(self, metadata: Mapping[str, bytes], torrents: Mapping[InfoHash, bytes]) -> Catalog:
        """Take a publication in, and tell the fleet.

        The content files of new releases must be there already. Cancellation leaves the old
        publication or the new one.

        Raises:
            TrustError, PeerError: the publication does not verify.
            UsageError: content or a torrent of a release is missing.
            Unavailable: the disk is full.
        """
        async with self._publishing:
            for info_hash, torrent in torrents.items():
                await trio.to_thread.run_sync(write_atomic, self.home.torrent(info_hash), torrent)
            catalog = await trio.to_thread.run_sync(self._ingest, dict(metadata))
            await self._take(catalog)
            return catalog

    def altered(self, info_hash: InfoHash, reason: str) -> None:
        """Our own copy of an artifact is not what was signed."""
        self.plane.content_altered(info_hash, reason)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the bound address of the control plane."""
        await self._resign()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.origin.run)
            nursery.start_soon(self._keep_up)
            address = await nursery.start(self.plane.run)
            task_status.started(address)

    def _ingest(self, metadata: Mapping[str, bytes]) -> Catalog:
        for release in self.repository.inspect(metadata, now=_utc_now()).releases.values():
            self._check_present(release)
        return self.repository.ingest(metadata, now=_utc_now())

    def _check_present(self, release: Release) -> None:
        path = self.home.artifact(release.info_hash)
        if not path.exists() or path.stat().st_size != release.length:
            raise UsageError(
                f"the content of {release.target} is not at the server", hint="upload it, then publish again"
            )
        torrent = self.home.read_torrent(release.info_hash)
        if torrent is None:
            raise UsageError(f"the torrent of {release.target} is not at the server", hint="publish it too")
        swarm = swarm_of(release.channel, self.home.fleet)
        check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)

    async def _take(self, catalog: Catalog) -> None:
        """Serve what is published now, and tell the fleet."""
        self.catalog = catalog
        self._certificate_pem = self._issue(catalog.channels)
        self.origin.set_identity(self._certificate_pem, self.home.key.private_pem())
        releases = {release.info_hash: release for release in catalog.releases.values()}
        torrents = {}
        for info_hash in releases:
            torrent = await trio.to_thread.run_sync(self.home.read_torrent, info_hash)
            torrents[info_hash] = torrent or b""
        await self.origin.serve(releases, torrents)
        self.plane.set_origin(self.origin.presences())
        versions = await trio.to_thread.run_sync(self.repository.versions)
        await self.plane.catalog_changed(catalog, versions)

    async def _keep_up(self) -> None:
        """Sign the online roles anew in time; notice grants and roles that expire."""
        while True:
            await trio.sleep(_UPKEEP_S)
            await self._resign()

    async def _resign(self) -> None:
        async with self._publishing:
            try:
                signed = await trio.to_thread.run_sync(lambda: self.repository.resign(now=_utc_now()))
                catalog = await trio.to_thread.run_sync(lambda: self.repository.load(now=_utc_now()))
            except P2PDistError as error:
                _log.error("metadata.not_current", reason=str(error))
                return
            if catalog is not None and (signed or self.catalog is None):
                await self._take(catalog)

    def _issue(self, channels: tuple[Any, ...]) -> bytes:
        authority = self.home.authority
        return authority.issue(
            self.home.key.public,
            group=GroupPath("/"),
            swarms=[swarm_of(channel, authority.fleet) for channel in channels],
            life_s=_CERTIFICATE_LIFE_S,
            now=_utc_now(),
        )


@asynccontextmanager
async def open_service(
    home: ServerHome, settings: ServiceSettings, store: FleetStore, online_signer: Signer
) -> AsyncIterator[Service]:
    """Open an admin server; the caller runs :meth:`Service.run` in its own nursery."""
    service = Service(home, settings, store, online_signer)
    identity = service.identity()
    async with open_origin(
        settings.origin,
        fleet=home.fleet,
        node=home.key.node,
        ca_pem=identity.ca_pem,
        certificate_pem=identity.certificate_pem,
        key_pem=identity.key_pem,
        content=home.artifact,
        altered=service.altered,
    ) as origin:
        service.origin = origin
        yield service


def _utc_now() -> datetime:
    return datetime.now(UTC)
