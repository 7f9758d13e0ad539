"""Any database that SQLAlchemy reaches: what is asked of it, and what becomes of one that does not do it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.errors import Unavailable, UsageError
from p2pdist.ids import GroupPath
from p2pdist.store import engines, groups, mailroom, sql
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.sql import upsert
from p2pdist.store.tables import artifacts, audit, counters, sighting_identities, sightings
from tests.store import databases
from tests.store.conftest import NOW, enrol


@pytest.fixture(params=["its own statement", "row by row"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How rows are put: as this database does it, or as one does that has no statement for it."""
    if request.param == "row by row":
        monkeypatch.setattr(sql, "STATEMENTS", {})
    return str(request.param)


def _artifact(info_hash: str, length: int, sent: int) -> dict[str, Any]:
    return {
        "info_hash": info_hash,
        "length": length,
        "sha256": "",
        "modified_ns": 0,
        "published": False,
        "damage": "",
        "stored": 0,
        "sent_bytes": sent,
        "unnamed_since": None,
    }


@given(
    batches=st.lists(
        st.dictionaries(st.sampled_from(["a", "A", "b", "ä", "a "]), st.integers(0, 2**62), max_size=4),
        max_size=4,
    )
)
@settings(
    max_examples=8,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_put_rows_are_there_once_with_what_was_said_last_and_what_was_to_be_kept(
    store: FleetStore, way: str, batches: list[dict[str, int]]
) -> None:
    store.write_now(lambda connection: connection.execute(sa.delete(artifacts)))
    expected: dict[str, tuple[int, int]] = {}
    for batch in batches:
        rows = [_artifact(name, length, length) for name, length in batch.items()]
        store.write_now(upsert, artifacts, rows, keep=("sent_bytes",))
        for name, length in batch.items():
            expected[name] = (length, expected.get(name, (0, length))[1])
    rows_now = store.read_now(lambda connection: connection.execute(sa.select(artifacts)).mappings().all())
    assert {row["info_hash"]: (row["length"], row["sent_bytes"]) for row in rows_now} == expected


def test_rows_that_are_nothing_but_their_key_can_be_put_again(store: FleetStore, way: str) -> None:
    def put(connection: sa.Connection) -> int:
        seen = {"key": "k", "device": "d", "network": "n", "sighting": {}, "first": 1, "last": 1}
        connection.execute(sightings.insert().values(number=1, **seen))
        for _ in range(2):
            upsert(connection, sighting_identities, [{"sighting": 1, "identity": "i"}])
        return int(
            connection.execute(sa.select(sa.func.count()).select_from(sighting_identities)).scalar_one()
        )

    assert store.write_now(put) == 1


def test_a_row_that_another_writer_put_in_between_is_updated(
    store: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "STATEMENTS", {})

    def put(connection: sa.Connection) -> int:
        others = [{"name": "raced", "value": 1}]

        def interfere(conn: sa.Connection, element: Any, *rest: Any) -> None:
            if isinstance(element, sa.Update) and others:
                connection.execute(counters.insert(), others.pop())

        sa.event.listen(connection, "after_execute", interfere)
        upsert(connection, counters, [{"name": "raced", "value": 2}])
        query = sa.select(counters.c.value).where(counters.c.name == "raced")
        return int(connection.execute(query).scalar_one())

    assert store.write_now(put) == 2


def test_a_rule_of_the_schema_that_is_broken_is_no_race(
    store: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql, "STATEMENTS", {})
    with pytest.raises(Unavailable, match="met another one"):
        store.write_now(upsert, sighting_identities, [{"sighting": 77, "identity": "of no sighting"}])


def test_names_are_compared_as_they_are_written(store: FleetStore) -> None:
    names = ["Ab", "ab", "ab ", "äb", "a\u0308b", "💾"]

    def keep(connection: sa.Connection) -> list[int]:
        for number, name in enumerate(names):
            connection.execute(counters.insert().values(name=name, value=number))
        return [
            connection.execute(sa.select(counters.c.value).where(counters.c.name == name)).scalar_one()
            for name in names
        ]

    assert store.write_now(keep) == list(range(len(names)))


def test_a_group_is_no_ancestor_of_one_whose_name_only_looks_like_it(store: FleetStore) -> None:
    for path in ("/a_b", "/a_b/x", "/a-b", "/a-b/y"):
        store.write_now(groups.add_group, GroupPath(path), NOW)
    store.write_now(groups.move_group, GroupPath("/a_b"), GroupPath("/moved"))
    assert [group.path for group in store.read_now(groups.list_groups)] == [
        "/", "/a-b", "/a-b/y", "/moved", "/moved/x",
    ]  # fmt: skip


def test_whole_numbers_and_fractions_come_back_as_they_went_in(store: FleetStore) -> None:
    enrol(store, 1)
    store.write_now(upsert, artifacts, [_artifact("a", 2**62, 2**62), _artifact("b", 2**62, 1)])
    rows = store.read_now(
        lambda connection: connection.execute(sa.select(artifacts.c.length, artifacts.c.sent_bytes)).all()
    )
    assert sorted(tuple(row) for row in rows) == [(2**62, 1), (2**62, 2**62)]


def test_of_writers_on_several_servers_none_loses_what_it_wrote(server: str) -> None:
    with databases.database(server) as url:
        stores = [FleetStore.open(url) for _ in range(2)]
        stores[0].write_now(mailroom.reserve_counters, 1)

        def count_up(connection: sa.Connection) -> None:
            value = connection.execute(sa.select(counters.c.value)).scalar_one()  # read, then written
            connection.execute(sa.update(counters).values(value=value + 1))

        def work(store: FleetStore) -> None:
            done = 0
            while done < 10:
                try:
                    store.write_now(count_up)
                except Unavailable:
                    continue  # it said that it did nothing
                done += 1

        threads = [threading.Thread(target=work, args=(store,)) for store in stores for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stores[1].write_now(mailroom.reserve_counters, 1).start == 42
        for store in stores:
            store.close()


def test_a_reader_sees_one_moment_while_another_server_writes(server: str) -> None:
    with databases.database(server) as url:
        stores = [FleetStore.open(url) for _ in range(2)]

        def look_twice(connection: sa.Connection) -> tuple[int, int]:
            first = len(groups.list_groups(connection))
            stores[1].write_now(groups.add_group, GroupPath("/emea"), NOW)
            return first, len(groups.list_groups(connection))

        assert stores[0].read_now(look_twice) == (1, 1)
        assert len(stores[0].read_now(groups.list_groups)) == 2
        for store in stores:
            store.close()


def test_several_servers_that_start_at_once_migrate_one_after_another(server: str) -> None:
    with databases.database(server) as url:
        program = f"from p2pdist.store.fleetstore import FleetStore; FleetStore.open({url!r}).close()"
        started = [
            subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [each.communicate(timeout=60)[1] for each in started]
        assert [each.returncode for each in started] == [0, 0], said
        store = FleetStore.open(url)
        assert [group.path for group in store.read_now(groups.list_groups)] == ["/"]
        store.close()


def test_a_writer_that_never_is_first_gives_up_and_says_so(tmp_path: Path) -> None:
    store = FleetStore.open(f"sqlite:///{tmp_path / 'fleet.db'}")
    tries = []

    class Serialization(Exception):  # as psycopg's, which has this SQLSTATE
        sqlstate = "40001"

    def lose(connection: sa.Connection) -> None:
        tries.append(connection)
        raise sa.exc.OperationalError("", {}, Serialization())

    with pytest.raises(Unavailable, match="another admin server changed the same"):
        store.write_now(lose)
    assert len(tries) > 1
    store.close()


def test_a_database_that_no_test_has_run_on_is_taken_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings_logged: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(engines, "TESTED", frozenset({"postgresql"}))
    FleetStore.open(f"sqlite:///{tmp_path / 'fleet.db'}").close()
    assert [(said["event"], said["database"]) for said in warnings_logged] == [
        ("store.untested_database", "sqlite")
    ]


@pytest.mark.slow
def test_mariadb_is_what_it_is_also_under_the_name_of_mysql(
    mariadb: str, warnings_logged: list[dict[str, Any]]
) -> None:
    with databases.database(mariadb) as url:
        store = FleetStore.open(url.replace("mariadb+", "mysql+"))
        for value in range(2):
            store.write_now(upsert, counters, [{"name": "a", "value": value}])
        store.close()
    assert warnings_logged == []


@pytest.fixture
def warnings_logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the store warns of."""
    said: list[dict[str, Any]] = []

    class Log:
        def warning(self, event: str, **values: Any) -> None:
            said.append({"event": event, **values})

    monkeypatch.setattr(engines, "_log", Log())
    return said


@pytest.mark.slow
def test_a_database_that_takes_two_names_for_one_is_refused_with_the_way_to_make_a_better_one(
    mariadb: str,
) -> None:
    with databases.database(mariadb) as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:  # not empty: what is there is not ours to change
            connection.exec_driver_sql("CREATE TABLE somebody_elses (number INTEGER)")
        engine.dispose()
        with pytest.raises(UsageError, match="COLLATE utf8mb4_nopad_bin"):
            FleetStore.open(url)


@pytest.mark.slow
def test_a_schema_that_was_left_half_made_is_said_with_the_next_step(mariadb: str) -> None:
    with databases.database(mariadb) as url:
        engine = sa.create_engine(url)
        with engine.begin() as connection:  # as a server leaves it that is killed while it makes the tables
            audit.create(connection)
        engine.dispose()
        with pytest.raises(UsageError, match=r"already exists.*; if that was cut off before"):
            FleetStore.open(url)


def test_a_driver_that_is_not_installed_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="has the module MySQLdb"):
        FleetStore.open("mysql+mysqldb://user@host/name")
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UsageError, match=r"p2pdist\[mysql\]"):
        FleetStore.open("mariadb+pymysql://user@host/name")
