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
from typing import Any

import msgspec
import trio
from securesystemslib.signer import Signer

from p2pdist import limits
from p2pdist.core.mirrored import withheld
from p2pdist.errors import P2PDistError, TrustError, UsageError
from p2pdist.files import write_atomic
from p2pdist.ids import GroupPath, InfoHash, NodeId, swarm_of
from p2pdist.logs import get_logger
from p2pdist.net.stundesk import StunDesk, StunSettings
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.detour import swarm_streams
from p2pdist.node.directorysettings import Directories
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.server.contentcheck import check_content, check_publication, only_at_mirrors
from p2pdist.server.control.plane import ControlPlane
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.server.expiry import people_expire
from p2pdist.server.incidents import IncidentBook
from p2pdist.server.mirrored import own_work
from p2pdist.server.origin import Origin, OriginSettings, open_origin
from p2pdist.server.planestore import StoredPlane
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.tasks import Tasks
from p2pdist.server.uploads import Uploads
from p2pdist.server.withdrawn import Withdrawn, named_artifacts
from p2pdist.store import content, deployments
from p2pdist.store.fleetstore import FleetStore
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.publication import OnlineRepository
from p2pdist.wire.detours import SWARM_PATH

_log = get_logger()

_CERTIFICATE_LIFE_S = 7 * 24 * 3600  # the server's own, renewed at half of it
_UPKEEP_S = 30.0
_COLLECT_S = 3_600.0


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says about the control plane, the origin, STUN and online signing."""

    plane: PlaneSettings
    origin: OriginSettings
    stun: StunSettings = StunSettings()
    timestamp_life_s: int = 24 * 3600
    snapshot_life_s: int = 7 * 24 * 3600
    withdrawn_keep_s: int = 7 * 24 * 3600
    mirrors: MirrorSettings = MirrorSettings()
    directories: Directories = ()


class Service:
    """A running admin server. Made by :func:`open_service`.

    Attributes:
        home: Its directory.
        store: Its database.
        catalog: What is signed and published; None before the first publication.
        uploads: Content on its way in.
        withdrawn: Content on its way out.
        tasks: What nodes are given to do.
        people_expire: When the first role expires that people sign, Unix seconds.
        trouble: Why metadata cannot be kept current, for people; empty when it can.
    """

    def __init__(
        self, home: ServerHome, settings: ServiceSettings, store: FleetStore, *online_signers: Signer
    ) -> None:
        self.home = home
        self.store = store
        self.repository = OnlineRepository(
            home.metadata,
            home.trusted_root,
            *online_signers,
            timestamp_life_s=settings.timestamp_life_s,
            snapshot_life_s=settings.snapshot_life_s,
        )
        self.catalog: Catalog | None = None
        self.people_expire: int | None = None
        self.trouble = ""
        self.incidents = IncidentBook(home.key.node, store)
        self._publishing = trio.Lock()
        self._serving = trio.Lock()
        self._taken = trio.Event()
        self._certificate_pem = self._issue(())
        self._certified_at = _utc_now()
        self._valid_grants: frozenset[NodeId] = frozenset()
        self._saved_sent: dict[InfoHash, int] = {}
        self._withheld: frozenset[InfoHash] = frozenset()
        self.origin: Origin
        self.uploads: Uploads
        self.withdrawn: Withdrawn
        self._withdrawn_keep_s = settings.withdrawn_keep_s
        self.stun = StunDesk(settings.stun)
        self.plane = ControlPlane(
            settings.plane,
            key=home.key,
            authority=home.authority,
            identity=self.identity,
            store=StoredPlane(store),
            threads=trio.CapacityLimiter(1),
            export=self.repository.export,
            torrent=home.read_torrent,
            origin=lambda: self.origin,
            streams={SWARM_PATH: swarm_streams(settings.origin.host, lambda: self.origin.port)},
            refused=lambda host, reason: self.incidents.note("stranger", host, reason),
            stun=self.stun,
            assigning=self._assigning,
        )
        self.tasks = Tasks(
            home.key,
            home.root / "tasks",
            store,
            self.plane,
            lambda: self.catalog,
            perform=own_work(self, settings),
        )

    def identity(self) -> TlsIdentity:
        """Return what the admin server shows on its links."""
        return TlsIdentity(
            certificate_pem=self._certificate_pem,
            key_pem=self.home.key.private_pem(),
            ca_pem=self.home.authority.certificate_pem,
        )

    async def publish(
        self, metadata: Mapping[str, bytes], torrents: Mapping[InfoHash, bytes], *, mirrored: bool = False
    ) -> Catalog:
        """Take a publication in, and tell the fleet.

        The content files of its releases must be there already; with *mirrored*, of those that name no
        mirrors. Cancellation leaves the old publication or the new one.

        Raises:
            TrustError, PeerError: the publication, a torrent or a content file is not what was signed.
            UsageError: content or a torrent of a release is missing.
            Unavailable: the disk is full.
        """
        async with self._publishing:
            catalog = await trio.to_thread.run_sync(self._ingest, dict(metadata), dict(torrents), mirrored)
            await self._take(catalog)
            return catalog

    async def content_arrived(self, info_hash: InfoHash) -> None:
        """A content file was uploaded (again) and is good: serve it if it is published."""
        async with self._publishing:
            if info_hash in self.origin.damaged:
                await self.origin.restore(info_hash)
                self.plane.swarms.mended(info_hash)
            elif info_hash not in self.origin.mirrored:
                return
            if self.catalog is not None:
                await self._serve(self.catalog)

    def altered(self, info_hash: InfoHash, reason: str) -> None:
        """Our own copy of an artifact is not what was signed."""
        self.incidents.note("content", info_hash, reason)
        # the fleet learns what is wrong, not where the server keeps its files; the log says that
        self.plane.swarms.altered(info_hash, "the admin server's copy is not what was signed")

    def unsaved_sent(self) -> int:
        """Return the content bytes that the origin has sent and that are not in the database yet."""
        return sum(count - self._saved_sent.get(h, 0) for h, count in self._sent().items())

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; reports the bound address of the control plane."""
        await self._keep_metadata()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.incidents.run)
            nursery.start_soon(self.origin.run)
            nursery.start_soon(self._keep_up)
            nursery.start_soon(self._check_all_content)
            nursery.start_soon(self._collect_now_and_then)
            nursery.start_soon(self.stun.run)
            nursery.start_soon(self.tasks.run)
            address = await nursery.start(self.plane.run)
            task_status.started(address)

    def attach(self, origin: Origin) -> None:
        """Take the origin into use, once it is open."""
        self.origin = origin
        self.uploads = Uploads(self.home, self.store, origin.damaged)
        self.withdrawn = Withdrawn(self.home, self.store, self.uploads, self._withdrawn_keep_s)

    # Publishing --------------------------------------------------------------------------------------

    def _ingest(
        self, metadata: Mapping[str, bytes], torrents: Mapping[InfoHash, bytes], mirrored: bool
    ) -> Catalog:
        now = _utc_now()
        offered = self.repository.inspect(metadata, now=now)
        elsewhere = only_at_mirrors(self.home, self.store, offered.contents())
        if not mirrored:
            elsewhere &= self.origin.mirrored  # those that were published so before stay so
        check_publication(self.home, self.store, offered, torrents, elsewhere, int(now.timestamp()))
        for info_hash in {release.info_hash for release in offered.contents()} & set(torrents):
            write_atomic(self.home.torrent(info_hash), torrents[info_hash])
        return self.repository.ingest(metadata, now=now)

    async def _take(self, catalog: Catalog) -> None:
        """Serve what is published now, and tell the fleet."""
        self.catalog = catalog
        self._taken.set()
        self.people_expire = await trio.to_thread.run_sync(lambda: people_expire(self.repository.export({})))
        self._certify()
        await self._serve(catalog)
        await self.plane.catalog_changed(catalog, await trio.to_thread.run_sync(self.repository.versions))
        self.tasks.look()
        await self._collect()

    async def _collect(self) -> None:
        """Remove what was withdrawn long ago; no publication is taken in meanwhile."""
        try:
            named = await trio.to_thread.run_sync(lambda: named_artifacts(self.repository.export({})))
            if named is not None:
                await self.withdrawn.collect(named, int(_utc_now().timestamp()))
        except P2PDistError as error:
            _log.warning("content.not_removed", reason=str(error))

    async def _assigning(self) -> None:
        """Nodes have other work: what they read from mirrors now is not served, before they hear of it."""
        self.tasks.look()
        catalog, reading = self.catalog, self.plane.directory.reading
        if catalog is not None and withheld(reading(catalog.releases), self.home.key.node) != self._withheld:
            await self._serve(catalog)

    async def _serve(self, catalog: Catalog) -> None:
        """Serve the published artifacts, at most as many as one node can: those deployed, then the newest."""
        published = catalog.releases.values()
        async with self._serving:
            absent = await trio.to_thread.run_sync(only_at_mirrors, self.home, self.store, published)
            read = withheld(self.plane.directory.reading(catalog.releases), self.home.key.node)
            orders = await self.store.read(deployments.active_orders)
            ordered = [catalog.releases[o.target] for o in orders if o.target in catalog.releases]
            ordered += sorted(published, key=lambda release: -release.sequence)
            releases: dict[InfoHash, Release] = {}
            for release in [one for each in ordered for one in each.contents()]:
                room = len(releases) + len(absent | read) < limits.TORRENTS_ACTIVE_MAX
                if room and release.info_hash not in absent | read:
                    releases.setdefault(release.info_hash, release)
            torrents = {}
            for info_hash in releases:
                torrent = await trio.to_thread.run_sync(self.home.read_torrent, info_hash)
                torrents[info_hash] = torrent or b""
            await self._save_sent()
            await self.origin.serve(releases, torrents, mirrored=absent | read)
            self._withheld = read
            self.plane.swarms.set_origin(self.origin.presences())

    # Upkeep ------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Sign the online roles anew in time, renew the certificate, notice grants that expire."""
        while True:
            with trio.move_on_after(await self._until_upkeep()):
                await self._taken.wait()
            self._taken = trio.Event()
            await self._keep_metadata()
            await self._save_sent()
            if (_utc_now() - self._certified_at).total_seconds() > _CERTIFICATE_LIFE_S / 2:
                self._certify()
            now = int(_utc_now().timestamp())
            grants = self.catalog.grants.items() if self.catalog is not None else ()
            valid = frozenset(node for node, grant in grants if grant.expires > now)
            if valid != self._valid_grants:
                self._valid_grants = valid
                await self.plane.orders_changed()

    async def _until_upkeep(self) -> float:
        try:
            due = await trio.to_thread.run_sync(self.repository.next_resign)
        except P2PDistError:
            due = None
        if due is None or self.trouble:
            return _UPKEEP_S
        return min(_UPKEEP_S, max(0.5, (due - _utc_now()).total_seconds()))

    async def _keep_metadata(self) -> None:
        async with self._publishing:
            try:
                signed = await trio.to_thread.run_sync(lambda: self.repository.resign(now=_utc_now()))
                if self.catalog is not None and not signed:
                    await trio.to_thread.run_sync(lambda: self.repository.check(now=_utc_now()))
                    self.trouble = ""
                    return
                catalog = await trio.to_thread.run_sync(lambda: self.repository.load(now=_utc_now()))
            except P2PDistError as error:
                if str(error) != self.trouble:
                    _log.error("metadata.not_current", reason=str(error))
                self.trouble = str(error)
                return
            self.trouble = ""
            if catalog is not None:
                await self._take(catalog)

    async def _check_all_content(self) -> None:
        """Look once at every published content file; hash those that have changed since they came."""
        releases = self.catalog.contents() if self.catalog is not None else ()
        elsewhere = await trio.to_thread.run_sync(only_at_mirrors, self.home, self.store, releases)
        for release in (each for each in releases if each.info_hash not in elsewhere):
            try:
                await trio.to_thread.run_sync(
                    check_content, self.home, self.store, release, int(_utc_now().timestamp())
                )
            except (TrustError, UsageError) as error:
                self.origin.distrust(release.info_hash, error.what)
            except P2PDistError as error:
                _log.warning("content.not_checked", target=release.target, reason=str(error))

    async def _collect_now_and_then(self) -> None:
        while True:
            await trio.sleep(_COLLECT_S)
            async with self._publishing:
                await self._collect()

    async def save(self) -> None:
        """Save what is only in memory; called once more before the server ends."""
        await self._save_sent()

    async def _save_sent(self) -> None:
        sent = self._sent()
        grown = {h: count - self._saved_sent.get(h, 0) for h, count in sent.items()}
        try:
            await self.store.write(content.add_sent_bytes, grown)
        except P2PDistError as error:
            _log.warning("statistics.not_stored", reason=str(error))
            return
        self._saved_sent = dict(sent)

    def _sent(self) -> dict[InfoHash, int]:
        return {h: sum(source.sent for source in sources) for h, sources in self.origin.sent().items()}

    def _certify(self) -> None:
        self._certificate_pem = self._issue(self.catalog.channels if self.catalog is not None else ())
        self._certified_at = _utc_now()
        self.origin.set_identity(self._certificate_pem, self.home.key.private_pem())

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
    home: ServerHome, settings: ServiceSettings, store: FleetStore, *online_signers: Signer
) -> AsyncIterator[Service]:
    """Open an admin server; the caller runs :meth:`Service.run` in its own nursery.

    Args:
        online_signers: See :class:`~p2pdist.trust.publication.OnlineRepository`.

    Leaving the block saves what is only in memory, and closes the origin's swarm.
    """
    service = Service(home, settings, store, *online_signers)
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
        refused=lambda address, reason: service.incidents.note("stranger", address, reason),
    ) as origin:
        service.attach(origin)
        try:
            yield service
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await service.save()


def _utc_now() -> datetime:
    return datetime.now(UTC)
