"""Links and content over IPv4 and IPv6 with the real programs: whatever works is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_fleet import LINK_PORT, LabFleet
from laboratory.network import Host, Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow]

CONTENT = b"content " * 50_000
AT_ONCE_S = 4.0
"""For a link, where a handshake's patience with a silent address is ten."""

INSTALLED_S = 8.0
"""From an order to what was ordered: a TCP connection to a silent address is given up after half a minute."""


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with Laboratory() as built:
        yield built


def both_families(server: Host) -> tuple[str, str]:
    return f"[{server.ipv6[0]}]:{LINK_PORT}", f"{server.ipv4[0]}:{LINK_PORT}"


def add_device(fleet: LabFleet, host: Host) -> None:
    fleet.enrol("device", host, "/offices")
    fleet.start("device", host, "agent.toml")


def linked_at(fleet: LabFleet) -> str:
    """Wait until the device has a link; return the address of its other end."""
    fleet.until_linked("device", "server")
    return str(fleet.logged("device", "link.up")[0]["host"])


def test_a_device_with_nothing_but_ipv6_is_managed_and_updated(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    (host,) = laboratory.add("open").hosts
    host.run("ip", "-4", "address", "flush", "dev", "eth0")
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found(*reversed(both_families(laboratory.server)))
        add_device(fleet, host)
        assert linked_at(fleet) == laboratory.server.ipv6[0]
        release = fleet.release(CONTENT)
        fleet.deploy(release)
        fleet.until_installed(release, "device")


def test_an_ipv6_that_leads_nowhere_delays_no_link(laboratory: Laboratory, tmp_path: Path) -> None:
    (host,) = laboratory.add("open").hosts
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found(*both_families(laboratory.server))
        host.namespace.rules(
            f"""table ip6 nowhere {{
    chain out {{
        type filter hook output priority filter
        ip6 daddr {laboratory.server.ipv6[0]} drop
    }}
}}
"""
        )
        add_device(fleet, host)
        began = time.monotonic()
        assert linked_at(fleet) == laboratory.server.ipv4[0]
        assert time.monotonic() - began < AT_ONCE_S


ALL = "ip6 daddr {0} drop"
ALL_BUT_THE_LINK = "ip6 daddr {0} tcp dport != {1} drop; ip6 daddr {0} meta l4proto udp drop"


@pytest.mark.parametrize(
    ("dropped", "family"),
    [(ALL, 4), (ALL_BUT_THE_LINK, 6)],
    ids=["nothing of it works", "only the link does"],
)
def test_an_ipv6_that_leads_nowhere_delays_no_content(
    laboratory: Laboratory, tmp_path: Path, dropped: str, family: int
) -> None:
    (host,) = laboratory.add("open").hosts
    server = laboratory.server
    with LabFleet(tmp_path, server) as fleet:
        fleet.found(*both_families(server))
        rules = "\n".join(dropped.format(server.ipv6[0], LINK_PORT).split("; "))
        host.namespace.rules(
            f"""table ip6 nowhere {{
    chain out {{
        type filter hook output priority filter
        {rules}
    }}
}}
"""
        )
        add_device(fleet, host)
        assert linked_at(fleet) == (server.ipv6[0] if family == 6 else server.ipv4[0])
        release = fleet.release(CONTENT)
        began = time.monotonic()
        fleet.deploy(release)
        fleet.until_installed(release, "device")
        assert time.monotonic() - began < INSTALLED_S
