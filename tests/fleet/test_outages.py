"""Programs that end and come back, in any order: the work goes on, and nothing is lost.

Here they end in an orderly way; `test_kills` kills them.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import ServerOptions
from harness import open_fleet

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

SLOW_ORIGIN = ServerOptions(origin_up_bytes_per_s=800_000)


@pytest.mark.parametrize("seed", [1, 2])
async def test_everything_restarted_in_any_order_ends_with_every_device_installed_and_reported(
    tmp_path: Path, log_book: LogBook, seed: int
) -> None:
    order = random.Random(seed)
    async with open_fleet(tmp_path, log_book, devices=2, options=SLOW_ORIGIN) as fleet:
        release = await fleet.release(size=4_000_000)
        await fleet.until_logged("artifact.fetching", who=fleet.devices[0])
        programs = [fleet.server, *(node.program for node in fleet.nodes)]
        for program in order.sample(programs, len(programs)):
            await program.stop()
        for program in order.sample(programs, len(programs)):
            await program.start()
        await fleet.until_reported(release)
        await fleet.until_installed(release)


async def test_devices_whose_only_point_is_gone_fetch_from_the_origin(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        await fleet.points[0].program.stop()
        for device in fleet.devices:
            await fleet.until_linked(device, "server")
        release = await fleet.release()
        await fleet.until_reported(release)

        async def from_origin() -> bool:
            return (await fleet.received(release))["device", "origin"] > 0

        await fleet.until(from_origin, "the devices say that the origin sent it")


async def test_devices_go_back_to_their_point_when_it_is_there_again(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,), (device,) = fleet.points, fleet.devices
        await point.program.stop()
        await fleet.until_linked(device, "server")
        await point.program.start()
        await fleet.until_linked(device, "point")


async def test_devices_move_to_the_other_point_of_their_scope_and_leave_the_origin_alone(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=2, devices=2) as fleet:
        device = fleet.devices[0]
        lost = fleet.carrier(device)
        assert lost is not None
        (other,) = [point for point in fleet.points if point is not lost]
        await lost.program.stop()
        await fleet.until(lambda: fleet.carrier(device) is other, "the other point carries it")
        release = await fleet.release()
        await fleet.until_reported(release)
        assert (await fleet.received(release))["device", "origin"] == 0
