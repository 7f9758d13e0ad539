"""The envelopes of a mailbox on the disk: a SQLite database that is this process's alone. Blocking.

In WAL mode with full synchronisation: once :meth:`MailFile.apply` returns, its changes survive ``kill -9``
and power loss, whatever the moment. See ``docs/decisions/0086``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from p2pdist.core.mailbox import Letter
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.files import DiskFull, storage_error
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.sqlitefile import claim, connect, transaction
from p2pdist.wire.envelope import Envelope

_log = get_logger()
T = TypeVar("T")

ROW_BYTES = 256  # what an envelope takes beside its box, on the disk and in memory
_FORMAT = 1
_CACHE_KIB = 512
_WAL_PAGES = 1_024
_FREED_PAGES = 1_024  # given back to the file system at once
_BUSY_S = 2.0
_LOAD_AT_ONCE = 500
_TABLE = """
CREATE TABLE IF NOT EXISTS envelope (
    number INTEGER PRIMARY KEY, via TEXT NOT NULL,
    sender TEXT NOT NULL, recipient TEXT NOT NULL, counter INTEGER NOT NULL, expires INTEGER NOT NULL,
    box BLOB NOT NULL
)
"""


class Damaged(UsageError):
    """The file is not a database, not one of ours, or damaged."""


class MailFile:
    """The file of one mailbox. One call at a time; made by :func:`open_mail_file`."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            Damaged: it is not usable any more.
            Unavailable: another process has it, or the disk fails.
        """
        self.path = path
        self._database = self._guarded(lambda: connect(path, busy_s=_BUSY_S))
        try:
            self._guarded(self._prepare)
        except BaseException:
            self._database.close()
            raise

    def letters(self) -> list[Letter]:
        """Return all envelopes without their boxes, in the order of their numbers."""
        query = (
            "SELECT number, via, sender, recipient, counter, expires, length(box) FROM envelope"
            " ORDER BY number"
        )
        rows = self._guarded(lambda: self._database.execute(query).fetchall())
        try:
            return [
                Letter(
                    number=row[0],
                    via=NodeId(row[1]),
                    sender=NodeId(row[2]),
                    recipient=NodeId(row[3]),
                    counter=row[4],
                    expires=row[5],
                    size=row[6] + ROW_BYTES,
                    stored=True,
                )
                for row in msgspec.convert(rows, list[tuple[int, str, str, str, int, int, int]])
            ]
        except msgspec.ValidationError as error:
            raise self._damaged(str(error)) from error

    def apply(self, new: Iterable[tuple[Letter, Envelope]], gone: Iterable[int]) -> None:
        """Add envelopes and remove others, all of it or nothing.

        Raises:
            Unavailable: the disk is full or fails; nothing was changed.
            Damaged: the file is not usable any more.
        """
        rows = [
            (letter.number, letter.via, e.sender, e.recipient, e.counter, e.expires, e.box)
            for letter, e in new
        ]
        removed = [(number,) for number in gone]
        self._guarded(lambda: self._write(rows, removed))
        if removed:
            with suppress(Unavailable):  # the changes stand; the space is given back another time
                self._guarded(self._give_space_back)

    def load(self, numbers: Sequence[int]) -> dict[int, Envelope]:
        """Return envelopes by number; those that are not there, or not valid, are left out.

        Raises:
            Unavailable: the disk fails.
            Damaged: the file is not usable any more.
        """
        found: dict[int, Envelope] = {}
        for start in range(0, len(numbers), _LOAD_AT_ONCE):
            chunk = numbers[start : start + _LOAD_AT_ONCE]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT number, sender, recipient, counter, expires, box FROM envelope WHERE number IN ({marks})"  # noqa: E501  # marks only
            rows = self._guarded(lambda: self._database.execute(query, chunk).fetchall())  # noqa: B023
            for number, *fields in rows:
                values = dict(zip(Envelope.__struct_fields__, fields, strict=True))
                try:
                    found[number] = msgspec.convert(values, Envelope)
                except msgspec.ValidationError as error:
                    _log.warning("mailbox.unreadable", path=str(self.path), number=number, reason=str(error))
        return found

    def close(self) -> None:
        """Close the database. Calling it again does nothing."""
        self._database.close()

    def _write(self, new: Sequence[tuple[object, ...]], gone: Sequence[tuple[int]]) -> None:
        database = self._database
        with transaction(database):
            database.executemany("DELETE FROM envelope WHERE number = ?", gone)
            database.executemany("INSERT OR REPLACE INTO envelope VALUES (?, ?, ?, ?, ?, ?, ?)", new)

    def _give_space_back(self) -> None:
        self._database.executescript(f"PRAGMA incremental_vacuum({_FREED_PAGES})")  # `execute` frees one page

    def _prepare(self) -> None:
        database = self._database
        claim(database, auto_vacuum="INCREMENTAL", cache_kib=_CACHE_KIB, wal_pages=_WAL_PAGES)
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise self._damaged(f"format {found}, this program knows {_FORMAT}")
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise self._damaged(str(state))
        with transaction(database):
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version = {_FORMAT}")

    def _guarded(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: a message about damaged text
            raise self._translated(error) from error

    def _translated(self, error: Exception) -> P2PDistError:
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, UnicodeDecodeError) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return self._damaged(str(error))
        if name == "SQLITE_ERROR" or (not name and isinstance(error, sqlite3.OperationalError)):
            return self._damaged(str(error))  # a table that is not as ours, or text that is not UTF-8
        if name == "SQLITE_FULL":
            return DiskFull(f"{self.path} could not be written ({error})", hint="free some space")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Unavailable(f"{self.path} is in use by another process", hint="end that one first")
        return Unavailable(f"{self.path} could not be used ({error})", hint="check the disk")

    def _damaged(self, detail: str) -> Damaged:
        return Damaged(f"{self.path} is damaged ({detail.splitlines()[0][:200]})")


def open_mail_file(path: Path) -> tuple[MailFile, list[Letter]]:
    """Open the file of a mailbox, and return it with what is in it. What is damaged is set aside.

    Raises:
        Unavailable: another process has it, or the disk fails.
    """
    try:
        file = MailFile(path)
        try:
            return file, file.letters()
        except BaseException:
            file.close()
            raise
    except Damaged as error:
        _log.error("mailbox.damaged", path=str(path), reason=str(error), kept_as=str(aside(path)))
        set_aside(path)
        file = MailFile(path)
        return file, file.letters()


def set_aside(path: Path) -> None:
    """Move a damaged file out of the way, in the place of the one before. Raises Unavailable."""
    try:
        path.replace(aside(path))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(f"{path} is damaged, and could not be moved", error) from error


def aside(path: Path) -> Path:
    """Where a damaged file is kept for whoever looks into it."""
    return path.with_name(path.name + ".damaged")
