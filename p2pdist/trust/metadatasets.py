"""Verified metadata on disk: whole sets (:mod:`~p2pdist.trust.generations`), and a floor for the clock.

::

    sets/<name>/                what TUF's client keeps: role.json, root_history/N.root.json
    sets/<name>/index.json      version and SHA-256 of each file, to notice damage
    clock                       the newest time at which metadata was accepted, Unix seconds
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.trust.generations import Generations, link_or_copy

ROOT_HISTORY = "root_history"
_INDEX = "index.json"
_INDEX_BYTES_MAX = 4 * limits.MIB
_ROOT_FILE = re.compile(r"([1-9][0-9]{0,9})\.root\.json\Z")
_CLOCK_MAX = 32_503_680_000  # the year 3000
_NOT_ROLES = {"root.json", _INDEX}


class FileMark(msgspec.Struct, frozen=True, kw_only=True):
    """Which file a set holds for a role."""

    version: int
    sha256: str


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What a set holds: roots by version, the other roles by name."""

    roots: dict[int, str]
    roles: dict[str, FileMark]


EMPTY_INDEX = Index(roots={}, roles={})


class MetadataSets:
    """The sets of one directory. Blocking; not safe for concurrent use within a process.

    Args:
        directory: Made if it is not there.

    Raises:
        Unavailable: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._sets = Generations(directory, "the metadata")
        self._clock = directory / "clock"

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes from making sets. Raises Unavailable if one does."""
        return self._sets.lock()

    def current(self) -> Path | None:
        """Return the current set, or None if there is none yet."""
        return self._sets.current()

    @contextmanager
    def draft(self, known: Index) -> Iterator[Path]:
        """Make a copy of the current set to be changed: of the files in *known*, which are undamaged.

        It vanishes unless it is committed. Raises Unavailable when the disk is full or fails.
        """
        with self._sets.draft() as draft:
            (draft / ROOT_HISTORY).mkdir()
            current = self.current()
            if current is not None:
                for version in known.roots:
                    link_or_copy(root_path(current, version), root_path(draft, version))
                for role in known.roles:
                    link_or_copy(role_path(current, role), role_path(draft, role))
            yield draft

    def commit(self, draft: Path, index: Index) -> None:
        """Make *draft* current, durably. May raise OSError, which :meth:`draft` turns into ours."""
        (draft / _INDEX).write_bytes(msgspec.json.encode(index))
        self._sets.commit(draft)

    def index(self) -> Index:
        """Return what the current set holds undamaged; damaged files are left out."""
        current = self.current()
        if current is None:
            return EMPTY_INDEX
        try:
            data = read_bounded(current / _INDEX, bytes_max=_INDEX_BYTES_MAX)
            written: Index = decode_json(data, Index, f"{current / _INDEX} is damaged")
        except UsageError:
            return EMPTY_INDEX
        return Index(
            roots={v: h for v, h in written.roots.items() if _digest(root_path(current, v)) == h},
            roles={r: m for r, m in written.roles.items() if _digest(role_path(current, r)) == m.sha256},
        )

    def clock_floor(self) -> int:
        """Return the newest time at which metadata was accepted, in Unix seconds; 0 if never."""
        try:
            return min(_CLOCK_MAX, max(0, int(read_bounded(self._clock, bytes_max=32))))
        except (UsageError, ValueError):
            return 0

    def raise_clock_floor(self, seconds: int) -> None:
        """Remember that it was *seconds* (Unix). Raises Unavailable when the disk is full."""
        write_atomic(self._clock, str(seconds).encode())


def metadata_files(directory: Path) -> list[Path]:
    """List the files of the roles other than root in a set."""
    return [p for p in directory.glob("*.json") if p.name not in _NOT_ROLES and not p.is_symlink()]


def root_versions(directory: Path) -> list[int]:
    """List the versions of root in a set, ascending."""
    found = (_ROOT_FILE.match(path.name) for path in (directory / ROOT_HISTORY).iterdir())
    return sorted(int(match[1]) for match in found if match)


def root_path(directory: Path, version: int) -> Path:
    """Return where a set holds a version of root."""
    return directory / ROOT_HISTORY / f"{version}.root.json"


def role_path(directory: Path, role: str) -> Path:
    """Return where a set holds a role other than root."""
    return directory / f"{role}.json"


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
