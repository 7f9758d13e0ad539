"""The engine, its migrations and its transactions.

SQLAlchemy is synchronous here and runs in worker threads: no asynchronous driver works under trio.
SQLite has one writer at a time, so writes pass through a limiter of one and take the write lock when
they begin; readers go on meanwhile (WAL). Every commit is synced: what was acknowledged is stored.
Elsewhere writers of several admin servers are serializable, see :mod:`p2pdist.store.engines`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
import trio
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.store.engines import (
    READERS_MAX,
    again_after_races,
    first_connection,
    isolation_of,
    make_exact,
    one_migrates,
    open_engine,
    prove,
)

P = ParamSpec("P")
R = TypeVar("R")

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATING = threading.Lock()  # Alembic keeps its context in a global proxy


class QueryRefused(Unavailable):
    """The change breaks a rule of the schema, or met another one: the same again may fail the same way."""


class FleetStore:
    """The admin server's database. Made by :meth:`open`; the caller calls :meth:`close`."""

    def __init__(self, engine: sa.Engine, reading: Mapping[str, Any], writing: Mapping[str, Any]) -> None:
        self._engine = engine
        self._read_options = reading
        self._write_options = writing
        self._writing = trio.CapacityLimiter(1)
        self._reading = trio.CapacityLimiter(READERS_MAX)

    @classmethod
    def open(cls, url: str) -> FleetStore:
        """Connect, bring the schema up to date, and return the store. Blocking.

        Args:
            url: SQLAlchemy's URL of the database: ``sqlite:////var/lib/p2pdist/fleet.db``,
                ``postgresql+psycopg://user@host/name``, ``mariadb+pymysql://user@host/name`` or another.

        Raises:
            UsageError: the URL makes no sense, its driver is not installed, it is no database, one that
                does not keep what it is given, or one of a newer version.
            Unavailable: the database does not answer, or its disk is full.
        """
        engine = open_engine(url)
        try:
            reading, writing = _migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, reading, writing)

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

        If *query* raises, nothing of it is. Where another admin server was first, *query* is run again:
        it must have no effects but those on the database. If the caller is cancelled while it waits,
        nothing has happened; afterwards the transaction is finished first.

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
        with _translated():
            return again_after_races(lambda: self._run(self._read_options, query, *args, **kwargs))

    def write_now(
        self, query: Callable[Concatenate[sa.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """:meth:`write`, blocking."""
        with _translated():
            return again_after_races(lambda: self._run(self._write_options, query, *args, **kwargs))

    def _run(
        self,
        options: Mapping[str, Any],
        query: Callable[Concatenate[sa.Connection, P], R],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        with self._engine.connect() as connection:
            optioned = connection.execution_options(**options)
            with optioned.begin():
                return query(optioned, *args, **kwargs)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


def _migrate(engine: sa.Engine) -> tuple[dict[str, Any], dict[str, Any]]:
    """Bring the schema up to date; return the options of reading and of writing connections."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    with _MIGRATING, _translated(), first_connection(engine) as connection:
        options = isolation_of(connection)
        writing = connection.execution_options(p2pdist_writes=True)
        with writing.begin(), one_migrates(writing):
            make_exact(writing)
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
            except DatabaseError as error:
                if MigrationContext.configure(writing).impl.transactional_ddl:
                    raise  # nothing of it has happened
                raise UsageError(
                    f"the database's schema cannot be brought up to date ({_cause(error)})",
                    hint="if that was cut off before, restore the backup, or begin with an empty database",
                ) from error
            prove(writing)
    return options


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the database raises into our errors."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _error_of(error) from error


def _error_of(error: SQLAlchemyError) -> P2PDistError:
    cause = _cause(error)
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


def _cause(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]
