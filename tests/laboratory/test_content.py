"""Content between devices behind NATs, with the real programs in a laboratory of networks.

Two homes behind port-restricted NATs, one of them with two devices, and two behind symmetric ones; the
gateway in the open is slow. What each device says of its sources in the end is looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import pytest
from lab_fleet import BYTES_TOLD, POINTS, LabFleet, Sources
from laboratory.network import Host, Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

BYTES = 3_000_000
NETWORKS = ("home", "firewall", "cut-ip", "cut-ip6")
GATEWAY_BYTES_PER_S = 800_000


class Setting:
    """A fleet with a gateway in the open, to which each test adds the places and devices that it needs."""

    def __init__(self, laboratory: Laboratory, fleet: LabFleet) -> None:
        self._laboratory, self._fleet = laboratory, fleet
        gateway = laboratory.add("open").hosts[0]
        fleet.found()
        fleet.enrol("gateway", gateway, POINTS)
        fleet.grant("gateway", gateway, "/homes")
        self._releases = {
            name: fleet.add(random.Random(name).randbytes(BYTES), product=name) for name in NETWORKS
        }
        fleet.publish()
        slow = {"P2PDIST_RATES_WAN_UP": str(GATEWAY_BYTES_PER_S)}
        fleet.start("gateway", gateway, "points/dedicated.toml", **slow)

    def run(
        self,
        name: str,
        kinds: list[tuple[str, int]],
        prepare: Callable[[Sequence[Host]], None] = lambda hosts: None,
    ) -> list[Sources]:
        """Have a device on each host of these places install a release; return what each says in the end.

        The release, the devices' group and the devices have this name of :data:`NETWORKS`, the last with
        a number each.
        """
        fleet, group = self._fleet, f"/homes/{name}"
        hosts = [host for kind, count in kinds for host in self._laboratory.add(kind, hosts=count).hosts]
        prepare(hosts)
        devices = [f"{name}{number}" for number in range(len(hosts))]
        for device, host in zip(devices, hosts, strict=True):
            fleet.enrol(device, host, group)
            fleet.start(device, host, "agent.toml")
        fleet.until_carried(*devices, by="gateway")
        release = self._releases[name]
        fleet.deploy(release, group)
        fleet.until_installed(release, *devices)
        told = fleet.until_told(release, *devices)
        return [told[device] for device in devices]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with (
        Laboratory() as laboratory,
        LabFleet(tmp_path_factory.mktemp("content"), laboratory.server) as fleet,
    ):
        yield Setting(laboratory, fleet)


@pytest.fixture(scope="module")
def homes(setting: Setting) -> list[Sources]:
    kinds = [("port-restricted", 2), ("port-restricted", 1), ("symmetric", 1), ("symmetric", 1)]
    return setting.run("home", kinds)


def exchanged(one: Sources, name: str) -> int:
    """How many bytes went between a device and another one, either way."""
    source = one.get(name)
    return source["received"] + source["sent"] if source else 0


def test_two_homes_behind_port_restricted_nats_exchange_content_directly(homes: list[Sources]) -> None:
    with_home = [source for source in (homes[2].get("home0"), homes[2].get("home1")) if source]
    assert {source["path"] for source in with_home if source["received"] or source["sent"]} == {"punched"}


def test_neighbours_behind_one_nat_fetch_over_the_wan_once(homes: list[Sources]) -> None:
    over_the_wan = sum(
        source["received"] for home in homes[:2] for source in home.values() if source["path"] != "direct"
    )
    assert BYTES_TOLD * BYTES <= over_the_wan < 1.2 * BYTES


def test_two_homes_behind_symmetric_nats_have_everything_through_the_gateway(homes: list[Sources]) -> None:
    assert exchanged(homes[3], "home4") == exchanged(homes[4], "home3") == 0
    assert homes[3]["gateway"]["path"] == homes[4]["gateway"]["path"] == "relayed"
    assert "symmetric NAT" in homes[3]["home4"]["reason"]


def test_two_homes_behind_ipv6_firewalls_exchange_content_directly(setting: Setting) -> None:
    one, _ = setting.run("firewall", [("ipv6-firewall", 1), ("ipv6-firewall", 1)])
    assert one["firewall1"]["path"] == "punched"
    assert exchanged(one, "firewall1") > 0


def cut(family: Literal["ip", "ip6"], hosts: Sequence[Host]) -> None:
    """Have nothing come through between two hosts over one family of addresses."""
    for host, other in zip(hosts, reversed(hosts), strict=True):
        (address,) = other.ipv4 if family == "ip" else other.ipv6
        host.namespace.rules(
            f"""table {family} nowhere {{
    chain out {{
        type filter hook output priority filter
        {family} daddr {address} drop
    }}
}}
"""
        )


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_neighbours_with_two_families_of_which_one_leads_nowhere_use_the_other_at_once(
    setting: Setting, family: Literal["ip", "ip6"]
) -> None:
    home = setting.run(f"cut-{family}", [("ipv6-firewall", 2)], partial(cut, family))
    from_the_gateway = sum(each["gateway"]["received"] for each in home)
    assert BYTES_TOLD * BYTES <= from_the_gateway < 1.2 * BYTES, (
        "who waits for its neighbour turns to the gateway"
    )
    assert exchanged(home[1], f"cut-{family}0") > 0
