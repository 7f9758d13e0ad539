"""What databases differ in: how one is reached and prepared, and what its writers and readers ask of it.

Everything else says only what SQLAlchemy offers for every database. Where several admin servers share one,
writers are serializable: of two that cannot both be right, one is sent back and done again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InvalidRequestError, NoSuchModuleError

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.logs import get_logger
from p2pdist.store.tables import audit, counters

R = TypeVar("R")

_log = get_logger()

TESTED = frozenset({"sqlite", "postgresql", "mariadb"})
"""The databases that the store's tests run on."""

MYSQLS = frozenset({"mysql", "mariadb"})
"""SQLAlchemy's names of MySQL and MariaDB; either works for the other."""

READERS_MAX = 8
"""Reading transactions at once; more only wait for the interpreter's lock."""

_URL_HINT = (
    "write sqlite:////path/to/fleet.db, postgresql+psycopg://user@host/name, mariadb+pymysql://user@host/name,"
    " or SQLAlchemy's URL of another database"
)
_EXTRAS = {"pymysql": "pip install 'p2pdist[mysql]'"}
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",  # readers do not wait for the writer
    "PRAGMA synchronous=FULL",  # a commit is on the disk, also when the power fails
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",  # another process looks into the database
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16000",  # 16 MB for each connection
    "PRAGMA journal_size_limit=67108864",  # give the log's disk space back after a burst
)
_MYSQL_SESSION = (
    # what does not fit is an error, not cut off; every table keeps transactions and foreign keys; a lock is
    # waited for as long as SQLite's is
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',"
    " default_storage_engine = InnoDB, innodb_lock_wait_timeout = 10"
)
_LOST_RACES = frozenset({"40001", "40P01", 1020, 1213})
"""SQLSTATEs, and numbers of MySQL and MariaDB, that say: another transaction was first, do yours again."""

_LOCK_NAME, _LOCK_NUMBER, _LOCK_WAIT_S = "p2pdist migrates", 7_021_944_881, 600


