"""``kill -9`` at the worst moments, with the real programs: it costs at most the step in hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes
from fleet_programs import DEVICES, ServerOptions
from fleet_signing import PLACE, SignedRelease
from harness import Fleet, Node, open_fleet

from p2pdist.store import content
from p2pdist.swarm.torrents import BLOCK_BYTES
from p2pdist.swarm.tuning import REQUESTS

pytestmark = pytest.mark.slow

SLOW_ORIGIN = ServerOptions(origin_up_bytes_per_s=800_000)
SLOW_SITE = ServerOptions(device_down_bytes_per_s=800_000)
SIZE = 4_000_000
PART = SIZE // 2
UNDER_WAY = REQUESTS * BLOCK_BYTES
"""An origin counts a block as sent once it waits to be sent: so many do when a connection breaks."""
STAY_IN_RELOAD = ["sh", "-c", "echo >>begun; while [ ! -e enough ]; do sleep 0.05; done"]


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
        assert [device.installed() for device in fleet.devices] == [None, None]
        await fleet.until_installed(release)
        await fleet.server.start()
        await fleet.until_reported(release)
        assert installs(fleet, release) == [1, 1]


async def test_a_point_killed_in_the_middle_of_a_fetch_goes_on_where_it_was_and_devices_install(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=0, form=Processes(log_book), options=SLOW_ORIGIN
    ) as fleet:
        (point,) = fleet.points
        release = await fleet.release(size=SIZE)
        held = await killed_with_a_part(fleet, point, release)
        await point.program.start()
        await fleet.until(lambda: point.has_artifact(release), "the point has all of it in the end")
        assert await origin_sent(fleet, release) < SIZE + UNDER_WAY + held / 2
        for _ in range(2):
            await fleet.add_device()
        await fleet.until_reported(release)
        assert installs(fleet, release) == [1, 1]


async def test_a_device_killed_in_the_middle_of_a_fetch_goes_on_where_it_was(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(
        tmp_path, log_book, devices=1, form=Processes(log_book), options=SLOW_SITE
    ) as fleet:
        (device,) = fleet.devices
        release = await fleet.release(size=SIZE)
        held = await killed_with_a_part(fleet, device, release)
        assert device.installed() is None
        await device.program.start()
        await fleet.until_reported(release)
        assert device.installed() == release.content
        await all_content_reports(fleet)
        received = await fleet.received(release)
        assert 0 < received["device", "point"] < SIZE - held / 2
        assert installs(fleet, release) == [1]


async def test_a_device_killed_in_the_middle_of_an_install_and_right_after_it_installs_and_reports_once(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        (device,) = fleet.devices
        root = device.config.install.root
        release = fleet.signing.release(
            "1.0", sequence=1, recipe={"kind": "file", "path": PLACE, "reload": STAY_IN_RELOAD}
        )
        await fleet.publish()
        await fleet.server.deploy(release.target, DEVICES)
        await fleet.until((root / "begun").exists, "the install is under way")
        await device.program.kill()
        assert installs(fleet, release) == [0]
        await device.program.start()
        (root / "enough").touch()
        await fleet.until_logged("release.installed", who=device)
        await device.program.kill()
        await device.program.start()
        await fleet.until_reported(release)
        assert device.installed() == release.content
        assert installs(fleet, release) == [1]
        assert (root / "begun").read_text() == "\n\n"  # once before the kill, once after it


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_everything_killed_and_started_in_any_order_ends_with_every_device_installed_and_reported(
    tmp_path: Path, log_book: LogBook, seed: int
) -> None:
    order = random.Random(seed)
    async with open_fleet(
        tmp_path, log_book, devices=2, form=Processes(log_book), options=SLOW_ORIGIN
    ) as fleet:
        release = await fleet.release(size=SIZE)
        for device in fleet.devices:
            await fleet.until_logged("artifact.fetching", who=device)
        programs = [fleet.server, *(node.program for node in fleet.nodes)]
        for program in order.sample(programs, len(programs)):
            await program.kill()
        assert [device.installed() for device in fleet.devices] == [None, None]
        for program in order.sample(programs, len(programs)):
            await program.start()
        await fleet.until_reported(release)
        await fleet.until_installed(release)
        assert installs(fleet, release) == [1, 1]


def installs(fleet: Fleet, release: SignedRelease) -> list[int]:
    """How often each device has installed a release."""
    return [
        len(fleet.log.find("release.installed", who=device.name, target=release.target))
        for device in fleet.devices
    ]


async def killed_with_a_part(fleet: Fleet, node: Node, release: SignedRelease) -> int:
    """Kill a node once it has fetched a good part; return how many bytes are on its disk."""
    await fleet.until(lambda: node.held_bytes(release) > PART, f"{node.name} has a part")
    await node.program.kill()
    assert not node.has_artifact(release)
    return node.held_bytes(release)


async def origin_sent(fleet: Fleet, release: SignedRelease) -> int:
    """How much of a release has left the origin. The admin server writes it down when it publishes."""
    fleet.signing.release("1.0", sequence=1, product="other", place="/opt/other.bin")
    await fleet.publish()
    stored = await fleet.store.read(content.list_artifacts)
    return stored[release.info_hash].sent_bytes


async def all_content_reports(fleet: Fleet) -> None:
    """Wait until the devices have reported where all of their content came from.

    They report on one artifact after the other: what they say of a later one comes after the last word
    on the one before.
    """
    later = fleet.signing.release("1.0", sequence=1, product="other", place="/opt/other.bin", size=100_000)
    await fleet.publish()
    await fleet.server.deploy(later.target, DEVICES)

    async def reported() -> bool:
        return (await fleet.received(later))["device", "point"] > 0

    await fleet.until(reported, "the devices report on the later artifact")
