"""Content that is not what was signed: nobody installs it, everybody says why, and it can be repaired."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import DEVICES
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


async def altered_release(fleet: Fleet) -> SignedRelease:
    """Publish a release, alter its file on the server's disk, and deploy it."""
    release = fleet.signing.release("1.0", sequence=1)
    await fleet.publish()
    with fleet.server_home.artifact(release.info_hash).open("r+b") as file:
        file.seek(700_000)
        file.write(b"altered " * 20_000)
    await fleet.server.deploy(release.target, DEVICES)
    return release


async def until_everybody_refused(fleet: Fleet, kind: str) -> None:
    for node in fleet.devices:

        async def refused(node: Node = node) -> bool:
            return bool(await fleet.refusals(who=node, kind=kind))

        await fleet.until(refused, f"{node.name} refuses")


async def test_every_device_refuses_content_that_was_altered_at_the_origin_and_names_the_release(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book) as fleet:
        release = await altered_release(fleet)
        await until_everybody_refused(fleet, "content")
        for record in await fleet.refusals(kind="content", who=fleet.devices[0]):
            assert release.target in record.subject
            assert record.reason
        assert [device.installed() for device in fleet.devices] == [None] * 3


async def test_devices_install_a_release_once_its_altered_content_has_been_repaired(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        release = await altered_release(fleet)
        await until_everybody_refused(fleet, "content")
        await fleet.server.upload(release.info_hash, release.content)
        await fleet.until_installed(release)
        await fleet.until_reported(release)


async def test_content_that_was_altered_at_the_point_is_fetched_again_and_never_installed(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,), (first,) = fleet.points, fleet.devices
        release = await fleet.release()
        await fleet.until_reported(release)
        await first.program.stop()
        await point.program.stop()
        with (point.home / "artifacts" / release.info_hash).open("r+b") as file:
            file.write(bytes(200_000))
        await point.program.start()
        late = await fleet.add_device()
        await fleet.until_reported(release, nodes=[late])
        assert late.installed() == release.content
