"""The admin server's copy of the metadata: publications come in, snapshot and timestamp stay fresh.

The server holds the online key and nothing more. Whatever people have signed arrives as a publication
and is verified as a stranger's would be; the server only says, with versions of its own that always
grow, which files are current. Everything passes the stock client before it is on disk, and an
interrupted ingest or re-signing leaves the state before it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from p2pdist.errors import TrustError
from p2pdist.files import storage_error
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.online import (
    SNAPSHOT_LIFE_S,
    TIMESTAMP_LIFE_S,
    choose_online_key,
    make_snapshot,
    make_timestamp,
)
from p2pdist.trust.refusals import role_words
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

_SCRATCH = "ingest-"


class OnlineRepository:
    """Takes publications in and keeps them current. Blocking; call it in a worker thread.

    Args:
        directory: Where the metadata is kept; made if it is not there.
        trusted_root: The root metadata that the fleet was founded with.
        online_signers: Sign snapshot and timestamp: of several, the one that the newest root names. While
            the online key is being replaced, they are the old one and the new one.
        timestamp_life_s: How long a timestamp is valid: a device that hears nothing for longer stops
            believing what it knows.
        snapshot_life_s: How long a snapshot is.

    Raises:
        UsageError: *trusted_root* is not valid root metadata.
        Unavailable: the directory cannot be made.
    """

    def __init__(
        self,
        directory: Path,
        trusted_root: bytes,
        *online_signers: Signer,
        timestamp_life_s: int = TIMESTAMP_LIFE_S,
        snapshot_life_s: int = SNAPSHOT_LIFE_S,
    ) -> None:
        self._directory = directory
        self._trusted_root = trusted_root
        self._signers = online_signers
        self._timestamp_life_s = timestamp_life_s
        self._snapshot_life_s = snapshot_life_s
        self._verifier = Verifier(directory, trusted_root)
        self._mutex = threading.Lock()
        for leftover in directory.glob(f"{_SCRATCH}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def ingest(self, metadata: Mapping[str, bytes], *, now: datetime) -> Catalog:
        """Take a publication in.

        Args:
            metadata: The files of its ``metadata`` directory, by name.
            now: The time, aware.

        Returns:
            What the server's metadata says afterwards. The same publication a second time changes
            nothing.

        Raises:
            TrustError: the publication does not verify, or is older than what the server has.
            PeerError: it is malformed, incomplete or too large.
            UsageError: its root names another online key than ours, and the hint says what to do.
            Unavailable: the disk is full or fails.
        """
        published = _Files(self._verify_alone(metadata, now)[1])
        with self._mutex:
            held = _Files(self._verifier.export({}).files)
            signer = choose_online_key(published.root, self._signers)
            meta = _merge(held, published)
            files = {n: d for n, d in published.files.items() if n not in published.online_names}
            if meta == held.meta and not held.lacks_root(published.root.version):
                self._resign_locked(now)
                catalog = self._verifier.load(now=now)
                assert catalog is not None
                return catalog
            versions = (
                max(held.snapshot_version, published.snapshot_version) + 1,
                max(held.timestamp_version, published.timestamp_version) + 1,
            )
            return self._sign(signer, files, meta, versions, now)

    def inspect(self, metadata: Mapping[str, bytes], *, now: datetime) -> Catalog:
        """Verify a publication as a new device would, and return what it says; nothing is taken in.

        Raises:
            TrustError, PeerError, Unavailable: as :meth:`ingest`.
        """
        return self._verify_alone(metadata, now)[0]

    def resign(self, *, now: datetime) -> bool:
        """Sign snapshot and timestamp anew once half of their lives is over.

        Returns:
            Whether anything was signed.

        Raises:
            TrustError: what is held no longer verifies, because a role that people sign has expired.
            Unavailable: the disk is full or fails.
        """
        with self._mutex:
            return self._resign_locked(now)

    def next_resign(self) -> datetime | None:
        """Return when :meth:`resign` will have something to do; None as long as nothing is held."""
        held = _Files(self._verifier.export({}).files)
        if held.timestamp is None or held.snapshot is None:
            return None
        return min(
            held.timestamp.expires - timedelta(seconds=self._timestamp_life_s / 2),
            held.snapshot.expires - timedelta(seconds=self._snapshot_life_s / 2),
        )

    def check(self, *, now: datetime) -> None:
        """Check that what is held is valid at *now*; cheap as long as it is.

        Raises:
            TrustError: something has expired, or the clock went back.
        """
        self._verifier.update(Bundle(files={}), now=now)

    def load(self, *, now: datetime) -> Catalog | None:
        """Return what the metadata says, verified; None as long as nothing is held.

        Raises:
            TrustError: something has expired; :meth:`resign` repairs it if it is ours to sign.
        """
        return self._verifier.load(now=now)

    def export(self, have: Mapping[str, int]) -> Bundle:
        """Return the files that somebody lacks who has the versions *have*."""
        return self._verifier.export(have)

    def versions(self) -> dict[str, int]:
        """Return the version of each role that is held."""
        return self._verifier.versions()

    def _verify_alone(
        self, metadata: Mapping[str, bytes], now: datetime
    ) -> tuple[Catalog, Mapping[str, bytes]]:
        """Verify a publication as a client would that has never seen anything; return it and its files."""
        try:
            with tempfile.TemporaryDirectory(dir=self._directory, prefix=_SCRATCH) as scratch:
                verifier = Verifier(Path(scratch), self._trusted_root)
                catalog = verifier.update(Bundle(files=dict(metadata)), now=now)
                return catalog, verifier.export({}).files
        except OSError as error:
            raise storage_error("a publication could not be verified", error) from error

    def _resign_locked(self, now: datetime) -> bool:
        held = _Files(self._verifier.export({}).files)
        if held.timestamp is None or held.snapshot is None:
            return False
        timestamp_due = held.timestamp.expires - timedelta(seconds=self._timestamp_life_s / 2) <= now
        snapshot_due = held.snapshot.expires - timedelta(seconds=self._snapshot_life_s / 2) <= now
        if not timestamp_due and not snapshot_due:
            return False
        versions = (held.snapshot_version + snapshot_due, held.timestamp_version + 1)
        signer = choose_online_key(held.root, self._signers)
        files = {} if snapshot_due else held.files
        self._sign(signer, files, held.meta, versions, now, new_snapshot=snapshot_due)
        return True

    def _sign(
        self,
        signer: Signer,
        files: Mapping[str, bytes],
        meta: Mapping[str, MetaFile],
        versions: tuple[int, int],
        now: datetime,
        *,
        new_snapshot: bool = True,
    ) -> Catalog:
        snapshot_version, timestamp_version = versions
        name = f"{snapshot_version}.snapshot.json"
        snapshot = (
            make_snapshot(
                meta, version=snapshot_version, signer=signer, now=now, life_s=self._snapshot_life_s
            )
            if new_snapshot
            else files[name]
        )
        timestamp = make_timestamp(
            snapshot,
            snapshot_version=snapshot_version,
            version=timestamp_version,
            signer=signer,
            now=now,
            life_s=self._timestamp_life_s,
        )
        signed = {**files, name: snapshot, "timestamp.json": timestamp}
        return self._verifier.update(Bundle(files=signed), now=now)


class _Files:
    """The files of a verified set, with what matters of them parsed."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.timestamp: Timestamp | None = None
        self.snapshot: Snapshot | None = None
        self.online_names = {name for name in files if name.endswith(("timestamp.json", ".snapshot.json"))}
        for name in self.online_names:
            signed = Metadata[Any].from_bytes(files[name]).signed
            if isinstance(signed, Timestamp):
                self.timestamp = signed
            elif isinstance(signed, Snapshot):
                self.snapshot = signed

    @property
    def meta(self) -> dict[str, MetaFile]:
        return dict(self.snapshot.meta) if self.snapshot else {}

    @property
    def snapshot_version(self) -> int:
        return self.snapshot.version if self.snapshot else 0

    @property
    def timestamp_version(self) -> int:
        return self.timestamp.version if self.timestamp else 0

    @property
    def root(self) -> Root:
        last = max(int(name.split(".")[0]) for name in self.files if name.endswith(".root.json"))
        return Metadata[Root].from_bytes(self.files[f"{last}.root.json"]).signed

    def lacks_root(self, version: int) -> bool:
        return f"{version}.root.json" not in self.files

    def payload(self, name: str, meta: MetaFile) -> Any:
        """The signed part of a role's file, without the signatures; None if the file is not here."""
        data = self.files.get(f"{meta.version}.{name}")
        return None if data is None else json.loads(data)["signed"]


def _merge(held: _Files, published: _Files) -> dict[str, MetaFile]:
    """Say which files are current after a publication: what is held, replaced by what is newer.

    Raises:
        TrustError: something in the publication is older than what is held, or differs from it under
            the same version.
    """
    merged = held.meta
    for name, meta in published.meta.items():
        before = merged.get(name)
        words = role_words(name.removesuffix(".json"))
        if before is not None and meta.version < before.version:
            raise TrustError(
                f"the publication is older than what the server has: {words} has version {meta.version}"
                f" in it and version {before.version} here",
                hint="publish from the newest copy of the repository",
            )
        if before is not None and meta.version == before.version:
            mine, theirs = held.payload(name, before), published.payload(name, meta)
            if mine is not None and theirs is not None and mine != theirs:
                raise TrustError(
                    f"version {meta.version} of {words} in the publication is not the one that is here",
                    hint="the repository exists in two copies that went apart; publish a higher version",
                )
            if mine is not None:
                continue
        merged[name] = meta
    return merged
