"""Links and content over IPv4 and IPv6 with the real programs: whatever works is used."""

from __future__ import annotations

import json
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
    enrol = ("p2pdist-agent", "enrol", "--bundle", fleet.bundle(), "--token-file", fleet.token("/offices"))
    fleet.command(host, *enrol, "--data", fleet.data("device"), "--name", "device")
    fleet.start_node("device", host, "agent.toml")


def linked_at(fleet: LabFleet) -> str:
    """Wait until the device has a link; return the address of its other end."""
    log = fleet.directory / "device.log"
    fleet.until(lambda: '"link.up"' in log.read_text(), "the device has a link")
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return str(next(line["host"] for line in lines if line["event"] == "link.up"))


def order(fleet: LabFleet, directory: Path) -> Path:
    """Have the device install a package; return where its content will be."""
    package = directory / "package"
    package.write_bytes(CONTENT)
    fleet.sign("add", "stable", package, "--product", "app", "--version", "1", "--to", "/opt/app")
    fleet.publish()
    fleet.operate("p2pdist", "deploy", "app@1", "/offices")
    return fleet.root("device") / "opt" / "app"


def test_a_device_with_nothing_but_ipv6_is_managed_and_updated(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    (host,) = laboratory.add("open").hosts
    host.run("ip", "-4", "address", "flush", "dev", "eth0")
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found(*reversed(both_families(laboratory.server)))
        add_device(fleet, host)
        assert linked_at(fleet) == laboratory.server.ipv6[0]
        place = order(fleet, tmp_path)
        fleet.until(lambda: place.exists() and place.read_bytes() == CONTENT, "the device has it")


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
        place = order(fleet, tmp_path)
        began = time.monotonic()
        fleet.until(lambda: place.exists() and place.read_bytes() == CONTENT, "the device has it")
        assert time.monotonic() - began < INSTALLED_S
