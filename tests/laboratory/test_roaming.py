"""A laptop between office and home: both behind NAT, both with the same private addresses, as in life."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from lab_fleet import POINTS, LabFleet
from laboratory.network import Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow]

BACK_WITHIN_S = 10.0


def test_a_laptop_that_goes_home_and_comes_back_is_linked_again_within_seconds(tmp_path: Path) -> None:
    with Laboratory() as laboratory, LabFleet(tmp_path, laboratory.server) as fleet:
        office = laboratory.add("port-restricted", hosts=2)
        home = laboratory.add("symmetric", hosts=2)
        point, laptop = office.hosts
        fleet.found()
        fleet.enrol("point", point, POINTS)
        fleet.enrol("laptop", laptop, "/emea")
        fleet.grant("point", point, "/emea")
        fleet.publish()
        fleet.start("point", point, "points/behind-nat.toml")
        fleet.start("laptop", laptop, "agent.toml")
        fleet.until_linked("laptop", "point")
        for place, kind, version in ((home, "server", 1), (office, "point", 2)):
            place.take_in(laptop, at=1)
            moved = time.monotonic()
            fleet.until(
                lambda v=version: len(fleet.logged("laptop", "network.changed")) >= v,  # type: ignore[misc]
                "it notices",
            )
            fleet.until_linked("laptop", kind)
            assert time.monotonic() - moved < BACK_WITHIN_S
            release = fleet.release(b"version " * version, version=str(version))
            fleet.deploy(release)
            fleet.until_reported(release, "laptop")
