"""Full disks: whoever has one waits and says so; when there is room again, nothing has been lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import DEVICES, ServerOptions
from harness import open_fleet
from small_disk import needs_mount, small_disk

from p2pdist.errors import Unavailable

MIB = 1 << 20
SLOW_SITE = ServerOptions(device_down_bytes_per_s=700_000)

pytestmark = [needs_mount, pytest.mark.slow]


async def test_a_device_with_a_full_disk_says_so_and_installs_when_there_is_room(
    tmp_path: Path, log_book: LogBook
) -> None:
    with small_disk(tmp_path / "device0", 12 * MIB) as disk:
        async with open_fleet(tmp_path, log_book, devices=2) as fleet:
            full, other = fleet.devices
            disk.fill(leave_bytes=MIB // 2)
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[other])

            await fleet.until(lambda: complaints(log_book, full.name), "the device says so")
            assert full.installed() is None
            disk.relieve()
            await fleet.until_reported(release, nodes=[full])
            assert full.installed() == release.content


async def test_a_point_with_a_full_disk_serves_its_scope_when_there_is_room(
    tmp_path: Path, log_book: LogBook
) -> None:
    with small_disk(tmp_path / "point0", 12 * MIB) as disk:
        async with open_fleet(tmp_path, log_book, devices=2) as fleet:
            (point,) = fleet.points
            disk.fill(leave_bytes=MIB // 2)
            release = await fleet.release()
            await fleet.until(lambda: complaints(log_book, point.name), "the point says so")
            disk.relieve()
            await fleet.until_reported(release)
            assert point.has_artifact(release)


async def test_a_server_with_a_full_disk_stores_every_report_when_there_is_room(
    tmp_path: Path, log_book: LogBook
) -> None:
    with small_disk(tmp_path / "server", 16 * MIB) as disk:
        async with open_fleet(tmp_path, log_book, devices=2, options=SLOW_SITE) as fleet:
            release = await fleet.release()
            for device in fleet.devices:
                await fleet.until_logged("artifact.fetching", who=device)
            disk.fill()
            await fleet.until_installed(release)
            await fleet.until_logged("messages.not_stored")
            disk.relieve()
            await fleet.until_reported(release)


async def test_a_server_with_a_full_disk_refuses_a_publication_and_keeps_the_one_before(
    tmp_path: Path, log_book: LogBook
) -> None:
    with small_disk(tmp_path / "server", 16 * MIB) as disk:
        async with open_fleet(tmp_path, log_book, devices=1) as fleet:
            first = await fleet.release("1.0", sequence=1)
            await fleet.until_reported(first)
            disk.fill()
            second = fleet.signing.release("2.0", sequence=2)
            with pytest.raises(Unavailable):
                await fleet.publish()
            disk.relieve()
            late = await fleet.add_device()
            await fleet.until_reported(first, nodes=[late])
            await fleet.publish()
            await fleet.server.deploy(second.target, DEVICES)
            await fleet.until_reported(second)


def complaints(log: LogBook, who: str) -> bool:
    """Whether a node has logged that something did not fit on its disk."""
    return any(
        line.get("who") == who and ("room" in str(line) or "space" in str(line) or "full" in str(line))
        for line in log.lines
    )
