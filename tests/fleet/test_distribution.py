"""The fleet when nothing goes wrong: what is deployed arrives, is installed and is reported."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from fleet_logs import LogBook
from harness import open_fleet

from p2pdist.node import reports
from p2pdist.seed.seed import Seed
from p2pdist.swarm.session import Artifact


async def test_a_deployed_release_is_installed_on_every_device_and_each_one_reports_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book) as fleet:
        release = await fleet.release()
        await fleet.until_installed(release)
        await fleet.until_reported(release)


@pytest.mark.slow
async def test_the_origin_sends_one_copy_to_the_point_and_the_devices_fetch_from_it_and_each_other(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book) as fleet:
        release = await fleet.release()
        await fleet.until_installed(release)

        async def accounted() -> bool:
            received = await fleet.received(release)
            near = received["device", "point"] + received["device", "device"]
            # Bytes that came before their sender was known by name are in nobody's account.
            enough = near >= 0.8 * len(fleet.devices) * len(release.content)
            return enough and received["point", "origin"] == len(release.content)

        await fleet.until(accounted, "the bytes are accounted for, one copy of them to the origin")
        assert (await fleet.received(release))["device", "origin"] == 0


@pytest.mark.slow
async def test_a_device_that_joins_later_gets_what_was_deployed_before(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        release = await fleet.release()
        await fleet.until_reported(release)
        late = await fleet.add_device()
        await fleet.until_reported(release, nodes=[late])
        assert late.installed() == release.content


@pytest.mark.slow
async def test_a_newer_release_replaces_the_older_one_on_every_device(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        await fleet.until_reported(await fleet.release("1.0", sequence=1))
        newer = await fleet.release("2.0", sequence=2)
        await fleet.until_reported(newer)
        assert {device.installed() for device in fleet.devices} == {newer.content}


@pytest.mark.slow
async def test_a_device_that_asks_before_its_point_is_ready_hears_at_once_when_it_is(
    tmp_path: Path, log_book: LogBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "_ANNOUNCE_EVERY_S", math.inf)
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (point,) = fleet.points
        seed = point.agent
        assert isinstance(seed, Seed)
        add = seed.member.swarm.add

        async def add_late(artifact: Artifact) -> None:
            await fleet.until(
                lambda: seed.members._tracker.members(artifact.info_hash),
                "the device has announced itself first",
            )
            await add(artifact)

        monkeypatch.setattr(seed.member.swarm, "add", add_late)
        await fleet.until_installed(await fleet.release())
