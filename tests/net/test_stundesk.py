"""STUN beside links: who answers where, and what neighbours are told, over real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.net.link import Link
from p2pdist.net.memory import open_memory_links
from p2pdist.net.natprobe import probe_nats
from p2pdist.net.stun import StunAddress
from p2pdist.net.stundesk import StunDesk, StunSettings
from p2pdist.trust.certificates import parse_certificate
from p2pdist.wire.frames import StunServers
from p2pdist.wire.stun import Endpoint, endpoint_of

HERE, OTHER = "127.77.3.1", "127.77.3.2"
ABOVE = [Endpoint("192.0.2.1", 3478), Endpoint("2001:db8::1", 3478)]


def free_ports() -> tuple[int, int]:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        one.bind((HERE, 0))
        other.bind((HERE, 0))
        return one.getsockname()[1], other.getsockname()[1]


def here(**settings: Any) -> StunSettings:
    return StunSettings(**{"listen": HERE, "ports": (0, 0), **settings})


@asynccontextmanager
async def running(desk: StunDesk) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.run)
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.005)


async def answers(endpoint: Endpoint) -> bool:
    (seen,) = await probe_nats([endpoint])
    return seen.udp


@asynccontextmanager
async def neighbour(desk: StunDesk, fleet: Any) -> AsyncIterator[Link]:
    """A link with a neighbour below; what it yields is the neighbour's end."""
    ours, theirs = (parse_certificate(fleet.identity().certificate_pem) for _ in range(2))

    async with open_memory_links(dialler=theirs, acceptor=ours) as (below, above):
        desk.arrived(above)
        yield below
        desk.gone(above)


async def told(link: Link) -> list[Endpoint]:
    with trio.fail_after(5):
        async for frame in link.frames():
            assert isinstance(frame, StunServers)
            return frame.endpoints
    raise AssertionError("nothing was told")


async def test_a_node_answers_where_it_accepts_links() -> None:
    desk = StunDesk(here())
    async with running(desk):
        await until(lambda: len(desk.endpoints) == 1)
        assert desk.endpoints[0].host == HERE
        assert await answers(desk.endpoints[0])


async def test_configured_addresses_of_a_family_answer_together() -> None:
    ports = free_ports()
    desk = StunDesk(here(ports=ports, addresses=(StunAddress(bind=HERE), StunAddress(bind=OTHER))))
    async with running(desk):
        await until(lambda: bool(desk.endpoints))
        assert desk.endpoints == (Endpoint(HERE, ports[0]),)
        (seen,) = await probe_nats(desk.endpoints)
    assert seen.addresses == 2


async def test_it_answers_only_while_it_is_wanted() -> None:
    wanted = False
    desk = StunDesk(here(), wanted=lambda: wanted)
    async with running(desk):
        await trio.testing.wait_all_tasks_blocked()
        assert desk.endpoints == ()
        for wanted in (True, False, True):
            desk.look()
            await until(lambda wanted=wanted: bool(desk.endpoints) == wanted)  # type: ignore[misc]


async def test_nothing_is_answered_where_it_is_switched_off() -> None:
    desk = StunDesk(here(enabled=False))
    async with running(desk):
        await trio.testing.wait_all_tasks_blocked()
        assert desk.endpoints == ()


async def test_a_port_that_is_taken_is_logged_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "STUN_LOOK_S", 0.05)
    ports = free_ports()
    desk = StunDesk(here(ports=ports))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HERE, ports[1]))
        async with running(desk):
            await until(lambda: bool(desk._complaint))
            assert desk.endpoints == ()
            assert f"UDP port {ports[1]} of {HERE} cannot be had" in desk._complaint
            taken.close()
            await until(lambda: bool(desk.endpoints))
            assert desk._complaint == ""


async def test_a_neighbour_is_told_of_this_node_and_of_those_above(fleet: Any) -> None:
    desk = StunDesk(here())
    desk.heard(StunServers(endpoints=ABOVE))
    async with running(desk):
        await until(lambda: bool(desk.endpoints))
        async with neighbour(desk, fleet) as link:
            assert await told(link) == [*desk.endpoints, *ABOVE]


async def test_a_neighbour_is_told_when_something_changes(fleet: Any) -> None:
    desk = StunDesk(here())
    async with neighbour(desk, fleet) as link:
        assert await told(link) == []
        async with running(desk):
            assert await told(link) == list(desk.endpoints)
            desk.heard(StunServers(endpoints=ABOVE))
            assert await told(link) == [*desk.endpoints, *ABOVE]


async def test_of_a_long_way_up_the_farthest_are_told(fleet: Any) -> None:
    far = [endpoint_of(f"192.0.2.{number}", 3478) for number in range(limits.STUN_SERVERS_MAX)]
    desk = StunDesk(here())
    desk.heard(StunServers(endpoints=far))
    async with running(desk):
        await until(lambda: bool(desk.endpoints))
        async with neighbour(desk, fleet) as link:
            assert await told(link) == [*desk.endpoints, *far[-limits.STUN_SERVERS_MAX // 2 :]]


async def test_who_has_a_link_is_known_to_the_responder_for_as_long_as_it_stands(fleet: Any) -> None:
    desk = StunDesk(here())
    async with neighbour(desk, fleet), neighbour(desk, fleet):
        await trio.testing.wait_all_tasks_blocked()
        hosts = list(desk._hosts)
        assert all(map(desk._is_known, hosts))
    assert not any(map(desk._is_known, hosts))
