"""The fleet when nothing goes wrong: what is deployed arrives, is installed and is reported."""

from __future__ import annotations

from pathlib import Path

from fleet_logs import LogBook
from harness import open_fleet


async def test_a_deployed_release_is_installed_on_every_device_and_each_one_reports_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book) as fleet:
        release = await fleet.release("1.0", sequence=1)
        await fleet.until_installed(release)
        await fleet.until_reported(release)