def open_engine(url: str) -> sa.Engine:
    """Return the engine of a database; nothing is connected yet.

    Raises:
        UsageError: the URL makes no sense, its driver is not installed, or it names no file.
    """
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise UsageError("the fleet's database must be a file", hint="write sqlite:////path/to/fleet.db")
        engine = sa.create_engine(parsed, pool_size=READERS_MAX + 1, max_overflow=0, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        module = error.name or str(error)
        install = _EXTRAS.get(module.lower(), f"install the Python package that has the module {module}")
        raise UsageError(
            f"the driver for {parsed.drivername} is not installed ({module})",
            hint=f"{install}; or {_URL_HINT}",
        ) from None
    except NoSuchModuleError:
        raise UsageError(
            f"SQLAlchemy does not know {parsed.drivername[:64]} here",
            hint=f"install the Python package that brings it; or {_URL_HINT}",
        ) from None
    except (ArgumentError, InvalidRequestError, TypeError, ValueError) as error:
        raise UsageError(f"the database URL cannot be used ({error})", hint=_URL_HINT) from None
    if engine.dialect.is_async:
        raise UsageError(f"{parsed.drivername} is a driver for asyncio, not for threads", hint=_URL_HINT)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name in MYSQLS:
        event.listen(engine, "connect", _prepare_mysql)
    return engine


def first_connection(engine: sa.Engine) -> sa.Connection:
    """Connect for the first time.

    Raises:
        UsageError: the URL has a parameter that its driver does not take.
    """
    try:
        return engine.connect()
    except TypeError as error:
        raise UsageError(f"the database URL cannot be used ({error})", hint=_URL_HINT) from None


def isolation_of(connection: sa.Connection) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of a connection that reads one moment, and of one whose writers are serializable.

    SQLite's readers and writers are that by themselves.
    """
    dialect, dbapi = connection.dialect, connection.connection.dbapi_connection
    reading: dict[str, Any] = {}
    writing: dict[str, Any] = {"p2pdist_writes": True}
    if dialect.name == "sqlite" or dbapi is None:
        return reading, writing
    try:
        levels = set(dialect.get_isolation_level_values(dbapi))
    except NotImplementedError:
        levels = set()
    if "SERIALIZABLE" in levels:
        writing["isolation_level"] = "SERIALIZABLE"
        reading["isolation_level"] = "REPEATABLE READ" if "REPEATABLE READ" in levels else "SERIALIZABLE"
    else:
        _log.warning("store.not_serializable", database=dialect.name, advice="run one admin server only")
    return reading, writing


def again_after_races(write: Callable[[], R]) -> R:
    """Do a whole transaction, and again while another one was first.

    At once: whoever was first has committed by then, or holds what this one waits for.

    Raises:
        Unavailable: others were first ``STORE_TRIES_MAX`` times.
    """
    for _ in range(limits.STORE_TRIES_MAX):
        try:
            return write()
        except DBAPIError as error:
            if not _lost_race(error):
                raise
    raise Unavailable(
        f"{limits.STORE_TRIES_MAX} times another admin server changed the same in the fleet's database",
        hint="it is tried again later",
    )


def _lost_race(error: DBAPIError) -> bool:
    cause: Any = error.orig
    codes = {getattr(cause, "sqlstate", None), *getattr(cause, "args", ())[:1]}
    return not _LOST_RACES.isdisjoint(code for code in codes if isinstance(code, str | int))


@contextmanager
def one_migrates(connection: sa.Connection) -> Iterator[None]:
    """Be the only admin server that changes the schema, where the database has a lock for it."""
    name = connection.dialect.name
    if name == "postgresql":  # let go by the end of the transaction
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK_NUMBER})
    elif name in MYSQLS:
        take = sa.text("SELECT GET_LOCK(:name, :wait)")
        if connection.execute(take, {"name": _LOCK_NAME, "wait": _LOCK_WAIT_S}).scalar() != 1:
            raise Unavailable(
                "another admin server has been changing the schema for ten minutes",
                hint="look after it there",
            )
    yield
    if name in MYSQLS:  # after an error the session ends, and lets go by that
        connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": _LOCK_NAME})


def make_exact(connection: sa.Connection) -> None:
    """Have the tables of an empty MySQL or MariaDB database compare texts as they are, not as people read."""
    if connection.dialect.name in MYSQLS and not sa.inspect(connection).get_table_names():
        connection.exec_driver_sql(f"ALTER DATABASE {_exactly(connection.dialect)}")


def _exactly(dialect: sa.Dialect) -> str:
    collation = "utf8mb4_nopad_bin" if _is_mariadb(dialect) else "utf8mb4_0900_bin"
    return f"CHARACTER SET utf8mb4 COLLATE {collation}"


def _is_mariadb(dialect: sa.Dialect) -> bool:
    return bool(getattr(dialect, "is_mariadb", False))  # whatever the URL calls it


def prove(connection: sa.Connection) -> None:
    """Have a database show that it keeps what it is given, and tells names apart; nothing stays of it.

    Raises:
        UsageError: it does not.
    """
    name = connection.dialect.name
    if name not in TESTED and not _is_mariadb(connection.dialect):
        _log.warning("store.untested_database", database=name, tested=sorted(TESTED))
    if name in ("sqlite", "postgresql"):
        return
    said = {
        "at": 2**62,
        "actor": "",
        "action": "",
        "subject": json.dumps("\\'%") + "💾",
        "detail": "x" * 10_000,
    }
    proof = connection.begin_nested()
    try:
        connection.execute(
            counters.insert(), [{"name": each, "value": 1} for each in ("Ab", "ab", "ab ", "äb")]
        )
        connection.execute(audit.insert(), said)
        row = connection.execute(sa.select(audit).order_by(audit.c.number.desc()).limit(1)).mappings().one()
        kept = {column: row[column] for column in said} == said
    except DatabaseError:
        kept = False
    finally:
        proof.rollback()
    if not kept:
        raise UsageError(
            f"the {name} database changes what it is given, or takes two names for one",
            hint="make it anew, with UTF-8 and a binary collation"
            + (f": CREATE DATABASE name {_exactly(connection.dialect)}" if name in MYSQLS else ""),
        )


def _prepare_sqlite(dbapi: Any, record: Any) -> None:
    dbapi.isolation_level = None  # transactions begin where SQLAlchemy says so, not where sqlite3 guesses
    cursor = dbapi.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("p2pdist_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_mysql(dbapi: Any, record: Any) -> None:
    cursor = dbapi.cursor()
    cursor.execute(_MYSQL_SESSION)
    cursor.close()
