"""Who has dialled and waits: the newest first, nobody who has gone, and not too many."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.net.admitting import Row, accept_into


class Door:
    """A port of loopback, and who dials it."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    def dial(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection."""
        dialled = self._stack.enter_context(socket.create_connection(self._listening.getsockname()))
        accepted, _ = self._listening.accept()
        return dialled, self._stack.enter_context(accepted)


@pytest.fixture
def door() -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        yield Door(stack)


@pytest.fixture
def row() -> Iterator[Row]:
    with contextlib.closing(Row()) as row:
        yield row


def is_closed(connection: socket.socket) -> bool:
    return connection.fileno() < 0


async def test_the_newest_goes_first(door: Door, row: Row) -> None:
    accepted = [door.dial()[1] for _ in range(3)]
    for each in accepted:
        row.add(each)
    assert [row.take() for _ in range(4)] == [*reversed(accepted), None]


async def test_who_has_gone_is_left_out(door: Door, row: Row) -> None:
    stays, waits = door.dial()
    goes, left = door.dial()
    row.add(waits)
    row.add(left)
    goes.sendall(b"a greeting")
    goes.close()
    assert row.take() is waits
    assert is_closed(left)
    assert not is_closed(stays)


async def test_where_too_many_wait_who_has_waited_longest_is_turned_away(
    door: Door, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINKS_WAITING_MAX", 2)
    accepted = [door.dial()[1] for _ in range(3)]
    for each in accepted:
        row.add(each)
    assert [is_closed(each) for each in accepted] == [True, False, False]
    assert len(row) == 2


async def test_who_has_waited_long_is_turned_away_when_another_comes(
    door: Door, row: Row, mock_clock: trio.testing.MockClock
) -> None:
    accepted = [door.dial()[1] for _ in range(3)]
    row.add(accepted[0])
    mock_clock.jump(limits.LINK_ROW_S / 2)
    row.add(accepted[1])
    mock_clock.jump(limits.LINK_ROW_S / 2)
    row.add(accepted[2])
    assert [is_closed(each) for each in accepted] == [True, False, False]


async def test_all_who_wait_are_cut_when_nobody_serves_any_more(door: Door, row: Row) -> None:
    _, accepted = door.dial()
    row.add(accepted)
    row.close()
    assert is_closed(accepted)


async def test_all_who_have_dialled_are_taken_in_at_once(row: Row) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()[:2]
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(address))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_into, row, listener)
            await row.wait()
            assert len(row) == 20
            nursery.cancel_scope.cancel()


async def test_without_files_for_a_connection_the_others_are_served_on(
    row: Row, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()[:2]
    failures = iter([OSError(24, "Too many open files"), OSError(103, "Software caused connection abort")])
    accept = socket.socket.accept

    def fail_at_first(listening: socket.socket) -> tuple[socket.socket, object]:
        for failure in failures:
            raise failure
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", fail_at_first)
    with socket.create_connection(address):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept_into, row, listener)
            await row.wait()
            nursery.cancel_scope.cancel()
