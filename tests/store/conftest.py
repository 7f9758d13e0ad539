"""SQLite, real PostgreSQL and MariaDB servers where they are installed, and rows to fill them with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from p2pdist.ids import GroupPath, NodeId, TargetPath, node_id_of
from p2pdist.store import devices, groups, tokens
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import DeviceRecord, EnrolmentTokenRecord
from p2pdist.store.tables import metadata
from p2pdist.wire.frames import Candidate
from p2pdist.wire.messages import ContentReport, Heartbeat, Progress, Refusal, Report, SourceBytes
from tests.store import databases

SERVERS = [pytest.param(name, marks=pytest.mark.slow) for name in ("postgresql", "mariadb")]
DATABASES = ["sqlite", *SERVERS]


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """A PostgreSQL server that lives as long as the test session; its URL with a place for a name."""
    programs = databases.find_postgres()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    with databases.postgres_server(programs) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    """A MariaDB server that lives as long as the test session; its URL with a place for a name."""
    programs = databases.find_mariadb()
    if programs is None:
        pytest.skip("MariaDB is not installed: apt install mariadb-server")
    with databases.mariadb_server(programs) as server:
        yield server


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """A database server; its URL with a place for a name."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'fleet.db'}"
        return
    with databases.database(request.getfixturevalue(request.param)) as made:
        yield made


@pytest.fixture(scope="session")
def postgresql_store(postgresql: str) -> Iterator[FleetStore]:
    """One PostgreSQL store for many tests, each of which finds it empty."""
    yield from _opened(postgresql)


@pytest.fixture(scope="session")
def mariadb_store(mariadb: str) -> Iterator[FleetStore]:
    """One MariaDB store for many tests, each of which finds it empty."""
    yield from _opened(mariadb)


def _opened(server: str) -> Iterator[FleetStore]:
    with databases.database(server) as made:
        opened = FleetStore.open(made)
        yield opened
        opened.close()


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FleetStore]:
    """An empty store."""
    if request.param == "sqlite":
        databases.copy_migrated(tmp_path / "fleet.db")
        opened = FleetStore.open(f"sqlite:///{tmp_path / 'fleet.db'}")
        yield opened
        opened.close()
        return
    shared: FleetStore = request.getfixturevalue(f"{request.param}_store")
    shared.write_now(_empty)
    yield shared


def _empty(connection: sa.Connection) -> None:
    databases.empty(connection, metadata)
    connection.execute(metadata.tables["groups"].insert().values(path="/", created=0))


NOW = 1_700_000_000
TARGET = TargetPath("stable/app/1.0/app.tar.zst")
HASH = "ab" * 32


def public_of(number: int) -> bytes:
    return bytes([number]) * 32


def node_of(number: int) -> NodeId:
    return node_id_of(public_of(number))


def token_record(
    group: str = "/", *, token_id: str = "", uses: int = 1, expires: int = NOW + 3600
) -> EnrolmentTokenRecord:
    return EnrolmentTokenRecord(
        id=token_id or "t1",
        group_path=GroupPath(group),
        uses=uses,
        uses_left=uses,
        expires=expires,
        created=NOW,
        created_by="test",
        note="",
    )


def add_group(store: FleetStore, *paths: str) -> None:
    for path in paths:
        store.write_now(groups.add_group, GroupPath(path), NOW)


def add_token(store: FleetStore, token: str, record: EnrolmentTokenRecord) -> None:
    store.write_now(tokens.add_enrolment_token, token, record)


def enrol(
    store: FleetStore, number: int, group: str = "/", *, machine: str = "", token: str = ""
) -> DeviceRecord:
    secret = token or f"token-{number}-{machine}"
    if not token:
        add_token(store, secret, token_record(group, token_id=secret))
    device, _ = store.write_now(
        devices.enrol_device,
        token=secret,
        node=node_of(number),
        public=public_of(number),
        name=f"device-{number}",
        platform="linux-x86_64",
        machine=machine or f"machine-{number}",
        now=NOW,
    )
    return device


def heartbeat(revision: int = 1, *, name: str = "renamed") -> Heartbeat:
    return Heartbeat(
        revision=revision,
        metadata={"root": 1, "timestamp": 7},
        platform="linux-aarch64",
        program="p2pdist 0.1.0",
        name=name,
        certificate_expires=NOW + 86_400,
        swarms=["stable.acme.swarm.p2pdist.internal"],
        disk_free_bytes=10**12,
        installed={"stable/app": 3},
    )


def progress(deployment: str, stage: str = "fetching", fraction: float = 0.5) -> Progress:
    return Progress(
        deployment=deployment,
        target=TARGET,
        stage=stage,  # type: ignore[arg-type]  # a test's own literal
        fraction=fraction,
        rate_bytes_per_s=1_000,
        sources=2,
    )


def report(deployment: str, stage: str = "installed", *, report_id: str = "r1", at: int = NOW) -> Report:
    return Report(
        id=report_id,
        deployment=deployment,
        target=TARGET,
        stage=stage,  # type: ignore[arg-type]  # a test's own literal
        reason="done",
        exit_code=0,
        output=b"\x00\xffraw output",
        seconds=12.5,
        finished=at,
    )


def refusal(refusal_id: str = "f1", *, at: int = NOW, reason: str = "wrong signature") -> Refusal:
    return Refusal(id=refusal_id, kind="metadata", subject="channel-stable", reason=reason, at=at)


def content_report(received: int = 100) -> ContentReport:
    point, origin = node_of(201), node_of(200)
    return ContentReport(
        info_hash=HASH,
        target=TARGET,
        sources=[
            SourceBytes(node=point, role="point", received=received, sent=0),
            SourceBytes(node=node_of(3), role="device", received=7, sent=5),
        ],
        candidates=[
            Candidate(node=point, role="point", host="10.0.0.1", port=6881, taken=True, reason="same site"),
            Candidate(node=origin, role="origin", host="10.9.0.1", port=6881, taken=False, reason="WAN"),
        ],
    )
