"""A laptop between office and home: both behind NAT, both with the same private addresses, as in life."""

from __future__ import annotations

from pathlib import Path

import trio
from fleet_laboratory import Laboratory, needs_laboratory, open_laboratory_fleet
from fleet_logs import LogBook

pytestmark = needs_laboratory

BACK_WITHIN_S = 10.0


async def test_a_laptop_that_goes_home_and_comes_back_is_linked_again_within_seconds(
    tmp_path: Path, log_book: LogBook
) -> None:
    with Laboratory() as laboratory:
        office = laboratory.add("port-restricted", hosts=2)
        home = laboratory.add("symmetric", hosts=2)
        async with open_laboratory_fleet(tmp_path, log_book, laboratory) as fleet:
            await fleet.point_on(office.hosts[0])
            await fleet.publish()
            laptop = await fleet.device_on(office.hosts[1])
            await fleet.until_linked(laptop, "point")
            for place, kind, version in ((home, "server", 1), (office, "point", 2)):
                place.take_in(office.hosts[1], at=1)
                moved = trio.current_time()
                await fleet.until(
                    lambda v=version: len(log_book.find("network.changed", who=laptop.name)) >= v,
                    "it notices",
                )
                await fleet.until_linked(laptop, kind)
                assert trio.current_time() - moved < BACK_WITHIN_S
                release = await fleet.release(f"{version}.0", sequence=version)
                await fleet.until_reported(release)
