"""Networks that lose packets, fall apart, or have a gateway vanish without a word: nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from held_session import hold_session
from lab_fleet import POINTS, LabFleet
from laboratory.network import Laboratory, Place

pytestmark = [pytest.mark.network, pytest.mark.slow]

LOST_PERCENT = 5
PARTITION_S = 121.0  # two minutes: longer than any silence that a link bears
MOVED_WITHIN_S = 10.0
LINKED_WITHIN_S = 20.0
CONTENT = random.Random(5).randbytes(2_000_000)
ECHOED_BYTES = 500_000
WAN_BYTES_PER_S = 400_000
"""What a point takes in where something is to happen in the middle of it."""


@dataclass(frozen=True)
class Site:
    """An office behind NAT, with a device and distribution points, one a host."""

    fleet: LabFleet
    office: Place
    points: list[str]

    def carrier(self) -> str | None:
        """The point that carries the device, as the device's log has it."""
        ups = [fields for fields in self.fleet.logged("device", "link.up") if fields["kind"] == "point"]
        return next(
            (name for name in self.points if ups and ups[-1]["upstream"] == self.fleet.nodes[name]), None
        )


@contextmanager
def open_site(directory: Path, *, points: int = 1, wan_bytes_per_s: int = 0) -> Iterator[Site]:
    with Laboratory() as laboratory, LabFleet(directory, laboratory.server) as fleet:
        office = laboratory.add("port-restricted", hosts=points + 1)
        fleet.found()
        names = [f"point{number}" for number in range(points)]
        for name, host in zip(names, office.hosts[1:], strict=True):
            fleet.enrol(name, host, POINTS)
            fleet.grant(name, host, "/emea")
        fleet.enrol("device", office.hosts[0], "/emea")
        fleet.publish()
        for name, host in zip(names, office.hosts[1:], strict=True):
            slow = {"P2PDIST_RATES_WAN_DOWN": str(wan_bytes_per_s)}
            fleet.start(name, host, "points/behind-nat.toml", **slow)
        fleet.start("device", office.hosts[0], "agent.toml")
        fleet.until_linked("device", "point")
        yield Site(fleet, office, names)


def test_with_every_twentieth_packet_lost_a_deployment_and_a_session_come_through_whole(
    tmp_path: Path,
) -> None:
    with open_site(tmp_path) as site:
        fleet = site.fleet
        fleet.until_carried("device", by="point0")
        site.office.lose(LOST_PERCENT)
        release = fleet.release(CONTENT)
        with hold_session(fleet, fleet.host, "device", bytes_min=ECHOED_BYTES) as session:
            fleet.deploy(release)
            said = session.finish()
        assert said["intact"], said
        assert said["sent"] >= ECHOED_BYTES
        fleet.until_reported(release, "device")


def test_a_gateway_that_vanishes_without_a_word_costs_its_idle_devices_ten_seconds_and_no_message(
    tmp_path: Path,
) -> None:
    with open_site(tmp_path, points=2) as site:
        fleet = site.fleet
        release = fleet.release(CONTENT)
        lost = site.carrier()
        assert lost is not None
        host = site.office.hosts[1 + site.points.index(lost)]
        host.run("ip", "link", "set", "eth0", "down")  # its cable: nobody hears of it
        gone = time.monotonic()
        fleet.deploy(release)  # the server still sends it to the one that is gone
        fleet.until(lambda: site.carrier() not in (None, lost), "the other point carries the device")
        assert time.monotonic() - gone < MOVED_WITHIN_S
        fleet.until_reported(release, "device")


@pytest.mark.timeout(240)
def test_a_site_that_is_cut_off_for_minutes_catches_up_and_nothing_is_lost(tmp_path: Path) -> None:
    with open_site(tmp_path, wan_bytes_per_s=WAN_BYTES_PER_S) as site:
        fleet = site.fleet
        first = fleet.release(CONTENT)
        fleet.deploy(first)
        fleet.until(lambda: fleet.logged("device", "artifact.fetching"), "it fetches")
        site.office.partition()
        parted = time.monotonic()
        assert not fleet.has_installed("device", first), "it is cut off in the middle of it"
        second = fleet.release(b"content", product="other")
        fleet.deploy(second)
        time.sleep(parted + PARTITION_S - time.monotonic())  # minutes are what this is about
        site.office.heal()
        healed = time.monotonic()
        fleet.until_linked("point0", "server")
        assert time.monotonic() - healed < LINKED_WITHIN_S
        for release in (first, second):
            fleet.until_reported(release, "device")
