"""Networks that lose packets, fall apart, or have a gateway vanish without a word: nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from held_session import hold_session
from lab_fleet import POINTS, LabFleet, Release
from laboratory.network import Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow]

LOST_PERCENT = 5
PARTITION_S = 121.0  # two minutes: longer than any silence that a link bears
MOVED_WITHIN_S = 10.0
LINKED_WITHIN_S = 20.0
BYTES = 2_000_000
ECHOED_BYTES = 500_000
WAN_BYTES_PER_S = 400_000
"""What a point takes in where something is to happen in the middle of it."""


class Site:
    """An office behind NAT, with a device and distribution points, one a host; all have the site's name."""

    def __init__(
        self, laboratory: Laboratory, fleet: LabFleet, name: str, *, points: int = 1, wan_bytes_per_s: int = 0
    ) -> None:
        self.fleet, self.device, self._group = fleet, f"{name}-device", f"/{name}"
        self.office = laboratory.add("port-restricted", hosts=points + 1)
        self.points = [f"{name}-point{number}" for number in range(points)]
        device, *others = self.office.hosts
        for point, host in zip(self.points, others, strict=True):
            fleet.enrol(point, host, POINTS)
            fleet.grant(point, host, self._group)
        fleet.enrol(self.device, device, self._group)
        fleet.publish()
        for point, host in zip(self.points, others, strict=True):
            slow = {"P2PDIST_RATES_WAN_DOWN": str(wan_bytes_per_s)}
            fleet.start(point, host, "points/behind-nat.toml", **slow)
        fleet.start(self.device, device, "agent.toml")
        fleet.until_linked(self.device, "point")

    def carrier(self) -> str | None:
        """The point that carries the device, as the device's log has it."""
        ups = [fields for fields in self.fleet.logged(self.device, "link.up") if fields["kind"] == "point"]
        return next(
            (name for name in self.points if ups and ups[-1]["upstream"] == self.fleet.nodes[name]), None
        )

    def release(self, version: str, size: int = BYTES) -> Release:
        """Publish something that no other site has."""
        content = random.Random(f"{self.device} {version}").randbytes(size)
        return self.fleet.release(content, product=f"{self.device}-{version}", version=version)

    def deploy(self, release: Release) -> None:
        """Order a release onto the device."""
        self.fleet.deploy(release, self._group)


@pytest.fixture(scope="module")
def add_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Site]]:
    """One fleet for all; each test has a site of its own in it."""
    with Laboratory() as laboratory, LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet:
        fleet.found()
        yield partial(Site, laboratory, fleet)


def test_with_every_twentieth_packet_lost_a_deployment_and_a_session_come_through_whole(
    add_site: Callable[..., Site],
) -> None:
    site = add_site("lossy")
    fleet = site.fleet
    fleet.until_carried(site.device, by=site.points[0])
    site.office.lose(LOST_PERCENT)
    release = site.release("1")
    with hold_session(fleet, fleet.host, site.device, bytes_min=ECHOED_BYTES) as session:
        site.deploy(release)
        said = session.finish()
    assert said["intact"], said
    assert said["sent"] >= ECHOED_BYTES
    fleet.until_reported(release, site.device)


def test_a_gateway_that_vanishes_without_a_word_costs_its_idle_devices_ten_seconds_and_no_message(
    add_site: Callable[..., Site],
) -> None:
    site = add_site("twofold", points=2)
    fleet = site.fleet
    release = site.release("1")
    lost = site.carrier()
    assert lost is not None
    host = site.office.hosts[1 + site.points.index(lost)]
    host.run("ip", "link", "set", "eth0", "down")  # its cable: nobody hears of it
    gone = time.monotonic()
    site.deploy(release)  # the server still sends it to the one that is gone
    fleet.until(lambda: site.carrier() not in (None, lost), "the other point carries the device")
    assert time.monotonic() - gone < MOVED_WITHIN_S
    fleet.until_reported(release, site.device)


@pytest.mark.timeout(240)
def test_a_site_that_is_cut_off_for_minutes_catches_up_and_nothing_is_lost(
    add_site: Callable[..., Site],
) -> None:
    site = add_site("remote", wan_bytes_per_s=WAN_BYTES_PER_S)
    fleet = site.fleet
    first = site.release("1")
    site.deploy(first)
    fleet.until(lambda: fleet.logged(site.device, "artifact.fetching"), "it fetches")
    site.office.partition()
    parted = time.monotonic()
    assert not fleet.has_installed(site.device, first), "it is cut off in the middle of it"
    second = site.release("2", 7)
    site.deploy(second)
    time.sleep(parted + PARTITION_S - time.monotonic())  # minutes are what this is about
    site.office.heal()
    healed = time.monotonic()
    fleet.until_linked(site.points[0], "server")
    assert time.monotonic() - healed < LINKED_WITHIN_S
    for release in (first, second):
        fleet.until_reported(release, site.device)
