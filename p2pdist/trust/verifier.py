"""The Update Framework's stock client over a metadata directory and a bundle (TUF 1.0, section 5).

The client's work happens in a copy of the current set. Only when every role has been verified does the
copy become current, so a refused bundle leaves what was believed before as it was; new roots alone are
kept in any case, because they may revoke the keys of the rest. What the client leaves open is added
here: size caps, a floor under the clock, whole sets instead of single files, a lock, and fsync.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.contents import (
    ONLINE_ROLES,
    SIGNED_AT_FIELD,
    Signed,
    delegated_roles,
    expiry,
    read_catalog,
)
from p2pdist.trust.generations import link_or_copy
from p2pdist.trust.metadatasets import (
    FileMark,
    Index,
    MetadataSets,
    metadata_files,
    role_path,
    root_path,
    root_versions,
)
from p2pdist.trust.refusals import MALFORMED, MetadataFile, explain, parse_file_name, role_words
from p2pdist.trust.stockclient import FetcherInterface, Updater, UpdaterConfig
from p2pdist.wire.requests import Bundle

_BASE_URL = "bundle:///"
_TOP_LEVEL = (*ONLINE_ROLES, "targets")


class Verifier:
    """Believes metadata that the trust root leads to, and remembers it.

    Blocking; call it in a worker thread. Safe to use from several threads; a second process that
    verifies in the same directory at the same moment gets Unavailable.

    Args:
        directory: Where verified metadata is kept; made if it is not there.
        trusted_root: The root metadata from the enrolment bundle, from which all trust starts.

    Raises:
        UsageError: *trusted_root* is not valid root metadata.
        Unavailable: the directory cannot be made.
    """

    def __init__(self, directory: Path, trusted_root: bytes) -> None:
        self._trusted_root = trusted_root
        self._first_root = _root_version(trusted_root)
        self._sets = MetadataSets(directory)
        self._mutex = threading.Lock()
        self._index: Index | None = None
        self._last: Catalog | None = None

    def update(self, bundle: Bundle, *, now: datetime) -> Catalog:
        """Verify a bundle on top of what is known, and keep it.

        Args:
            bundle: Files from anywhere.
            now: The time, aware. TUF's client reads the system's clock besides.

        Raises:
            TrustError: a role is not signed as it must be, has expired, went back to an older version,
                or does not belong to the others; or the clock is wrong. What was known stays.
            PeerError: the bundle is malformed, incomplete or too large. What was known stays.
            Unavailable: the disk is full or fails, or another process verifies here. Nothing is lost.
        """
        _check_size(bundle)
        with self._mutex, self._sets.lock():
            last = self._last
            fresh = last is not None and not last.stale and now.timestamp() < last.expires
            if not bundle.files and last is not None and fresh:
                _check_clock(now, self._sets.clock_floor())
                return last
            return self._verify(bundle.files, now)

    def load(self, *, now: datetime) -> Catalog | None:
        """Verify again what is on the disk, and return it; None if nothing is.

        Raises:
            TrustError: it has expired since, the clock is wrong, or a file was damaged. In the last case
                :meth:`versions` no longer names the file, and so the next :meth:`update` repairs it.
            Unavailable: as in :meth:`update`.
        """
        with self._mutex, self._sets.lock():
            if "timestamp" not in self._known().roles:
                return None
            try:
                return self._verify({}, now)
            except PeerError as error:
                raise _damaged(error) from error

    def recall(self, *, now: datetime) -> Catalog | None:
        """Like :meth:`load`, but let the roles have expired that the admin server signs.

        The catalog is *stale* then; see docs/decisions/0018.

        Raises:
            TrustError, Unavailable: as in :meth:`load`.
        """
        with self._mutex, self._sets.lock():
            last_fresh = self._online_until()
            if last_fresh is None:
                return None
            try:
                return self._verify({}, now, last_fresh=last_fresh)
            except PeerError as error:
                raise _damaged(error) from error

    def versions(self) -> dict[str, int]:
        """Return the version of each role that is on the disk undamaged; root is always among them."""
        with self._mutex:
            index = self._known()
            return {
                "root": self._last_root(index),
                **{role: mark.version for role, mark in index.roles.items()},
            }

    def export(self, have: Mapping[str, int]) -> Bundle:
        """Return the files that somebody lacks who has the versions *have*: newer ones, and all roots.

        Raises:
            Unavailable: it is more than one bundle may hold.
        """
        with self._mutex:
            current, index = self._sets.current(), self._known()
            if current is None:
                return Bundle(files={})
            last = self._last_root(index)
            files = {
                f"{v}.root.json": root_path(current, v).read_bytes()
                for v in range(have.get("root", 0) + 1, last + 1)
                if v in index.roots
            }
            for role, mark in index.roles.items():
                if mark.version > have.get(role, 0):
                    name = "timestamp.json" if role == "timestamp" else f"{mark.version}.{role}.json"
                    files[name] = role_path(current, role).read_bytes()
        if len(files) > limits.BUNDLE_FILES_MAX or sum(map(len, files.values())) > limits.BUNDLE_BYTES_MAX:
            raise Unavailable("the metadata does not fit into one bundle", hint="split a channel")
        return Bundle(files=files)

    def _known(self) -> Index:
        if self._index is None:
            self._index = self._sets.index()
        return self._index

    def _last_root(self, index: Index) -> int:
        last = self._first_root
        while last + 1 in index.roots:
            last += 1
        return last

    def _online_until(self) -> datetime | None:
        """Return the last second in which what is on the disk was fresh; None if nothing usable is."""
        current = self._sets.current()
        self._index = self._sets.index()  # read anew, so that a file damaged since is not read
        if current is None or any(role not in self._index.roles for role in ONLINE_ROLES):
            return None
        return min(expiry(_signed(role_path(current, role))) for role in ONLINE_ROLES) - timedelta(seconds=1)

    def _verify(
        self, files: Mapping[str, bytes], now: datetime, *, last_fresh: datetime | None = None
    ) -> Catalog:
        """Verify files on top of what is known; with *last_fresh*, online roles may have expired then."""
        floor = self._sets.clock_floor()
        _check_clock(now, floor)
        known = self._sets.index()  # read anew, so that a file damaged since is noticed
        self._index = self._last = None
        with self._sets.draft(known) as draft:
            fetcher = _BundleFetcher(files, self._sets.current(), known)
            try:
                effective = max(now, datetime.fromtimestamp(floor, UTC))
                stale = last_fresh is not None and last_fresh < effective
                roles, left_out = self._run_client(draft, fetcher, last_fresh if stale else None)
                left_out |= _check_times(roles, effective, stale=stale)
            except P2PDistError:
                self._keep_roots(draft, known)
                raise
            root = roles.pop("root")
            delegated, others = delegated_roles(roles["targets"])
            believed = {name: signed for name, signed in roles.items() if name not in left_out}
            catalog = read_catalog(believed, delegated, {**others, **left_out}, root, stale=stale)
            for path in metadata_files(draft):
                if path.stem not in roles:
                    path.unlink()  # no longer delegated
            index = _index_of(draft, roles)
            if index != known:
                self._sets.commit(draft, index)
        if now.timestamp() >= floor + 1 and not stale:
            self._sets.raise_clock_floor(int(now.timestamp()))
        self._last = catalog
        return catalog

    def _run_client(
        self, draft: Path, fetcher: _BundleFetcher, time: datetime | None
    ) -> tuple[dict[str, Signed], dict[str, str]]:
        """Let the stock client verify everything in *draft*, as if it were *time*; None: it is now.

        Returns:
            The ``signed`` part of each verified role (also of expired channels), and the roles that
            have expired, with the reason.
        """
        expired: dict[str, str] = {}
        try:
            updater = Updater(
                str(draft),
                _BASE_URL,
                fetcher=fetcher,
                config=_client_config(),
                bootstrap=self._trusted_root,
            )
            if time is not None:
                updater._trusted_set.reference_time = time  # the client has no other way
            updater.refresh()
            roles: dict[str, Signed] = {role: _signed(role_path(draft, role)) for role in _TOP_LEVEL}
            roles["root"] = _signed(draft / "root.json")
            for role, pattern in delegated_roles(roles["targets"])[0].items():
                try:
                    # A path that no target can have (ids.parse_target) but that the delegation
                    # matches: looking for it makes the client load and verify the role.
                    updater.get_targetinfo(pattern.replace("*", "_"))
                except exceptions.ExpiredMetadataError as error:
                    # Its hashes, signatures and version were verified before its expiry. The file is
                    # kept, so that those who ask us see the same and not a gap.
                    expired[role] = explain(error, fetcher.asked).what
                    role_path(draft, role).unlink(missing_ok=True)
                    role_path(draft, role).write_bytes(fetcher.last)
                roles[role] = _signed(role_path(draft, role))
        except (exceptions.RepositoryError, exceptions.DownloadError, *MALFORMED) as error:
            raise explain(error, fetcher.asked) from error
        return roles, expired

    def _keep_roots(self, failed: Path, known: Index) -> None:
        """Make the roots current that were verified before the rest of *failed* was refused.

        Files that the new keys do not cover are then refused by the next :meth:`load`, as they must be.
        """
        versions = root_versions(failed)
        current = self._sets.current()
        if all(version in known.roots for version in versions):
            return
        for path in metadata_files(failed):
            path.unlink()
        for role in known.roles if current is not None else ():
            assert current is not None
            link_or_copy(role_path(current, role), role_path(failed, role))
        roots = {version: _sha256(root_path(failed, version)) for version in versions}
        self._sets.commit(failed, Index(roots=roots, roles=known.roles))


class _BundleFetcher(FetcherInterface):
    """Answers the client's questions from memory, and from what we told the neighbour that we have.

    Attributes:
        asked: The name of the file that the client asked for last.
        last: What it got.
    """

    def __init__(self, files: Mapping[str, bytes], current: Path | None, known: Index) -> None:
        self._files = files
        self._current = current
        self._known = known
        self.asked = ""
        self.last = b""

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.asked = url.rpartition("/")[2]
        data = self._files.get(self.asked)
        if data is None:
            data = self._read_known(parse_file_name(self.asked))
        if data is None:
            raise exceptions.DownloadHTTPError(f"{self.asked} is not in the bundle", 404)
        self.last = data
        return iter((data,))

    def _read_known(self, file: MetadataFile) -> bytes | None:
        mark = self._known.roles.get(file.role)
        if self._current is None or mark is None or file.version not in (0, mark.version):
            return None
        return role_path(self._current, file.role).read_bytes()


def _client_config() -> UpdaterConfig:
    return UpdaterConfig(
        max_root_rotations=limits.ROOT_ROTATIONS_MAX,
        root_max_length=limits.ROOT_BYTES_MAX,
        timestamp_max_length=limits.TIMESTAMP_BYTES_MAX,
        snapshot_max_length=limits.SNAPSHOT_BYTES_MAX,
        targets_max_length=limits.TARGETS_BYTES_MAX,
    )


def _root_version(data: bytes) -> int:
    try:
        root = Metadata[Root].from_bytes(data).signed
    except (exceptions.RepositoryError, *MALFORMED) as error:
        raise UsageError(f"the trust root is not valid TUF metadata ({error})") from None
    if not isinstance(root, Root):
        raise UsageError(f"the trust root is {root.type} metadata", hint="give it the root's file")
    return root.version


def _check_size(bundle: Bundle) -> None:
    size = sum(map(len, bundle.files.values()))
    if len(bundle.files) > limits.BUNDLE_FILES_MAX or size > limits.BUNDLE_BYTES_MAX:
        raise PeerError(f"a metadata bundle of {len(bundle.files)} files and {size} bytes is too large")


def _check_clock(now: datetime, floor: int) -> None:
    if now.timestamp() < floor - limits.CLOCK_SKEW_S:
        newest = datetime.fromtimestamp(floor, UTC)
        raise TrustError(
            f"this machine's clock went back: it says {now:%Y-%m-%d %H:%M} UTC, but metadata was accepted"
            f" here on {newest:%Y-%m-%d %H:%M}",
            hint="set the clock; with a wrong one expired metadata would pass",
        )


def _check_times(roles: Mapping[str, Signed], now: datetime, *, stale: bool) -> dict[str, str]:
    """Check every role's expiry, and that the timestamp was not signed in the future.

    Online roles may have expired where that makes the whole *stale*.

    Returns:
        The delegated roles that have expired, with the reason.
    """
    signed_at = roles["timestamp"].get(SIGNED_AT_FIELD)
    if isinstance(signed_at, int) and signed_at > now.timestamp() + limits.CLOCK_LATE_S_MAX:
        raise TrustError(
            f"this machine's clock is late: it says {now:%Y-%m-%d %H:%M} UTC, but the timestamp was signed"
            f" {round((signed_at - now.timestamp()) / 3600)} hours later",
            hint="set the clock; with a wrong one expired metadata would pass",
        )
    late: dict[str, str] = {}
    for role, signed in roles.items():
        if expiry(signed) > now or (stale and role in ONLINE_ROLES):
            continue
        reason = f"{role_words(role)} has expired on {expiry(signed):%Y-%m-%d %H:%M} UTC"
        if role in ("root", *_TOP_LEVEL):
            raise TrustError(
                f"metadata is refused: {reason}",
                hint="either its owners have not renewed it, or somebody holds the newer one back",
            )
        late[role] = reason
    return late


def _damaged(error: PeerError) -> TrustError:
    return TrustError(
        f"the metadata on this machine is damaged: {error.what}", hint="it is fetched again by itself"
    )


def _index_of(draft: Path, roles: Mapping[str, Signed]) -> Index:
    return Index(
        roots={version: _sha256(root_path(draft, version)) for version in root_versions(draft)},
        roles={
            role: FileMark(version=signed["version"], sha256=_sha256(role_path(draft, role)))
            for role, signed in roles.items()
        },
    )


def _signed(path: Path) -> Signed:
    """Read what the client has verified and written, with the parser that it used itself."""
    signed: dict[str, Any] = json.loads(path.read_bytes())["signed"]
    return signed


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
