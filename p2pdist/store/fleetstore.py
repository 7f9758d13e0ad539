"""The engine, its migrations and its transactions.

SQLAlchemy is synchronous here and runs in worker threads: no asynchronous driver works under trio.
SQLite has one writer at a time, so writes pass through a limiter of one and take the write lock when
they begin; readers go on meanwhile (WAL). Every commit is synced: what was acknowledged is stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
import trio
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from p2pdist.errors import P2PDistError, Unavailable, UsageError

P = ParamSpec("P")
R = TypeVar("R")

READERS_MAX = 8
"""Reading transactions at once; more only wait for the interpreter's lock."""

_URL_HINT = "write sqlite:////path/to/fleet.db or postgresql+psycopg://user@host/name"
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = threading.Lock()  # Alembic keeps its context in a global proxy
_PRAGMAS = (
    "PRAGMA journal_mode=WAL",  # readers do not wait for the writer
    "PRAGMA synchronous=FULL",  # a commit is on the disk, also when the power fails
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",  # another process looks into the database
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-16000",  # 16 MB for each connection
    "PRAGMA journal_size_limit=67108864",  # give the log's disk space back after a burst
)


class QueryRefused(Unavailable):
    """The change breaks a rule of the schema, or met another one: the same again may fail the same way."""


class FleetStore:
    """The admin server's database. Made by :meth:`open`; the caller calls :meth:`close`."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(READERS_MAX)

    @classmethod
    def open(cls, url: str) -> FleetStore:
        """Connect, bring the schema up to date, and return the store. Blocking.

        Args:
            url: The database, ``sqlite:////var/lib/p2pdist/fleet.db`` or
                ``postgresql+psycopg://user@host/name``.

        Raises:
            UsageError: the URL makes no sense, it is no database, or one of a newer version.
            Unavailable: the database does not answer, or its disk is full.
        """
        engine = _engine(url)
        try:
            _migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    async def read(
        self, query: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run *query* in a reading transaction: it sees one moment of the database.

        A thread that has begun is waited for, also when the caller is cancelled.

        Raises:
            Unavailable: the database cannot be read now.
        """
        return await trio.to_thread.run_sync(
            lambda: self.read_now(query, *args, **kwargs), limiter=self._reading
        )

    async def write(
        self, query: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Run *query* in a transaction; when this returns, all of it is on the disk.

        If *query* raises, nothing of it is. If the caller is cancelled while it waits, nothing has
        happened; afterwards the transaction is finished first.

        Raises:
            Unavailable: the disk is full, or the database cannot be written now.
        """
        return await trio.to_thread.run_sync(
            lambda: self.write_now(query, *args, **kwargs), limiter=self._writing
        )

    def read_now(
        self, query: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """:meth:`read`, blocking."""
        with _translated(), self._engine.connect() as connection, connection.begin():
            return query(connection, *args, **kwargs)

    def write_now(
        self, query: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """:meth:`write`, blocking."""
        with _translated(), self._engine.connect() as connection:
            writing = connection.execution_options(p2pdist_writes=True)
            with writing.begin():
                return query(writing, *args, **kwargs)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _engine(url: str) -> sa.Engine:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise UsageError("the fleet's database must be a file", hint="write sqlite:////path/to/fleet.db")
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(
                f"a fleet's database is SQLite or PostgreSQL, not {parsed.get_backend_name()}", hint=_URL_HINT
            )
        engine = sa.create_engine(parsed, pool_size=READERS_MAX + 1, max_overflow=0, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise UsageError(
            f"the database URL cannot be used ({error})",
            hint=_URL_HINT,
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(dbapi: Any, record: Any) -> None:
    dbapi.isolation_level = None  # transactions begin where SQLAlchemy says so, not where sqlite3 guesses
    cursor = dbapi.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("p2pdist_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _migrate(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with _MIGRATING, _translated(), engine.connect() as connection:
        writing = connection.execution_options(p2pdist_writes=True)
        with writing.begin():
            if engine.dialect.name == "postgresql":  # one of several admin servers migrates
                writing.execute(sa.text("SELECT pg_advisory_xact_lock(7021944881)"))
            config.attributes["connection"] = writing
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                known = ScriptDirectory.from_config(config).get_current_head()
                raise UsageError(
                    f"the database has a schema that this version does not know ({error}; newest here:"
                    f" {known})",
                    hint="run the newer version of p2pdist-server that wrote it, or restore a backup",
                ) from None


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the database raises into our errors."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _error_of(error) from error


def _error_of(error: SQLAlchemyError) -> P2PDistError:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if "is not a database" in cause:
        return UsageError(f"the fleet's database is damaged ({cause})", hint="restore a backup")
    if "full" in cause or "No space" in cause:
        return Unavailable(
            f"the fleet's database cannot grow ({cause})", hint="free some disk space; reading goes on"
        )
    if isinstance(error, IntegrityError):
        return QueryRefused(f"the change met another one ({cause})", hint="look again, then repeat it")
    if isinstance(error, OperationalError | InterfaceError):
        return Unavailable(
            f"the fleet's database cannot be used now ({cause})",
            hint="check the disk, its permissions and the database server",
        )
    if isinstance(error, DatabaseError):
        return QueryRefused(f"the fleet's database refused a query ({cause})", hint="see the server's log")
    return Unavailable(f"the fleet's database cannot be used now ({cause})", hint="see the server's log")
