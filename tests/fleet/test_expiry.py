"""What runs out while the programs run: the timestamp, because the admin server is away, and a grant."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_programs import ServerOptions
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

BRIEF = ServerOptions(timestamp_life_s=10, device_down_bytes_per_s=300_000)
SIZE = 6_000_000


def is_stale(fleet: Fleet, node: Node) -> bool:
    """Whether the last that a node knew of its metadata is that it is stale."""
    lines = [
        line["event"]
        for line in fleet.log.lines
        if line.get("who") == node.name and line["event"] in ("metadata.verified", "metadata.stale")
    ]
    return lines[-1:] == ["metadata.stale"]


async def until_from_origin(fleet: Fleet, release: SignedRelease) -> None:
    """Wait until devices say that the origin sent them something."""

    async def from_origin() -> bool:
        return (await fleet.received(release))["device", "origin"] > 0

    await fleet.until(from_origin, "the devices say that the origin sent it")


async def test_without_the_admin_server_a_site_goes_on_fetching_and_installs_when_its_word_is_fresh_again(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, options=BRIEF) as fleet:
        (point,), (device,) = fleet.points, fleet.devices
        release = await fleet.release(size=SIZE)
        await fleet.until(lambda: point.has_artifact(release), "the point has all of it")
        await fleet.until_logged("artifact.fetching", who=device)
        await fleet.server.stop()
        await fleet.until(lambda: is_stale(fleet, device), "the device's metadata is stale")
        assert not device.has_artifact(release), "it is in the middle"

        await point.program.stop()
        await point.program.start()
        assert is_stale(fleet, point)
        await fleet.until_linked(device, "point")
        await fleet.until(lambda: device.has_artifact(release), "the device has all of it")
        await fleet.until_logged("artifact.complete", who=device)
        assert not fleet.log.find("release.installing", who=device.name)
        assert device.installed() is None

        await fleet.server.start()
        await fleet.until_reported(release)
        assert device.installed() == release.content


async def test_a_point_whose_grant_runs_out_is_left_by_its_devices(tmp_path: Path, log_book: LogBook) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,), (device,) = fleet.points, fleet.devices
        fleet.signing.grant(point.node, [point.address], expires=int(time.time()) + 5)
        await fleet.publish()
        await fleet.until_logged("link.without_grant", who=device)
        await fleet.until_linked(device, "server")
        release = await fleet.release()
        await fleet.until_reported(release)
        await until_from_origin(fleet, release)
        assert (await fleet.received(release))["device", "point"] == 0


async def test_a_point_whose_grant_runs_out_in_the_middle_of_a_fetch_sends_no_more(
    tmp_path: Path, log_book: LogBook
) -> None:
    options = ServerOptions(device_down_bytes_per_s=300_000)
    async with open_fleet(tmp_path, log_book, devices=1, options=options) as fleet:
        (point,), (device,) = fleet.points, fleet.devices
        release = await fleet.release(size=SIZE)
        await fleet.until(lambda: point.has_artifact(release), "the point has all of it")
        fleet.signing.grant(point.node, [point.address], expires=int(time.time()) + 5)
        await fleet.publish()
        await fleet.until_logged("link.without_grant", who=device)
        assert not device.has_artifact(release), "it is in the middle"
        await fleet.until_linked(device, "server")
        await fleet.until_reported(release)
        await until_from_origin(fleet, release)
        assert 0 < (await fleet.received(release))["device", "point"] < SIZE
