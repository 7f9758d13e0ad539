"""An operator's sessions with devices, through the real programs."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from fleet_logs import LogBook
from fleet_processes import Processes, ServerProcess, reaching_server
from harness import Fleet, open_fleet

from p2pdist.cli.client import Client
from p2pdist.cli.path import look
from p2pdist.cli.tunnel import forward
from p2pdist.cli.visit import Visitor, open_path
from p2pdist.errors import Unavailable, UsageError
from p2pdist.wire.services import Diagnosis, Echo, Reachability, Tunnel
from tests.answering import answering_server

pytestmark = pytest.mark.slow  # whole fleets as processes


async def visitor(fleet: Fleet) -> Visitor:
    """An operator, once the server can reach every device."""
    return Visitor((await reaching_server(fleet)).target("operator"), hosts=["127.0.0.1"])


async def shouted(port: int, text: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(text)
        await stream.send_eof()
        return b"".join([bytes(data) async for data in stream])


@asynccontextmanager
async def tunnel_open(fleet: Fleet, port: int) -> AsyncIterator[int]:
    """Run what `p2pdist tunnel` does; give the port here."""
    told, listening = trio.open_memory_channel[int](1)
    target = (await reaching_server(fleet)).target("operator")
    operator = Visitor(target, hosts=["127.0.0.1"])
    with Client(target) as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(
                    forward,
                    operator,
                    client,
                    "device0",
                    port,
                    local=0,
                    listening=lambda name, bound: told.send_nowait(bound),
                )
            )
            yield await listening.receive()
            nursery.cancel_scope.cancel()


async def uses(fleet: Fleet) -> list[str]:
    """Return what the audit log says of sessions, the oldest first."""
    server = fleet.server
    assert isinstance(server, ServerProcess)
    log = await server._ask("GET", "/audit?limit=100")
    entries = [each for each in reversed(log["entries"]) if each["action"].startswith("session.")]
    return [f"{each['action']}: {each['detail']}" for each in entries]


@pytest.mark.parametrize("points", [0, 1], ids=["attached to the server", "behind a point"])
async def test_many_connections_to_a_port_of_a_device_are_one_session_and_all_in_the_audit_log(
    tmp_path: Path, log_book: LogBook, points: int
) -> None:
    async with (
        answering_server(bytes.upper) as port,
        open_fleet(
            tmp_path, log_book, points=points, devices=1, form=Processes(log_book), tunnel_ports=[port]
        ) as fleet,
    ):
        async with (
            tunnel_open(fleet, port) as here,
            await trio.open_tcp_stream("127.0.0.1", here) as first,
        ):
            await first.send_all(b"first")
            assert await first.receive_some() == b"FIRST"
            assert await shouted(here, b"second") == b"SECOND"
            await first.send_all(b"third")
            assert await first.receive_some() == b"THIRD"
        assert await uses(fleet) == [
            f"session.announce: tunnel to port {port} of device0",
            f"session.connect: connection to port {port} of device0",
            f"session.connect: connection to port {port} of device0",
        ]
        await fleet.until_logged("session.ended", who=fleet.devices[0])


async def test_a_tunnel_outlives_a_restart_of_the_device_and_of_the_admin_server(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with (
        answering_server(bytes.upper) as port,
        open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book), tunnel_ports=[port]) as fleet,
        tunnel_open(fleet, port) as here,
    ):

        async def reaches() -> bool:
            try:
                return await shouted(here, b"hello") == b"HELLO"
            except trio.BrokenResourceError:
                return False

        for program in (fleet.devices[0].program, fleet.server):
            assert await reaches()
            await program.stop()
            await program.start()
            await fleet.until(reaches, "the tunnel leads to the device again")


async def test_a_port_that_the_device_does_not_allow_is_refused(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        with pytest.raises(Unavailable, match="port 22 is not allowed"):
            async with (await visitor(fleet)).visit("device0", Tunnel(port=22)):
                pass


async def test_a_session_outlives_the_death_of_the_point_that_carries_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    data = random.Random(3).randbytes(3_000_000)
    came = bytearray()
    async with open_fleet(tmp_path, log_book, points=2, devices=1, form=Processes(log_book)) as fleet:
        (device,) = fleet.devices
        carrying = next(
            point
            for point in fleet.points
            if log_book.find("member.attached", who=point.name, node=device.node)
        )
        async with (
            (await visitor(fleet)).visit("device0", Echo()) as (_, _, echo, _),
            trio.open_nursery() as all,
        ):
            all.start_soon(echo.send_all, data)
            while len(came) < len(data):
                came += await echo.receive_some()
                if carrying.program.running and len(came) > 500_000:
                    await carrying.program.kill()
    assert came == data


async def test_a_device_that_is_offline_is_told_so_at_once(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        operator = await visitor(fleet)
        await fleet.devices[0].program.stop()
        await fleet.until_logged("member.detached", node=fleet.devices[0].node)

        async def refused() -> bool:
            try:
                async with operator.visit("device0", Echo()):
                    return False
            except Unavailable as error:
                return "offline" in str(error)

        await fleet.until(refused, "the server says that the device is offline")


async def test_nobody_but_who_announced_a_session_gets_a_path_to_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        assert isinstance(fleet.server, ServerProcess)
        async with (await visitor(fleet)).visit("device0", Echo()) as (info, *_):
            for role, reason in (("operator", "there is no such session"), ("reader", "this needs operator")):
                with pytest.raises(UsageError, match=reason):
                    async with open_path(fleet.server.target(role), info.session):
                        pass


async def test_a_device_diagnoses_itself_and_a_reader_may_not_ask_for_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        assert isinstance(fleet.server, ServerProcess)
        async with (await visitor(fleet)).visit("device0", Diagnosis()) as (_, _, told, _):
            said = b"".join([bytes(data) async for data in told])
        assert fleet.devices[0].node.encode() in said
        with pytest.raises(UsageError, match="this needs operator"):
            async with Visitor(fleet.server.target("reader")).visit("device0", Diagnosis()):
                pass


async def test_a_session_moves_to_a_direct_path_without_losing_a_byte(
    tmp_path: Path, log_book: LogBook
) -> None:
    data = random.Random(4).randbytes(2_000_000)
    came = bytearray()
    async with open_fleet(tmp_path, log_book, points=1, devices=1, form=Processes(log_book)) as fleet:
        operator = await visitor(fleet)
        async with (
            operator.visit("device0", Echo(), better_after_s=0.0) as (_, stream, echo, _),
            trio.open_nursery() as all,
        ):

            async def receive() -> None:
                nonlocal came
                while len(came) < len(data):
                    came += await echo.receive_some()

            all.start_soon(receive)
            await echo.send_all(data[: len(data) // 2])
            with trio.fail_after(10):
                await stream.wait_path("direct")
            await echo.send_all(data[len(data) // 2 :])
        await fleet.until_logged("session.path_opened", who=fleet.devices[0], path="direct")
    assert came == data


async def test_an_operator_sees_the_path_and_the_nats_on_both_sides(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=0, form=Processes(log_book)) as fleet:
        gateway = await fleet.add_point(duties=("seed", "gateway"))
        await fleet.publish()
        device = await fleet.add_device()
        await fleet.until_logged("stun.serving", who=gateway)
        await fleet.until_linked(device, "point")
        operator = await visitor(fleet)
        async with operator.visit("device0", Reachability(), better_after_s=0.0) as visit:
            answer = await look(visit, opened_s=0.1, nat=True, wait_s=12)
        async with operator.visit("device0", Diagnosis()) as (_, _, told, _):
            said = b"".join([bytes(data) async for data in told])
    assert (answer.path, [carrier.name for carrier in answer.relayed_through]) == ("direct", [gateway.name])
    assert answer.reason.startswith("no NAT between 127.")
    asked = {nat.gateway.rpartition(":")[0] for nat in answer.there}
    assert asked == {gateway.host, fleet.bundle.addresses[0].partition(":")[0]}
    assert all("no NAT before" in nat.description for nat in [*answer.here, *answer.there])
    assert b"no NAT before" in said
