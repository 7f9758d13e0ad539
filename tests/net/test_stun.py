"""A gateway's STUN responder and a device's probe, over real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aioice.ice
import aioice.stun
import pytest
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.net.natprobe import probe_nat
from p2pdist.net.stun import StunAddress, StunService, serve_stun
from p2pdist.wire.stun import BindingAnswer, BindingRequest, Endpoint, decode, encode, endpoint_of

ONE, OTHER = "127.77.0.1", "127.77.0.2"
TRANSACTION = bytes(range(12))
PADDED = encode(BindingRequest(transaction=TRANSACTION), bytes_min=limits.STUN_REQUEST_BYTES)
TRIES = 20  # until the ports that were free at one address are free at the other too


@asynccontextmanager
async def serving(*hosts: str, **arguments: Any) -> AsyncIterator[StunService]:
    async with trio.open_nursery() as nursery:
        service: StunService = await nursery.start(started, hosts, arguments)
        yield service
        nursery.cancel_scope.cancel()


async def started(
    hosts: Sequence[str], arguments: dict[str, Any], *, task_status: trio.TaskStatus[StunService]
) -> None:
    for attempt in range(TRIES):
        try:
            await serve_stun(
                [StunAddress(bind=host) for host in hosts], (0, 0), task_status=task_status, **arguments
            )
        except Unavailable:
            if len(hosts) == 1 or attempt == TRIES - 1:
                raise


def udp(host: str) -> trio.socket.SocketType:
    family = trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET
    return trio.socket.socket(family, trio.socket.SOCK_DGRAM)


async def ask(to: Endpoint, data: bytes, *, source: str) -> tuple[BindingAnswer, Endpoint, Endpoint]:
    """Send, and return the answer, where it came from, and where it was asked for."""
    with udp(source) as asking, trio.fail_after(5):
        await asking.bind((source, 0))
        await asking.sendto(data, to.address)
        answered, sender = await asking.recvfrom(2_000)
        answer = decode(answered)
        assert isinstance(answer, BindingAnswer)
        return answer, endpoint_of(*sender[:2]), endpoint_of(*asking.getsockname()[:2])


@pytest.mark.parametrize(("host", "source"), [(ONE, "127.0.0.1"), ("::1", "::1")])
async def test_a_device_learns_its_outside_endpoint(host: str, source: str) -> None:
    async with serving(host) as service:
        for endpoint in service.endpoints:
            answer, sender, asker = await ask(endpoint, PADDED, source=source)
            assert (answer.mapped, sender, answer.origin) == (asker, endpoint, endpoint)
        assert service.statistics().answered == 2


@pytest.mark.parametrize(
    ("change_address", "change_port", "place"), [(False, True, 1), (True, False, 2), (True, True, 3)]
)
async def test_an_answer_leaves_from_the_address_and_port_that_were_asked_for(
    change_address: bool, change_port: bool, place: int
) -> None:
    request = BindingRequest(transaction=TRANSACTION, change_address=change_address, change_port=change_port)
    async with serving(ONE, OTHER) as service:
        data = encode(request, bytes_min=limits.STUN_REQUEST_BYTES)
        answer, sender, _ = await ask(service.endpoints[0], data, source="127.0.0.1")

        assert sender == answer.origin == service.endpoints[place]
        assert answer.other == service.endpoints[3]


async def test_a_gateway_behind_a_forwarding_nat_names_its_outside_address() -> None:
    async with trio.open_nursery() as nursery:
        addresses = [StunAddress(bind=ONE, outside="198.51.100.1")]
        service: StunService = await nursery.start(serve_stun, addresses, (0, 0))
        inside = Endpoint(ONE, service.endpoints[0].port)
        answer, _, _ = await ask(inside, PADDED, source="127.0.0.1")

        assert answer.origin == service.endpoints[0] == Endpoint("198.51.100.1", inside.port)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("hosts", [(ONE,), (ONE, OTHER), ("::1",)])
async def test_a_device_on_the_gateways_network_finds_no_nat(hosts: Sequence[str]) -> None:
    async with serving(*hosts) as service:
        with trio.fail_after(3):
            behaviour = await probe_nat(service.endpoints[0])

    assert behaviour.udp
    assert not behaviour.translated
    assert not behaviour.public
    assert behaviour.mapping == ("endpoint-independent",)
    assert "endpoint-independent" in behaviour.filtering
    assert behaviour.addresses == len(hosts)


async def test_a_gateway_that_is_away_is_no_udp(autojump_clock: trio.testing.MockClock) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((ONE, 0))
        behaviour = await probe_nat(endpoint_of(*silent.getsockname()))

    assert not behaviour.udp
    assert trio.current_time() == pytest.approx(4.5, abs=0.1)


async def test_a_device_without_a_way_to_the_gateway_says_so() -> None:
    with pytest.raises(Unavailable, match="no way to"):
        await probe_nat(Endpoint("255.255.255.255", 3478))


async def test_a_probe_that_is_cancelled_leaves_nothing_behind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind((ONE, 0))
        with trio.move_on_after(0.05) as scope:
            await probe_nat(endpoint_of(*silent.getsockname()))

    assert scope.cancelled_caught


async def test_a_responder_that_is_cancelled_gives_its_ports_back() -> None:
    async with serving(ONE) as service:
        pass
    for endpoint in service.endpoints:
        with udp(ONE) as again:
            await again.bind(endpoint.address)


async def test_a_port_that_is_taken_is_named() -> None:
    async with serving(ONE) as service:
        taken = service.endpoints[0].port
        with pytest.raises(Unavailable, match=f"port {taken} of {ONE}"):
            await serve_stun([StunAddress(bind=ONE)], (taken, 0))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "gateway.example"])
async def test_a_responder_listens_on_particular_addresses(host: str) -> None:
    with pytest.raises(UsageError):
        await serve_stun([StunAddress(bind=host)], (0, 0))


async def test_a_flood_from_one_address_neither_stops_the_others_nor_is_answered() -> None:
    async with serving(ONE) as service, trio.open_nursery() as nursery:
        nursery.start_soon(flood, service.endpoints[0])
        await trio.testing.wait_all_tasks_blocked()
        while service.statistics().source_limited < 2_000:
            await trio.sleep(0.01)
        answered = 0
        for _ in range(20):
            with trio.move_on_after(limits.PROBE_RTO_S):
                await ask(service.endpoints[0], PADDED, source="127.0.0.9")
                answered += 1
        nursery.cancel_scope.cancel()
        assert answered >= 10
        assert service.statistics().answered < 3 * limits.STUN_SOURCE_BURST


async def flood(to: Endpoint) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
        sending.setblocking(False)
        sending.bind(("127.0.0.66", 0))
        while True:
            for _ in range(50):
                sending.sendto(PADDED, to.address)
            await trio.sleep(0.001)


async def test_the_ice_library_learns_its_outside_endpoint_with_a_padded_query_on_its_own_socket() -> None:
    """What whoever gathers candidates with aioice has to do; its own query of 20 bytes has no answer."""

    async def gather(server: Endpoint) -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            lambda: aioice.ice.StunProtocol(aioice.ice.Connection(ice_controlling=True)),
            local_addr=("127.0.0.1", 0),
        )
        message = aioice.stun.Message(
            aioice.stun.Method.BINDING,
            aioice.stun.Class.REQUEST,
            attributes={"SOFTWARE": " " * (limits.STUN_REQUEST_BYTES - 24)},
        )
        response, _ = await protocol.request(message, server.address, retransmissions=3)
        local = transport.get_extra_info("sockname")
        await protocol.close()
        return response.attributes["XOR-MAPPED-ADDRESS"], local

    async with serving(ONE) as service:
        mapped, local = await trio.to_thread.run_sync(asyncio.run, gather(service.endpoints[0]))

    assert mapped == local
