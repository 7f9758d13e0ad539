"""What an agent remembers across ``kill -9`` and power loss: records by key, changed all or nothing.

A SQLite database in WAL mode with full synchronisation: once :meth:`Journal.apply` returns, its
changes are on the disk. The database is this process's alone, its caches are small, and the number
and size of its records are capped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.sqlitefile import claim, connect, transaction

_FORMAT = 1
_CACHE_KIB = 256
_WAL_PAGES = 64
_BUSY_S = 2.0
_ERRORS = (sqlite3.Error, UnicodeDecodeError)  # the latter: a message that quotes damaged text


class Journal:
    """The records of one agent. Blocking: call it in a worker thread, one call at a time."""

    def __init__(self, path: Path) -> None:
        """Open the journal, or make it.

        Raises:
            UsageError: the file is damaged, or of a newer program.
            Unavailable: another process has it, or the disk fails.
        """
        self._path = path
        try:
            self._database = connect(path, busy_s=_BUSY_S)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise
        except _ERRORS as error:
            raise self._translated(error) from error

    def records(self) -> dict[str, bytes]:
        """Return everything, by key."""
        try:
            records = dict(self._database.execute("SELECT key, value FROM record ORDER BY key"))
        except _ERRORS as error:
            raise self._translated(error) from error
        if not all(isinstance(key, str) and isinstance(value, bytes) for key, value in records.items()):
            raise self.damaged("a record has another type")
        return records

    def apply(self, changes: Mapping[str, bytes | None]) -> None:
        """Set or remove (None) records, all of them or none.

        Raises:
            UsageError: a record is too large, or there are too many; nothing was changed.
            Unavailable: the disk is full or fails; nothing was changed.
        """
        for key, value in changes.items():
            if value is not None and len(value) > limits.JOURNAL_RECORD_BYTES_MAX:
                raise UsageError(f"the record {key} of {len(value)} bytes is too large for {self._path}")
        try:
            with transaction(self._database):
                self._write(changes)
        except _ERRORS as error:
            raise self._translated(error) from error

    def close(self) -> None:
        """Close the database. Calling it again does nothing."""
        self._database.close()

    def _write(self, changes: Mapping[str, bytes | None]) -> None:
        self._database.executemany(
            "DELETE FROM record WHERE key = ?", [(key,) for key, value in changes.items() if value is None]
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO record (key, value) VALUES (?, ?)",
            [(key, value) for key, value in changes.items() if value is not None],
        )
        (count,) = self._database.execute("SELECT count(*) FROM record").fetchone()
        if count > limits.JOURNAL_RECORDS_MAX:
            raise UsageError(f"{self._path} would hold more than {limits.JOURNAL_RECORDS_MAX} records")

    def _prepare(self) -> None:
        database = self._database
        claim(database, auto_vacuum="FULL", cache_kib=_CACHE_KIB, wal_pages=_WAL_PAGES)
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, _FORMAT):
            raise UsageError(
                f"{self._path} has format {found}, this program knows {_FORMAT}",
                hint="install the newer program again",
            )
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise self.damaged(str(state))
        with transaction(database):
            database.execute(
                "CREATE TABLE IF NOT EXISTS record (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
            )
            database.execute(f"PRAGMA user_version = {_FORMAT}")

    def _translated(self, error: Exception) -> P2PDistError:
        name = getattr(error, "sqlite_errorname", "")
        if isinstance(error, UnicodeDecodeError) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return self.damaged(str(error))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Unavailable(f"{self._path} is in use by another process", hint="end that one first")
        return Unavailable(f"{self._path} could not be used ({error})", hint="check the disk")

    def damaged(self, detail: str) -> UsageError:
        """Make the error that says that the journal is damaged, and what to do."""
        return UsageError(
            f"{self._path} is damaged ({detail.splitlines()[0][:200]})",
            hint="move it away: the device then starts over, and forgets which older releases to refuse",
        )
