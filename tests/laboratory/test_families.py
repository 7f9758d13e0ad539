"""Links and content over IPv4 and IPv6 with the real programs: whatever works is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from founding import LINK_PORT
from lab_fleet import LabFleet
from laboratory.network import Host, Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow]

CONTENT = b"content " * 50_000
AT_ONCE_S = 4.0
"""For a link, where a handshake's patience with a silent address is ten."""

INSTALLED_S = 8.0
"""From an order to what was ordered: a TCP connection to a silent address is given up after half a minute."""


class Office:
    """A device in an office of its own, and the admin server."""

    def __init__(self, laboratory: Laboratory, fleet: LabFleet, name: str) -> None:
        self.fleet, self.name = fleet, name
        self.server = laboratory.server
        (self.host,) = laboratory.add("open").hosts

    def drop(self, rules: str) -> None:
        """Let the device's host drop what it sends to the admin server's IPv6, as *rules* say."""
        self.host.namespace.rules(
            f"""table ip6 nowhere {{
    chain out {{
        type filter hook output priority filter
        {rules}
    }}
}}
"""
        )

    def start(self) -> None:
        """Have the device join, and run."""
        self.fleet.enrol(self.name, self.host, f"/offices/{self.name}")
        self.fleet.start(self.name, self.host, "agent.toml")

    def linked_at(self) -> str:
        """Wait until the device has a link; return the address of its other end."""
        self.fleet.until_linked(self.name, "server")
        return str(self.fleet.logged(self.name, "link.up")[0]["host"])

    def install(self) -> float:
        """Have the device install a release; return how many seconds that took from the order."""
        release = self.fleet.release(CONTENT, product=self.name)
        began = time.monotonic()
        self.fleet.deploy(release, f"/offices/{self.name}")
        self.fleet.until_installed(release, self.name)
        return time.monotonic() - began


def both_families(server: Host) -> tuple[str, str]:
    return f"[{server.ipv6[0]}]:{LINK_PORT}", f"{server.ipv4[0]}:{LINK_PORT}"


@pytest.fixture(scope="module")
def add_office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Office]]:
    """A fleet whose admin server is at IPv6 first; it makes an office with a device of this name."""
    with Laboratory() as laboratory, LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet:
        fleet.found(*both_families(laboratory.server))
        yield partial(Office, laboratory, fleet)


def test_a_device_with_nothing_but_ipv6_is_managed_and_updated(tmp_path: Path) -> None:
    with Laboratory() as laboratory, LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found(*reversed(both_families(laboratory.server)))
        office = Office(laboratory, fleet, "device")
        office.host.run("ip", "-4", "address", "flush", "dev", "eth0")
        office.start()
        assert office.linked_at() == laboratory.server.ipv6[0]
        office.install()


ALL = "ip6 daddr {0} drop"
ALL_BUT_THE_LINK = "ip6 daddr {0} tcp dport != {1} drop\nip6 daddr {0} meta l4proto udp drop"


def test_an_ipv6_that_leads_nowhere_delays_no_link(add_office: Callable[[str], Office]) -> None:
    office = add_office("linked")
    office.drop(ALL.format(office.server.ipv6[0]))
    office.start()
    began = time.monotonic()
    assert office.linked_at() == office.server.ipv4[0]
    assert time.monotonic() - began < AT_ONCE_S


@pytest.mark.parametrize(
    ("name", "dropped", "family"),
    [("without", ALL, 4), ("half", ALL_BUT_THE_LINK, 6)],
    ids=["nothing of it works", "only the link does"],
)
def test_an_ipv6_that_leads_nowhere_delays_no_content(
    add_office: Callable[[str], Office], name: str, dropped: str, family: int
) -> None:
    office = add_office(name)
    server = office.server
    office.drop(dropped.format(server.ipv6[0], LINK_PORT))
    office.start()
    assert office.linked_at() == (server.ipv6[0] if family == 6 else server.ipv4[0])
    assert office.install() < INSTALLED_S
