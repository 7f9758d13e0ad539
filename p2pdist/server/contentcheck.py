"""Whether the content files at the server are what was signed.

A file is hashed once, when it comes in; the database remembers its hash, size and time of change. Later
a file is hashed again only if one of these differs from the record. What changes while the server runs is
noticed by the swarm, which checks each piece that it serves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from p2pdist.errors import TrustError, UsageError
from p2pdist.files import storage_error
from p2pdist.ids import InfoHash, swarm_of
from p2pdist.server.serverhome import ServerHome
from p2pdist.store import content
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ArtifactRecord
from p2pdist.swarm.torrents import check_torrent
from p2pdist.trust.catalog import Catalog, Release


def hash_content(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal. Blocking. Raises Unavailable if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise storage_error(f"{path} could not be read", error) from error


def only_at_mirrors(home: ServerHome, store: FleetStore, releases: Iterable[Release]) -> frozenset[InfoHash]:
    """Return the artifacts with mirrors that have never been here: nobody misses them. Blocking."""
    recorded = store.read_now(content.list_artifacts)
    return frozenset(
        release.info_hash
        for release in releases
        if release.mirrors
        and release.info_hash not in recorded
        and not home.artifact(release.info_hash).exists()
    )


def check_publication(
    home: ServerHome,
    store: FleetStore,
    offered: Catalog,
    torrents: Mapping[InfoHash, bytes],
    elsewhere: frozenset[InfoHash],
    now: int,
) -> None:
    """Check the torrents and contents of a publication; content that is *elsewhere* is not missed. Blocking.

    Raises:
        UsageError: a torrent or a content file is not there.
        TrustError, PeerError: one is not what was signed.
        Unavailable: one cannot be read, or the record of it cannot be written.
    """
    for release in offered.contents():
        torrent = torrents.get(release.info_hash) or home.read_torrent(release.info_hash)
        if torrent is None:
            raise UsageError(f"the torrent of {release.target} is not at the server", hint="publish it too")
        swarm = swarm_of(release.channel, home.fleet)
        check_torrent(torrent, info_hash=release.info_hash, swarm=swarm, length=release.length)
        if release.info_hash not in elsewhere:
            check_content(home, store, release, now)


def check_content(home: ServerHome, store: FleetStore, release: Release, now: int) -> None:
    """Check a release's content file, and record it if it is good. Blocking.

    Raises:
        UsageError: it is not there, or not whole.
        TrustError: it is not what was signed.
        Unavailable: it cannot be read, or the record cannot be written.
    """
    path = home.artifact(release.info_hash)
    try:
        found = path.stat()
    except FileNotFoundError:
        raise UsageError(
            f"the content of {release.target} is not at the server", hint="upload it: p2pdist publish DIR"
        ) from None
    if found.st_size != release.length:
        raise TrustError(
            f"the content of {release.target} has {found.st_size} bytes instead of {release.length}",
            hint="upload it again: p2pdist publish DIR",
        )
    record = store.read_now(content.list_artifacts).get(release.info_hash)
    unchanged = record is not None and record.modified_ns == found.st_mtime_ns and not record.damage
    sha256 = record.sha256 if record is not None and unchanged else hash_content(path)
    if sha256 != release.sha256:
        reason = f"its SHA-256 is {sha256} instead of the signed {release.sha256}"
        if record is not None:
            store.write_now(content.mark_damaged, release.info_hash, reason)
        raise TrustError(
            f"the content of {release.target} was altered: {reason}",
            hint="upload it again: p2pdist publish DIR",
        )
    if not unchanged:
        fresh = ArtifactRecord(
            info_hash=release.info_hash,
            length=release.length,
            sha256=sha256,
            modified_ns=found.st_mtime_ns,
            published=True,
            damage="",
            stored=now,
            sent_bytes=0,
        )
        store.write_now(content.put_artifact, fresh)
