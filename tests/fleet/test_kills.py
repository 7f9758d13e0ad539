"""``kill -9`` at the worst moments, with the real programs: it costs at most the step in hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes
from fleet_programs import ServerOptions
from harness import open_fleet

pytestmark = pytest.mark.slow

SLOW_ORIGIN = ServerOptions(origin_up_bytes_per_s=800_000)
SLOW_SITE = ServerOptions(device_down_bytes_per_s=800_000)
SIZE = 4_000_000


async def test_a_server_killed_while_devices_fetch_loses_no_report(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=2, form=Processes(log_book), options=SLOW_SITE
    ) as fleet:
        (point,) = fleet.points
        release = await fleet.release(size=SIZE)
        await fleet.until(lambda: point.has_artifact(release), "the point has all of it")
        for device in fleet.devices:
            await fleet.until_logged("artifact.fetching", who=device)
        await fleet.server.kill()
        await fleet.until_installed(release)
        await fleet.server.start()
        await fleet.until_reported(release)


async def test_a_point_killed_in_the_middle_of_a_fetch_goes_on_and_its_devices_install(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=2, form=Processes(log_book), options=SLOW_ORIGIN
    ) as fleet:
        (point,) = fleet.points
        release = await fleet.release(size=SIZE)
        await fleet.until(lambda: point.held_bytes(release) > 0, "the point has a part")
        await point.program.kill()
        assert not point.has_artifact(release)
        await point.program.start()
        await fleet.until_reported(release)
        await fleet.until(lambda: point.has_artifact(release), "the point has all of it in the end")


async def test_a_device_killed_in_the_middle_of_a_fetch_and_again_after_the_install_still_reports(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=1, form=Processes(log_book), options=SLOW_SITE
    ) as fleet:
        (device,) = fleet.devices
        release = await fleet.release(size=SIZE)
        await fleet.until_logged("artifact.fetching", who=device)
        await device.program.kill()
        assert device.installed() is None
        await device.program.start()
        await fleet.until_logged("release.installed", who=device)
        await device.program.kill()
        await device.program.start()
        await fleet.until_reported(release)
        assert device.installed() == release.content


async def test_everything_killed_at_once_ends_with_every_device_installed_and_reported(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=2, form=Processes(log_book), options=SLOW_ORIGIN
    ) as fleet:
        release = await fleet.release(size=SIZE)
        await fleet.until_logged("artifact.fetching", who=fleet.devices[0])
        programs = [fleet.server, *(node.program for node in fleet.nodes)]
        for program in programs:
            await program.kill()
        for program in reversed(programs):
            await program.start()
        await fleet.until_reported(release)
        await fleet.until_installed(release)
