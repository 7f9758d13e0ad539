"""Full disks: whoever has one waits and says so; when there is room again, nothing has been lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import DEVICES, ServerOptions
from fleet_signing import SignedRelease
from harness import Fleet, open_fleet
from small_disk import needs_mount, small_disk

from p2pdist.errors import Unavailable
from p2pdist.store import content

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

            await fleet.until_logged("content.storage_failed", who=full, info_hash=release.info_hash)
            assert full.installed() is None
            disk.relieve()
            await fleet.until_reported(release, nodes=[full])
            assert full.installed() == release.content


async def test_while_a_point_has_a_full_disk_its_devices_use_the_origin_and_it_serves_when_there_is_room(
    tmp_path: Path, log_book: LogBook
) -> None:
    with small_disk(tmp_path / "point0", 12 * MIB) as disk:
        async with open_fleet(tmp_path, log_book, devices=2) as fleet:
            (point,) = fleet.points
            disk.fill(leave_bytes=MIB // 2)
            first = await fleet.release("1.0", sequence=1)
            await fleet.until_logged("stock.no_room", who=point, target=first.target)
            await fleet.until_logged("certificate.renewed", who=point)  # it makes the point look again, too
            await fleet.until_reported(first)
            assert point.held_bytes(first) == 0
            assert "no room" in await why_origin(fleet, first)
            disk.relieve()
            await fleet.until(lambda: point.has_artifact(first), "the point holds it after all")

            second = await fleet.release("2.0", sequence=2)
            await fleet.until_reported(second)
            assert (await fleet.received(second))["device", "origin"] == 0


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


async def why_origin(fleet: Fleet, release: SignedRelease) -> str:
    """Why a device took the origin as a source, as ``p2pdist explain`` has it."""

    async def reason() -> str:
        for device in fleet.devices:
            report, _ = await fleet.store.read(content.find_content, device.node, release.info_hash)
            for candidate in report.candidates if report is not None else ():
                if candidate.role == "origin" and candidate.taken:
                    return candidate.reason
        return ""

    found: str = await fleet.until(reason, "a device says why it uses the origin")
    return found
