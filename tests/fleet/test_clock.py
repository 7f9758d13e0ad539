"""A clock that was set back: a node remembers what time it has been, and believes nothing older."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fleet_logs import LogBook
from harness import Node, open_fleet

from p2pdist.trust.metadatasets import MetadataSets

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset


async def test_a_device_whose_clock_was_set_back_believes_no_metadata_and_says_why(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        await device.program.stop()
        remember_time(device, time.time() + 24 * 3_600)
        await device.program.start()
        await fleet.release()

        async def refused() -> str:
            records = await fleet.refusals(who=device, kind="metadata")
            return records[0].reason if records else ""

        assert "clock went back" in await fleet.until(refused, "the device refuses")
        assert device.installed() is None


async def test_a_device_whose_clock_is_right_again_goes_on_when_it_starts(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, points=0, devices=1) as fleet:
        (device,) = fleet.devices
        await device.program.stop()
        remember_time(device, time.time() + 24 * 3_600)
        await device.program.start()
        release = await fleet.release()
        await fleet.until_logged("metadata.refused", who=device)
        await device.program.stop()
        remember_time(device, time.time() - 60)
        await device.program.start()
        await fleet.until_reported(release)


def remember_time(node: Node, seconds: float) -> None:
    """Make a node believe that it has been so late already: to it, the clock goes back."""
    MetadataSets(node.home / "trust").raise_clock_floor(int(seconds))
