"""From signed drafts to a publication that a stock TUF client has accepted.

Content comes first, then the repository remembers what is published, then the whole ``metadata``
directory changes in one rename, then what nothing names any more is removed. So a reader, and a crash,
find the old publication or the new one; publishing again finishes what was interrupted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.files import read_bounded, storage_error, sync_directory, write_atomic
from p2pdist.ids import TargetPath
from p2pdist.trust.artifacts import check_file
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.contents import POINTS_ROLE, grant_content
from p2pdist.trust.online import check_online_key, make_snapshot, make_timestamp, meta_of
from p2pdist.trust.publicationdir import (
    ARTIFACTS,
    FIRST_ROOT,
    GRANTS,
    TORRENTS,
    check_directory,
    put_file,
    put_metadata,
    read_metadata,
)
from p2pdist.trust.refusals import parse_file_name, role_words
from p2pdist.trust.repository import Repository, latest_roles
from p2pdist.trust.rolefiles import parse_document
from p2pdist.trust.signing import ROOT, SigningState
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

Progress = Callable[[str, int, int], None]
"""Called with what is being done, bytes done of it so far, and bytes in all."""


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """What a publication holds. ``left_out`` are expired channels, which clients will not believe."""

    catalog: Catalog
    unfinished: tuple[str, ...]
    """Roles whose drafts lack signatures and are not in it."""
    artifacts_added: int
    bytes_added: int


def publish(
    repository: Repository,
    directory: Path,
    online_signer: Signer,
    *,
    now: datetime,
    leave_unfinished: bool = False,
    progress: Progress = lambda *_: None,
) -> Published:
    """Publish what is signed to *directory*, or bring it up to date.

    Snapshot and timestamp are always signed anew. Safe to interrupt at any moment and to call again.

    Args:
        online_signer: The key that signs snapshot and timestamp.
        leave_unfinished: Publish what is complete although other drafts still lack signatures.

    Raises:
        UsageError: signatures are missing, an artifact is missing, the online key is the wrong one, or
            *directory* belongs to something else. Nothing has changed.
        TrustError: the outcome would not be accepted by a stock client. Nothing has changed.
        Unavailable: the disk is full or fails, or somebody else is at work. Call again.
    """
    with repository.hold():
        state = repository.load()
        before = repository.published()
        unfinished = _unfinished(state)
        if unfinished and not leave_unfinished:
            raise UsageError(
                "signatures are missing for " + ", ".join(role_words(role) for role in unfinished),
                hint="see who must sign: status; or leave these out: --leave-unfinished",
            )
        files = compose(before, state, online_signer, now, without=unfinished)
        catalog = _accepted(before, files, now)
        check_directory(directory, files[FIRST_ROOT])
        added = _put_content(repository, directory, catalog, progress)
        _put_grants(directory, files)
        for role in [role for role in state.drafts if role not in unfinished]:
            del state.drafts[role]
        state.published_files = latest_roles(files)
        repository.replace_published(state, files)
        put_metadata(directory, files)
        _remove_unnamed(directory, catalog, files)
    return Published(
        catalog=catalog,
        unfinished=tuple(unfinished),
        artifacts_added=len(added),
        bytes_added=sum(release.length for release in added),
    )


def compose(
    before: Mapping[str, bytes],
    state: SigningState,
    signer: Signer,
    now: datetime,
    *,
    without: list[str],
) -> dict[str, bytes]:
    """Put the files of a publication together: what was published, replaced by complete drafts.

    Raises:
        UsageError: a role is in neither, or the online key is not the root's.
    """
    roots = {name: data for name, data in before.items() if parse_file_name(name).role == ROOT}
    if ROOT in state.drafts and ROOT not in without:
        roots[f"{state.root.version}.root.json"] = state.drafts[ROOT].to_bytes()
    if not roots:
        raise UsageError("the trust root is not signed yet", hint="see who must sign: status")
    old = latest_roles(before)
    chosen: dict[str, tuple[int, bytes]] = {}
    for role in [*old, *state.drafts]:
        if role == ROOT:
            continue
        if role in state.drafts and role not in without:
            chosen[role] = (state.drafts[role].signed.version, state.drafts[role].to_bytes())
        elif role in old:
            chosen[role] = (parse_document(role, old[role]).signed.version, old[role])
    newest = max(roots, key=lambda name: parse_file_name(name).version)
    check_online_key(parse_document(ROOT, roots[newest]).signed, signer)
    meta = _meta(before) | {f"{r}.json": meta_of(data, version) for r, (version, data) in chosen.items()}
    versions = _online_versions(before)
    snapshot = make_snapshot(
        meta, version=versions["snapshot"] + 1, signer=signer, now=now, life_s=state.lives.snapshot_s
    )
    timestamp = make_timestamp(
        snapshot,
        snapshot_version=versions["snapshot"] + 1,
        version=versions["timestamp"] + 1,
        signer=signer,
        now=now,
        life_s=state.lives.timestamp_s,
    )
    return {
        **roots,
        **{f"{version}.{role}.json": data for role, (version, data) in chosen.items()},
        f"{versions['snapshot'] + 1}.snapshot.json": snapshot,
        "timestamp.json": timestamp,
    }


def verify_publication(
    directory: Path,
    *,
    now: datetime,
    trusted_root: bytes | None = None,
    check_torrent: Callable[[bytes, Release], None] = lambda *_: None,
    progress: Progress = lambda *_: None,
) -> Catalog:
    """Check a publication as a client would that has never seen anything, content included.

    Args:
        trusted_root: Where trust starts; the publication's first root by default.
        check_torrent: Checks a torrent against its release; raises TrustError.

    Raises:
        TrustError, PeerError: something in it is not what it should be.
        UsageError: there is no publication, or a file is missing.
        Unavailable: it cannot be read.
    """
    files = read_metadata(directory)
    root = trusted_root if trusted_root is not None else files[FIRST_ROOT]
    with _scratch() as scratch:
        catalog = Verifier(scratch, root).update(Bundle(files=files), now=now)
    releases = sorted(catalog.contents(), key=lambda release: (release.target, release.info_hash))
    for release in releases:
        torrent = read_bounded(
            directory / TORRENTS / f"{release.info_hash}.torrent", bytes_max=limits.TORRENT_BYTES_MAX
        )
        check_torrent(torrent, release)
        check_file(
            directory / ARTIFACTS / release.info_hash,
            length=release.length,
            sha256=release.sha256,
            progress=_counted(progress, f"checking {release.target}", release.length),
        )
    for name, data in _grant_files(files).items():
        if read_bounded(directory / GRANTS / name, bytes_max=limits.ENROL_BYTES_MAX) != data:
            raise TrustError(f"{directory / GRANTS / name} is not what was signed", hint="publish again")
    return catalog


def _unfinished(state: SigningState) -> list[str]:
    return [role for role in state.drafts if not state.standing(role).complete]


def _accepted(before: Mapping[str, bytes], files: Mapping[str, bytes], now: datetime) -> Catalog:
    """Let stock clients judge: one that has never seen anything, and one that has seen the last one."""
    root = files[FIRST_ROOT]
    with _scratch() as scratch:
        catalog = Verifier(scratch / "new", root).update(Bundle(files=dict(files)), now=now)
        client = Verifier(scratch / "old", root)
        with suppress(TrustError):  # the last publication may have expired meanwhile
            if before:
                client.update(Bundle(files=dict(before)), now=now)
        client.update(Bundle(files=dict(files)), now=now)
    roles = latest_roles(files)
    wrong = {
        name: reason
        for name, reason in catalog.left_out.items()
        if name not in roles or parse_document(name, roles[name]).signed.expires > now
    }
    if wrong:
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(wrong.items())[:5])
        raise TrustError(f"clients would not believe {len(wrong)} of what is signed: {listed}")
    return catalog


def _online_versions(files: Mapping[str, bytes]) -> dict[str, int]:
    versions = {"snapshot": 0, "timestamp": 0}
    for name, data in files.items():
        role = parse_file_name(name).role
        if role in versions:
            versions[role] = Metadata[Any].from_bytes(data).signed.version
    return versions


def _meta(files: Mapping[str, bytes]) -> dict[str, MetaFile]:
    for name, data in files.items():
        if parse_file_name(name).role == "snapshot":
            return dict(Metadata[Snapshot].from_bytes(data).signed.meta)
    return {}


def _put_content(
    repository: Repository, directory: Path, catalog: Catalog, progress: Progress
) -> list[Release]:
    """Bring the artifacts and torrents of all releases into the publication; each is hashed on its way."""
    added: dict[str, Release] = {}
    try:
        for name in (TORRENTS, ARTIFACTS, GRANTS):
            (directory / name).mkdir(parents=True, exist_ok=True)
        for leftover in (directory / ARTIFACTS).glob(".*.new"):
            leftover.unlink()
        for release in catalog.contents():
            artifact = directory / ARTIFACTS / release.info_hash
            torrent = directory / TORRENTS / f"{release.info_hash}.torrent"
            if artifact.exists() and torrent.exists():
                continue
            source = repository.artifacts / release.info_hash
            torrent_source = repository.torrents / f"{release.info_hash}.torrent"
            if not source.exists() or not torrent_source.exists():
                raise UsageError(
                    f"the content of {release.target} is not in the repository",
                    hint=f"copy it to {source}, or take the release out: revoke target",
                )
            counted = _counted(progress, f"checking {release.target}", release.length)
            check_file(source, length=release.length, sha256=release.sha256, progress=counted)
            write_atomic(torrent, read_bounded(torrent_source, bytes_max=limits.TORRENT_BYTES_MAX))
            put_file(source, artifact)
            added[release.info_hash] = release
        sync_directory(directory / ARTIFACTS)
        sync_directory(directory)
    except OSError as error:
        raise storage_error(f"the content could not be written to {directory}", error) from error
    return list(added.values())


def _grant_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Make the target files of the grants, under the names by which stock clients ask for them."""
    points = latest_roles(files).get(POINTS_ROLE)
    if points is None:
        return {}
    grants = {}
    for path, file in parse_document(POINTS_ROLE, points).signed.targets.items():
        name = TargetPath(path).removeprefix("points/")
        grants[f"{file.hashes['sha256']}.{name}"] = grant_content(file.custom)
    return grants


def _put_grants(directory: Path, files: Mapping[str, bytes]) -> None:
    for name, data in _grant_files(files).items():
        if not (directory / GRANTS / name).exists():
            write_atomic(directory / GRANTS / name, data)


def _remove_unnamed(directory: Path, catalog: Catalog, files: Mapping[str, bytes]) -> None:
    """Remove content that no release and no grant names any more."""
    named: set[str] = {release.info_hash for release in catalog.contents()}
    keep: dict[str, set[str]] = {
        ARTIFACTS: named,
        TORRENTS: {f"{info_hash}.torrent" for info_hash in named},
        GRANTS: set(_grant_files(files)),
    }
    try:
        for name, wanted in keep.items():
            for path in (directory / name).iterdir():
                if path.name not in wanted:
                    path.unlink()
    except OSError as error:
        raise storage_error(f"{directory} could not be tidied up", error) from error


@contextmanager
def _scratch() -> Iterator[Path]:
    try:
        with tempfile.TemporaryDirectory(prefix="p2pdist-") as scratch:
            yield Path(scratch)
    except OSError as error:
        raise storage_error("there is no room for a check", error) from error


def _counted(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(length: int) -> None:
        nonlocal done
        done += length
        progress(what, done, total)

    return count
