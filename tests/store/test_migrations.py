"""The schema: made on start, the same as the tables in the code, refused when it is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations

from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.ids import GroupPath
from p2pdist.store import deployments, groups
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.migrations.versions import (
    r0003_retries,
    r0004_tasks,
    r0005_inventory,
    r0006_wakes,
    r0007_triggers_and_interfaces,
    r0008_proposals,
)
from p2pdist.store.tables import metadata
from tests.store.conftest import NOW, TARGET, add_group, enrol, node_of, report

pytestmark = pytest.mark.slow  # a database for each


def test_migrating_an_empty_database_gives_the_tables_in_the_code(url: str) -> None:
    FleetStore.open(url).close()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_what_devices_said_before_there_were_retries_counts_as_the_first_try(url: str) -> None:
    store = FleetStore.open(url)
    enrol(store, 1)
    store.write_now(deployments.add_deployment, "d1", TARGET, GroupPath("/"), "test", NOW)
    store.write_now(deployments.record_reports, [(node_of(1), report("d1", "failed"))], NOW)
    store.close()
    engine = sa.create_engine(url)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        r0008_proposals.downgrade()
        r0007_triggers_and_interfaces.downgrade()
        r0006_wakes.downgrade()
        r0005_inventory.downgrade()
        r0004_tasks.downgrade()
        r0003_retries.downgrade()
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '0002'"))
    engine.dispose()
    store = FleetStore.open(url)
    (state,) = store.read_now(deployments.deployment_devices, "d1")
    assert (state.stage, state.retry, state.retry_wanted) == ("failed", 0, 0)
    assert store.write_now(deployments.retry_deployment, "d1", [node_of(1)]) == [node_of(1)]
    store.close()


def test_opening_again_keeps_everything(url: str) -> None:
    store = FleetStore.open(url)
    add_group(store, "/emea/berlin")
    store.close()
    again = FleetStore.open(url)
    assert [g.path for g in again.read_now(groups.list_groups)] == ["/", "/emea", "/emea/berlin"]
    again.close()


def test_a_database_of_a_newer_version_is_refused_with_the_next_step(url: str) -> None:
    FleetStore.open(url).close()
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UsageError, match="newer version"):
        FleetStore.open(url)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "fleet.db"
    file.write_bytes(b"this is a letter to my aunt, not a database" * 100)
    with pytest.raises(UsageError, match="damaged"):
        FleetStore.open(f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"this is a letter")


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "nonsense",
        "oracle+nothing://x/y",
        "",
        "postgresql+psycopg2://x/y",
        "mariadb+pymysql://x/y?nonsense=1",
    ],
)
def test_a_url_that_cannot_work_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:////"):
        FleetStore.open(url)


def test_a_database_server_that_is_away_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        FleetStore.open(f"postgresql+psycopg://nobody@/none?host={tmp_path}&connect_timeout=1")


def test_a_directory_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(P2PDistError, match="unable to open"):
        FleetStore.open(f"sqlite:///{tmp_path}/missing/fleet.db")
