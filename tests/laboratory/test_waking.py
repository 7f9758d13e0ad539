"""A resting device behind a NAT, where no datagram of the admin server arrives: its point wakes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab_fleet import POINTS, LabFleet
from laboratory.network import Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow]


def test_a_point_behind_the_nat_wakes_a_device_on_its_network_for_the_admin_server(tmp_path: Path) -> None:
    with Laboratory() as laboratory, LabFleet(tmp_path, laboratory.server) as fleet:
        point, device = laboratory.add("port-restricted", hosts=2).hosts
        fleet.found()
        fleet.enrol("point", point, POINTS)
        fleet.grant("point", point, "/plant", "--duty", "push")
        fleet.publish()
        fleet.start("point", point, "points/branch.toml")
        fleet.enrol("device", device, "/plant")
        resting = {"P2PDIST_RESTING_ENABLED": "true", "P2PDIST_RESTING_AFTER_S": "1"}
        fleet.start("device", device, "agent.toml", **resting)
        fleet.until_asked(lambda: fleet.states()["device"][0] == "resting", "the device rests")

        release = fleet.release(b"news " * 20_000)
        fleet.deploy(release, "/plant")
        fleet.until_installed(release, "device")
        assert [said["reason"] for said in fleet.logged("device", "device.woken")] == ["deployment"]
        fleet.until(lambda: len(fleet.logged("device", "device.rests")) == 2, "the device rests again")
        (came,) = fleet.logged("server", "device.came")
        assert came["seconds"] < 2, "it was the first wake: the admin server itself begins to send later"
