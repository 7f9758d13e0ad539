"""The signing repository: the directory in which people prepare and sign what the fleet may install.

::

    current -> sets/<name>       one generation (:mod:`~p2pdist.trust.generations`)
        repository.json          fleet and lives
        published/               the metadata of the last publication, every root included
        drafts/<role>.json       drafts with the signatures collected so far
    content/artifacts/<info_hash>, content/torrents/<info_hash>.torrent
    keys/<name>.key              sealed key files made here

Every change is one generation: killed at any moment, the repository is as it was before or after.
Content is written before a draft names it; what nothing names is harmless.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, storage_error, sync_directory, write_atomic
from p2pdist.ids import InfoHash, parse_fleet
from p2pdist.trust.contents import ONLINE_ROLES
from p2pdist.trust.generations import Generations, link_or_copy
from p2pdist.trust.refusals import parse_file_name
from p2pdist.trust.signing import Lives, SigningState

_SETTINGS = "repository.json"


class _Settings(msgspec.Struct, frozen=True, kw_only=True):
    format: Literal["p2pdist repository 1"] = "p2pdist repository 1"
    fleet: str
    lives: Lives = Lives()


class _OnlineSigned(msgspec.Struct):
    expires: datetime


class _OnlineFile(msgspec.Struct):
    signed: _OnlineSigned


class Repository:
    """A signing repository on disk. Blocking.

    Attributes:
        directory: Where it is.
        keys: Where key files made here are kept.
        artifacts: Content files by info-hash.
        torrents: Torrents by info-hash.
        incoming: Scratch for content on its way in, on the same file system.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        self.artifacts = directory / "content" / "artifacts"
        self.torrents = directory / "content" / "torrents"
        self.incoming = directory / "content" / "incoming"
        self._generations = Generations(directory, "the repository")
        try:
            for path in (self.keys, self.artifacts, self.torrents, self.incoming):
                path.mkdir(parents=True, exist_ok=True)
            self.keys.chmod(0o700)
        except OSError as error:
            raise storage_error(f"{directory} could not be made", error) from error

    @classmethod
    def create(cls, directory: Path, state: SigningState) -> Repository:
        """Make a repository that holds *state*.

        Raises:
            UsageError: there is one already.
            Unavailable: the disk is full or fails; call again.
        """
        repository = cls(directory)
        with repository._generations.lock():
            if repository._generations.current() is not None:
                raise UsageError(f"{directory} holds a repository already", hint="choose another directory")
            repository._save(state, {})
        return repository

    @classmethod
    def open(cls, directory: Path) -> Repository:
        """Open a repository. Raises UsageError if there is none."""
        if not (directory / "current").is_symlink():
            raise UsageError(f"{directory} holds no signing repository", hint="make one: p2pdist-sign init")
        return cls(directory)

    def load(self) -> SigningState:
        """Read the state. Raises UsageError if it is damaged."""
        current = self._current()
        data = read_bounded(current / _SETTINGS, bytes_max=limits.KEY_FILE_BYTES_MAX)
        hint = "restore the repository from a backup"
        settings: _Settings = decode_json(data, _Settings, f"{current / _SETTINGS} is damaged", hint=hint)
        drafts = _read_directory(current / "drafts")
        return SigningState(
            parse_fleet(settings.fleet),
            settings.lives,
            latest_roles(self.published()),
            {name.removesuffix(".json"): data for name, data in drafts.items()},
        )

    def published(self) -> dict[str, bytes]:
        """Return the metadata files of the last publication by name; empty if there was none."""
        return _read_directory(self._current() / "published")

    def online_until(self) -> dict[str, datetime]:
        """Say by role until when the last publication's snapshot and timestamp are valid.

        The admin server has signed newer ones since, if it runs.
        """
        found: dict[str, datetime] = {}
        for name, data in self.published().items():
            role = parse_file_name(name).role
            if role in ONLINE_ROLES:
                file: _OnlineFile = decode_json(data, _OnlineFile, f"{name} of the publication is damaged")
                found[role] = max(file.signed.expires, found.get(role, file.signed.expires))
        return found

    @contextmanager
    def change(self) -> Iterator[SigningState]:
        """Hold the repository, and keep what the block has changed of its state, if it ends well.

        Raises:
            Unavailable: somebody else is changing it, or the disk is full or fails. Nothing has changed.
        """
        with self._generations.lock():
            state = self.load()
            yield state
            self._save(state, self.published())

    def replace_published(self, state: SigningState, files: Mapping[str, bytes]) -> None:
        """Make *files* the last publication, within :meth:`hold`."""
        self._save(state, files)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep others from changing the repository."""
        with self._generations.lock():
            yield

    def take_content(self, file: Path, torrent: bytes, info_hash: InfoHash) -> None:
        """Move a file from :attr:`incoming` to the artifacts, with its torrent.

        Raises:
            Unavailable: the disk is full or fails.
        """
        write_atomic(self.torrents / f"{info_hash}.torrent", torrent)
        try:
            with file.open("rb") as opened:
                os.fchmod(opened.fileno(), 0o444)  # publications share the file: nobody writes into it
                os.fsync(opened.fileno())
            file.replace(self.artifacts / info_hash)
            sync_directory(self.artifacts)
        except OSError as error:
            raise storage_error(f"{self.artifacts / info_hash} could not be written", error) from error

    def _current(self) -> Path:
        current = self._generations.current()
        if current is None:
            raise UsageError(
                f"{self.directory} holds no signing repository", hint="make one: p2pdist-sign init"
            )
        return current

    def _save(self, state: SigningState, published: Mapping[str, bytes]) -> None:
        current = self._generations.current()
        with self._generations.draft() as draft:
            settings = _Settings(fleet=state.fleet, lives=state.lives)
            (draft / _SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=2))
            (draft / "published").mkdir()
            for name, data in published.items():
                old = current / "published" / name if current else None
                if old is not None and old.exists() and old.read_bytes() == data:
                    link_or_copy(old, draft / "published" / name)
                else:
                    (draft / "published" / name).write_bytes(data)
            (draft / "drafts").mkdir()
            for role, data in state.draft_files().items():
                (draft / "drafts" / f"{role}.json").write_bytes(data)
            self._generations.commit(draft)


def latest_roles(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Pick each role's newest file, of the roles that people sign, from a publication's files."""
    latest: dict[str, tuple[int, bytes]] = {}
    for name, data in files.items():
        role, version = parse_file_name(name)
        if role not in ONLINE_ROLES and version > latest.get(role, (0, b""))[0]:
            latest[role] = (version, data)
    return {role: data for role, (_, data) in latest.items()}


def _read_directory(directory: Path) -> dict[str, bytes]:
    return {
        path.name: read_bounded(path, bytes_max=limits.TARGETS_BYTES_MAX)
        for path in sorted(directory.glob("*.json"))
    }
