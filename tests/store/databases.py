"""Database servers of the tests' own: in a temporary directory, on a Unix socket, gone when the tests are."""

from __future__ import annotations

import atexit
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from p2pdist.store.fleetstore import FleetStore

_POSTGRES = ("initdb", "pg_ctl")
_MARIADB = ("mariadb-install-db", "mariadbd")
_START_S = 90  # on a machine that does other things


def find_postgres() -> Path | None:
    """Where PostgreSQL's programs are: on the path, or where Debian and Ubuntu put them."""
    found = {Path(program).parent for tool in _POSTGRES if (program := shutil.which(tool))}
    candidates = [*found, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return next((c for c in candidates if all((c / tool).exists() for tool in _POSTGRES)), None)


def find_mariadb() -> list[str] | None:
    """The paths of MariaDB's programs, the one that makes a data directory first."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"
    found = [program for tool in _MARIADB if (program := shutil.which(tool, path=path))]
    return found if len(found) == len(_MARIADB) else None


@contextmanager
def postgres_server(programs: Path) -> Iterator[str]:
    """Run PostgreSQL; the URL of a database of its own with ``{}`` for its name."""
    with _home("postgres") as (root, account):
        data = str(root / "data")
        _run(
            root, account, str(programs / "initdb"), "-D", data, "-U", "p2pdist", "-A", "trust", "-E", "UTF8",
            "--no-sync",
        )  # fmt: skip
        options = f"-c listen_addresses='' -c unix_socket_directories={root} -c fsync=off"
        pg_ctl = str(programs / "pg_ctl")
        try:
            _run(root, account, pg_ctl, "-D", data, "-o", options, "-l", str(root / "log"), "-w", "start")
            yield f"postgresql+psycopg://p2pdist@/{{}}?host={root}"
        finally:
            _run(root, account, pg_ctl, "-D", data, "-m", "immediate", "stop", check=False)


@contextmanager
def mariadb_server(programs: list[str]) -> Iterator[str]:
    """Run MariaDB; the URL of a database of its own with ``{}`` for its name.

    It gets a directory for temporary tables too: a server that starts removes what lies in the shared one,
    also the tables of a server that runs.
    """
    with _home("mariadb", "mysql") as (root, account):
        data, listening = root / "data", root / "ready"
        install, serve = programs
        _run(
            root, account, install, "--no-defaults", f"--datadir={data}", f"--tmpdir={root}",
            "--skip-test-db", "--auth-root-authentication-method=normal",
        )  # fmt: skip
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
            (root / "output").open("ab") as output,
        ):
            ready.bind(str(listening))
            listening.chmod(0o777)
            ready.settimeout(_START_S)
            server = subprocess.Popen(
                [
                    serve, "--no-defaults", f"--datadir={data}", f"--tmpdir={root}",
                    f"--socket={root}/socket", f"--pid-file={root}/pid", "--skip-networking",
                    "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M",
                ],
                cwd=root, env={**_environment(root), "NOTIFY_SOCKET": str(listening)}, stdout=output,
                stderr=output, **account,
            )  # fmt: skip
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
                yield f"mariadb+pymysql://root@/{{}}?unix_socket={root}/socket"
            finally:
                server.kill()
                server.wait()


@contextmanager
def database(server: str) -> Iterator[str]:
    """Make an empty database at a server; its URL."""
    name = f"fleet_{uuid.uuid4().hex}"
    is_postgres = server.startswith("postgresql")
    admin = sa.create_engine(server.format("postgres" if is_postgres else ""), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield server.format(name)
        connection.exec_driver_sql(f"DROP DATABASE {name}{' WITH (FORCE)' if is_postgres else ''}")
    admin.dispose()


def empty(connection: sa.Connection, metadata: sa.MetaData) -> None:
    """Take everything out of a database, so that numbers begin anew."""
    if connection.dialect.name == "postgresql":
        names = ", ".join(table.name for table in metadata.sorted_tables)
        connection.exec_driver_sql(f"TRUNCATE {names} RESTART IDENTITY")
        return
    for table in reversed(metadata.sorted_tables):
        counted = any(column.autoincrement is True for column in table.primary_key)
        if connection.execute(sa.delete(table)).rowcount and counted:
            connection.exec_driver_sql(f"ALTER TABLE {table.name} AUTO_INCREMENT = 1")


def copy_migrated(path: Path) -> None:
    """Put a new SQLite database with today's schema at *path*: migrating takes longer than most tests."""
    shutil.copyfile(_migrated(), path)


@cache
def _migrated() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="p2pdist-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    FleetStore.open(f"sqlite:///{folder / 'fleet.db'}").close()
    return folder / "fleet.db"


@contextmanager
def _home(name: str, *users: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    account = _unprivileged(name, *users)
    root = Path(tempfile.mkdtemp(prefix=f"p2pdist-{name}-", dir="/tmp"))
    if account:
        os.chown(root, account["user"], account["group"])
    try:
        yield root, account
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _unprivileged(*users: str) -> dict[str, Any]:
    """Database servers refuse to run as root; then a user without rights runs them."""
    if os.geteuid() != 0:
        return {}
    for name in (*users, "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid}
    raise RuntimeError(f"no user to run {users[0]} as")


def _environment(root: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "HOME": str(root)}


def _run(root: Path, account: dict[str, Any], *arguments: str, check: bool = True) -> None:
    with (root / "output").open("ab") as output:
        done = subprocess.run(
            arguments,
            cwd=root,
            env=_environment(root),
            stdout=output,
            stderr=output,
            timeout=_START_S,
            **account,
        )
    if check and done.returncode:
        raise RuntimeError((root / "output").read_text())
