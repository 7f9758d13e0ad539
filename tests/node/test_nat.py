"""What a node knows of the NATs before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.net.stun import StunAddress, StunService, serve_stun
from p2pdist.node.nat import NatWatch
from p2pdist.wire.frames import StunServers
from p2pdist.wire.stun import Endpoint


@asynccontextmanager
async def responder(host: str = "127.77.4.1") -> AsyncIterator[Endpoint]:
    async with trio.open_nursery() as nursery:
        service: StunService = await nursery.start(serve_stun, [StunAddress(bind=host)], (0, 0))
        yield service.endpoints[0]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(watch: NatWatch) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        yield
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROBES_SETTLE_S", 0.01)


async def test_a_node_looks_at_its_nats_as_soon_as_it_is_told_whom_to_ask() -> None:
    watch = NatWatch()
    async with responder() as endpoint, running(watch):
        watch.told(StunServers(endpoints=[endpoint]))
        with trio.fail_after(10):
            (seen,) = await watch.wait_known()
    assert (seen.gateway, seen.udp, seen.translated) == (endpoint, True, False)
    assert watch.servers == (endpoint,)


async def test_a_node_that_dials_nobody_knows_whom_those_can_ask_who_visit_it() -> None:
    watch = NatWatch(sends=lambda: False)
    watch.told(StunServers(endpoints=[Endpoint("127.0.0.1", 9)]))
    assert watch.servers == (Endpoint("127.0.0.1", 9),)


async def test_a_node_that_learns_meanwhile_that_it_dials_nobody_does_not_look() -> None:
    sends = True
    watch = NatWatch(sends=lambda: sends)
    async with responder() as endpoint, running(watch):
        watch.told(StunServers(endpoints=[endpoint]))
        sends = False
        with trio.fail_after(10):
            await watch._known.wait()
        assert watch.behaviours == ()


async def test_a_node_that_dials_nobody_does_not_keep_those_waiting_who_ask(autojump_clock: Any) -> None:
    began = trio.current_time()
    assert await NatWatch(sends=lambda: False).wait_known() == ()
    assert trio.current_time() == began


async def test_it_looks_anew_on_another_link_and_keeps_the_last_answer_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PROBES_EVERY_S", 0.01)
    watch = NatWatch()
    async with responder() as one, responder("127.77.4.2") as other, running(watch):
        watch.told(StunServers(endpoints=[one]))
        assert [seen.gateway for seen in await watch.wait_known()] == [one]
        watch.told(StunServers(endpoints=[other]))
        assert [seen.gateway for seen in watch.behaviours] == [one]
        with trio.fail_after(10):
            while [seen.gateway for seen in watch.behaviours] != [other]:
                await trio.sleep(0.01)


async def test_in_another_network_nobody_is_told_of_the_nats_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PROBES_EVERY_S", 0.01)
    watch = NatWatch()
    async with responder() as one, responder("127.77.4.2") as other, running(watch):
        watch.told(StunServers(endpoints=[one]))
        await watch.wait_known()
        watch.told(StunServers(endpoints=[other]))
        with trio.fail_after(10):
            assert [seen.gateway for seen in await watch.wait_known()] == [other]


async def test_the_same_servers_are_asked_again_on_a_new_link_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROBES_EVERY_S", 0.0)
    watch = NatWatch()
    async with responder() as endpoint, running(watch):
        watch.told(StunServers(endpoints=[endpoint]))
        first = await watch.wait_known()
        watch.told(StunServers(endpoints=[endpoint]))
        await trio.sleep(0.1)
        assert watch.behaviours is first
        watch.linked()
        watch.told(StunServers(endpoints=[endpoint]))
        with trio.fail_after(10):
            while watch.behaviours is first:
                await trio.sleep(0.01)


async def test_a_node_that_may_dial_nobody_asks_nobody() -> None:
    watch = NatWatch(sends=lambda: False)
    async with responder() as endpoint, running(watch):
        watch.linked()
        watch.told(StunServers(endpoints=[endpoint]))
        await trio.sleep(0.2)
        assert watch.behaviours == ()


async def test_who_asks_while_nothing_is_known_waits_for_a_while_only(autojump_clock: Any) -> None:
    watch = NatWatch()
    async with running(watch):
        began = trio.current_time()
        assert await watch.wait_known() == ()
        assert trio.current_time() - began == limits.PROBES_KNOWN_S


async def test_a_node_with_an_address_of_its_own_offers_no_other() -> None:
    assert NatWatch("127.0.0.1").hosts == ["127.0.0.1"]
    assert NatWatch().hosts is None
