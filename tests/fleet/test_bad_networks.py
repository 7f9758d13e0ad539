"""Networks that lose packets, fall apart, or have a gateway vanish without a word: nothing is lost."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from fleet_laboratory import (
    Laboratory,
    LaboratoryFleet,
    Place,
    VisitorThere,
    needs_laboratory,
    open_laboratory_fleet,
)
from fleet_logs import LogBook
from fleet_processes import ServerProcess
from fleet_programs import DEVICES
from harness import Node

from p2pdist.wire.services import Echo

pytestmark = needs_laboratory

LOST_PERCENT = 5
PARTITION_S = 121.0  # two minutes: longer than any silence that a link bears
MOVED_WITHIN_S = 10.0


class Site:
    """An office behind NAT, with distribution points and a device."""

    def __init__(self, fleet: LaboratoryFleet, office: Place) -> None:
        self.fleet = fleet
        self.office = office
        (self.device,) = fleet.devices

    def carrier(self) -> Node | None:
        """The point that carries the device."""
        return self.fleet.carrier(self.device)

    async def visitor(self) -> VisitorThere:
        """An operator, once the server can reach the device."""
        server = self.fleet.server
        assert isinstance(server, ServerProcess)

        async def reachable() -> bool:
            return self.device.name in await server.online()

        await self.fleet.until(reachable, "the server can reach the device")
        return VisitorThere(self.fleet.server_host, server.target("operator"))


@asynccontextmanager
async def open_site(tmp_path: Path, log_book: LogBook, *, points: int = 1) -> AsyncIterator[Site]:
    with Laboratory() as laboratory:
        office = laboratory.add("port-restricted", hosts=points + 1)
        async with open_laboratory_fleet(tmp_path, log_book, laboratory) as fleet:
            for number in range(points):
                await fleet.point_on(office.hosts[1 + number])
            await fleet.publish()
            device = await fleet.device_on(office.hosts[0])
            await fleet.until_linked(device, "point")
            yield Site(fleet, office)


async def test_with_every_twentieth_packet_lost_a_deployment_and_a_session_come_through_whole(
    tmp_path: Path, log_book: LogBook
) -> None:
    data = random.Random(5).randbytes(500_000)
    async with open_site(tmp_path, log_book) as site:
        site.office.lose(LOST_PERCENT)
        release = await site.fleet.release(size=2_000_000)
        came = bytearray()
        async with (
            (await site.visitor()).visit("device0", Echo()) as (_, _, echo, _),
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(echo.send_all, data)
            while len(came) < len(data):
                came += await echo.receive_some()
        assert came == data
        await site.fleet.until_reported(release)


async def test_a_gateway_that_vanishes_without_a_word_costs_its_idle_devices_ten_seconds_and_no_message(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_site(tmp_path, log_book, points=2) as site:
        lost = site.carrier()
        assert lost is not None
        host = site.office.hosts[1 + site.fleet.points.index(lost)]
        host.run("ip", "link", "set", "eth0", "down")  # its cable: nobody hears of it
        gone = trio.current_time()
        release = await site.fleet.release()  # the server still sends it to the one that is gone
        await site.fleet.until(
            lambda: site.carrier() not in (None, lost), "the other point carries the device"
        )
        assert trio.current_time() - gone < MOVED_WITHIN_S
        await site.fleet.until_reported(release)


@pytest.mark.timeout(240)
async def test_a_site_that_is_cut_off_for_minutes_catches_up_and_nothing_is_lost(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_site(tmp_path, log_book) as site:
        fleet = site.fleet
        first = await fleet.release("1.0", sequence=1, size=2_000_000)
        await fleet.until_logged("artifact.fetching", who=site.device)
        site.office.partition()
        second = fleet.signing.release("1.0", sequence=1, product="other", place="/opt/other.bin")
        await fleet.publish()
        await fleet.server.deploy(second.target, DEVICES)
        await trio.sleep(PARTITION_S)  # minutes are what this is about
        site.office.heal()
        healed = trio.current_time()
        await fleet.until_linked(fleet.points[0], "server")
        assert trio.current_time() - healed < 20
        for release in (first, second):
            await fleet.until_reported(release)
