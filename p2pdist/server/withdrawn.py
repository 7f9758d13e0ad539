"""Content that no signed release names any more: kept for a while, then removed from the disk.

What a signed file names stays, also when the file has expired and its releases are left out of the
catalog. What is being uploaded stays; and whoever asks whether an artifact is here, as one does before
publishing, finds it there for the whole time again. Only files go: the record stays, with what the
artifact has sent. Files go one by one, and each may be missing beside the others, so that a kill at any
moment leaves what the next upload or the next look repairs.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import trio

from p2pdist.errors import Unavailable
from p2pdist.files import storage_error
from p2pdist.ids import InfoHash
from p2pdist.logs import get_logger
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.uploads import Uploads
from p2pdist.store import content
from p2pdist.store.fleetstore import FleetStore
from p2pdist.wire.requests import Bundle

_log = get_logger()


def named_artifacts(bundle: Bundle) -> frozenset[InfoHash] | None:
    """Return the artifacts that verified metadata names, whatever has expired.

    Returns:
        None where that cannot be said: a file is missing that the snapshot names.
    """
    named: set[InfoHash] = set()
    wanted: set[str] = set()
    for data in bundle.files.values():
        signed = json.loads(data)["signed"]
        if signed["_type"] == "snapshot":
            wanted = {f"{meta['version']}.{role}" for role, meta in signed["meta"].items()}
        elif signed["_type"] == "targets":
            customs = [target.get("custom") for target in signed["targets"].values()]
            for custom in customs:
                named.update(_named_by(custom))
    return frozenset(named) if wanted and wanted <= set(bundle.files) else None


def _named_by(custom: object) -> set[InfoHash]:
    """The artifacts that one signed target names: a release's own, and those of its deltas."""
    if not isinstance(custom, dict):
        return set()
    deltas = custom.get("deltas")
    named = [custom, *(deltas if isinstance(deltas, list) else [])]
    return {
        InfoHash(str(each["info_hash"])) for each in named if isinstance(each, dict) and "info_hash" in each
    }


class Withdrawn:
    """Removes what is no longer named, some time after.

    Args:
        keep_s: For how long it is kept.
    """

    def __init__(self, home: ServerHome, store: FleetStore, uploads: Uploads, keep_s: int) -> None:
        self._home = home
        self._store = store
        self._uploads = uploads
        self._keep_s = keep_s

    async def collect(self, named: frozenset[InfoHash], now: int) -> None:
        """Note what is not named, and remove what has not been for long enough.

        No publication may be taken in meanwhile. *now* is Unix seconds.

        Raises:
            Unavailable: the database or the disk does not take it; what is left goes the next time.
        """
        before = now - self._keep_s
        late = await self._store.write(content.note_named, named, now=now, before=before)
        for info_hash, path in await trio.to_thread.run_sync(self._removable, late, named, before):
            try:
                with self._uploads.claimed(info_hash):
                    freed = await trio.to_thread.run_sync(_unlink, path)
            except Unavailable as error:
                _log.info("content.kept", path=str(path), reason=str(error))
                continue
            _log.info("content.removed", path=str(path), bytes=freed, reason="no release names it")

    async def stored_bytes(self) -> int:
        """Return how many bytes of the disk wait to be removed."""
        unnamed = await self._store.read(content.list_unnamed)
        return await trio.to_thread.run_sync(lambda: sum(map(_size, map(self._home.artifact, unnamed))))

    def _removable(
        self, late: Collection[InfoHash], named: Collection[InfoHash], before: int
    ) -> list[tuple[InfoHash, Path]]:
        """What has its record and is late; what has none, and uploads that nobody went on with."""
        home, recorded = self._home, self._store.read_now(content.list_artifacts)
        found = [
            (info_hash, path)
            for info_hash in late
            for path in (home.artifact(info_hash), home.torrent(info_hash))
        ]
        try:
            known = {*recorded, *named}
            lost = [
                path
                for directory in (home.artifacts, home.torrents)  # only a torrent, where it was mirrored
                for path in directory.iterdir()
                if path.name.removesuffix(".torrent") not in known
            ]
            for path in (*lost, *self._uploads.directory.iterdir()):
                if path.stat().st_mtime < before:
                    found.append((InfoHash(path.name.partition(".")[0]), path))
            return [(info_hash, path) for info_hash, path in found if path.exists()]
        except OSError as error:
            raise storage_error("the content could not be looked at", error) from error


def _unlink(path: Path) -> int:
    try:
        freed = path.stat().st_size
        path.unlink()
    except OSError as error:
        raise storage_error(f"{path} could not be removed", error) from error
    return freed


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
