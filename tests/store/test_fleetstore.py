"""Transactions: all or nothing, one writer, readers beside it, a full disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
import trio

from p2pdist.errors import Unavailable
from p2pdist.ids import GroupPath
from p2pdist.store import groups
from p2pdist.store.fleetstore import FleetStore
from tests.store.conftest import NOW


async def test_a_transaction_that_raises_leaves_nothing_behind(store: FleetStore) -> None:
    def half(connection: sa.Connection) -> None:
        groups.add_group(connection, GroupPath("/emea"), NOW)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.write(half)
    assert not await store.read(groups.group_exists, GroupPath("/emea"))


async def test_writers_take_turns_and_readers_see_one_moment(store: FleetStore) -> None:
    async def add(number: int) -> None:
        await store.write(groups.add_group, GroupPath(f"/group-{number}"), NOW)
        await store.read(groups.list_groups)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(add, number)
    assert len(await store.read(groups.list_groups)) == 41


async def test_a_writer_that_is_cancelled_while_it_waits_has_done_nothing(store: FleetStore) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()
    finish = trio.Event()

    def slow(connection: sa.Connection) -> None:
        trio.from_thread.run_sync(begun.set, trio_token=token)
        trio.from_thread.run(finish.wait, trio_token=token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.write, slow)
        await begun.wait()
        with trio.move_on_after(0):
            await store.write(groups.add_group, GroupPath("/emea"), NOW)
        finish.set()
    assert not await store.read(groups.group_exists, GroupPath("/emea"))


async def test_reading_goes_on_while_the_disk_is_full_and_writing_goes_on_afterwards(tmp_path: Path) -> None:
    store = FleetStore.open(f"sqlite:///{tmp_path / 'fleet.db'}")

    def limit_pages(connection: sa.Connection, pages: int) -> int:
        return int(connection.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar_one())

    def fill(connection: sa.Connection) -> None:
        limit_pages(connection, 1)  # SQLite raises it to the present size: no page can be added
        for number in range(2_000):
            groups.add_group(connection, GroupPath(f"/full-{number}"), NOW)

    with pytest.raises(Unavailable, match="free some disk space"):
        await store.write(fill)
    assert [g.path for g in await store.read(groups.list_groups)] == ["/"]

    def grow(connection: sa.Connection) -> None:
        limit_pages(connection, 100_000)
        groups.add_group(connection, GroupPath("/emea"), NOW)

    await store.write(grow)
    assert await store.read(groups.group_exists, GroupPath("/emea"))
    store.close()


async def test_a_commit_is_synced_to_the_disk(tmp_path: Path) -> None:
    store = FleetStore.open(f"sqlite:///{tmp_path / 'fleet.db'}")

    def pragmas(connection: sa.Connection) -> tuple[object, ...]:
        return tuple(
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        )

    assert await store.read(pragmas) == ("wal", 2, 1)
    store.close()
