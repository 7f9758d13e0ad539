"""A gateway's observers: sockets that come and go with its addresses."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
import trio.testing

from p2pdist import limits
from p2pdist.net import observer
from p2pdist.net.observer import OBSERVERS, Observers

HERE = "127.75.0.1"
ELSEWHERE = "203.0.113.9"  # none of this machine's


@pytest.fixture(autouse=True)
def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "OBSERVER_LOOK_S", 0.0)


@asynccontextmanager
async def observers(port: int = 0) -> AsyncIterator[Observers]:
    opened = Observers(lambda token, number, endpoint: None, port=port)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.run)
        yield opened
        nursery.cancel_scope.cancel()


def is_open(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        try:
            other.bind((HERE, port))
        except OSError:
            return True
    return False


class Addresses:
    """Which addresses this machine has: any of loopback's, but for those that are gone."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gone: set[str] = set()
        bound = observer._bound

        def bind(host: str, port: int) -> socket.socket:
            if host in self.gone:
                raise OSError(99, "Cannot assign requested address")
            return bound(host, port)

        monkeypatch.setattr(observer, "_bound", bind)


async def test_there_are_two_at_an_address_and_they_stay() -> None:
    async with observers() as opened:
        found = opened.at(HERE)
        assert len(found) == OBSERVERS
        assert opened.at(HERE) == found


async def test_what_is_at_an_address_that_is_gone_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = Addresses(monkeypatch)
    async with observers() as opened:
        first = opened.at(HERE)
        for number in range(3 * limits.OBSERVER_ADDRESSES_MAX):
            host = f"127.75.1.{number + 1}"
            assert len(opened.at(host)) == OBSERVERS, f"at address {number}"
            addresses.gone |= {host, HERE}
            await trio.testing.wait_all_tasks_blocked()
        assert not any(is_open(endpoint.port) for endpoint in first)


async def test_an_address_that_cannot_be_had_yet_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = Addresses(monkeypatch)
    addresses.gone.add(HERE)
    async with observers() as opened:
        with structlog.testing.capture_logs() as logs:
            assert opened.at(HERE) == () == opened.at(HERE)
        assert [line["event"] for line in logs] == ["observer.restricted"], "said once"
        addresses.gone.clear()
        assert len(opened.at(HERE)) == OBSERVERS


async def test_an_address_of_another_machine_has_none() -> None:
    async with observers() as opened:
        assert opened.at(ELSEWHERE) == ()


async def test_a_port_that_is_taken_is_logged_and_used_once_it_is_free() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, 0))
        port = taken.getsockname()[1]
        async with observers(port) as opened:
            with structlog.testing.capture_logs() as logs:
                first, _ = opened.at(HERE)
            assert first.port != port
            (line,) = logs
            assert f"UDP port {port}" in line["reason"]
            assert str(first.port) in line["hint"]
            taken.close()
            assert opened.at(HERE)[0].port == port


async def test_beyond_some_addresses_there_are_none_and_that_is_logged() -> None:
    async with observers() as opened:
        for number in range(limits.OBSERVER_ADDRESSES_MAX):
            assert opened.at(f"127.75.2.{number + 1}")
        with structlog.testing.capture_logs() as logs:
            assert opened.at(HERE) == ()
        assert [line["host"] for line in logs] == [HERE]
