"""A SQLite database that is this process's alone: what is committed survives ``kill -9`` and power loss.

It is in WAL mode with full synchronisation, and its caches are small. Blocking. Errors are SQLite's own; who
keeps something in such a file says what its damage means.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from p2pdist import limits


def connect(path: Path, *, busy_s: float) -> sqlite3.Connection:
    """Open a database, or make it; any thread may use it, one at a time. It is not claimed yet.

    Args:
        path: The file.
        busy_s: How long to wait, in seconds, for another process that has it.
    """
    return sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)


def claim(
    database: sqlite3.Connection,
    *,
    auto_vacuum: Literal["FULL", "INCREMENTAL"],
    cache_kib: int,
    wal_pages: int,
) -> None:
    """Keep other processes out, and have each transaction on the disk before it counts.

    Args:
        database: The database, before it has tables, or as it was claimed before.
        auto_vacuum: Whether the space of what is removed is given back at once, or when it is asked for.
        cache_kib: How much of it is kept in memory, in KiB.
        wal_pages: How many pages, of 4 KiB, are written before they move from the log into the database.
    """
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute(f"PRAGMA auto_vacuum = {auto_vacuum}")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute(f"PRAGMA cache_size = -{cache_kib}")
    database.execute(f"PRAGMA wal_autocheckpoint = {wal_pages}")
    database.execute(f"PRAGMA journal_size_limit = {wal_pages * 4 * limits.KIB}")


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """Have all that the block changes, or nothing of it if it raises."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
