"""Gateways of each direction, with the real programs and the files of ``seeds``, across real firewalls."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_fleet import LINK_PORT, LabFleet
from laboratory.network import Host, Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(400)]

CONTENT = b"content " * 250_000
DIRECT_S = 2.0
CONSENTED_S = 8
"""Long enough for both sides of a path to ask whether the other still wants it (RFC 7675: every 4 to 6 s)."""


@pytest.fixture
def laboratory() -> Iterator[Laboratory]:
    with Laboratory() as built:
        yield built


def count_dials(host: Host) -> None:
    """Count every packet of this host that begins something, whether or not a firewall lets it out.

    Answers to STUN are none, also from the other port, which whoever asks may want (RFC 5780, 6.1).
    """
    host.namespace.rules(
        """table inet watch {
    chain out {
        type filter hook output priority filter
        oifname != lo udp sport { 3478, 3479 } accept
        oifname != lo ct state new counter
    }
}
"""
    )


def dials(host: Host) -> int:
    listed = json.loads(host.run("nft", "-j", "list", "table", "inet", "watch"))
    return int(re.search(r'"packets": (\d+)', json.dumps(listed))[1])  # type: ignore[index]


def let_in_what_the_guide_names(host: Host) -> None:
    """Close everything on the way into a gateway but what the operator's guide asks for."""
    host.namespace.rules(
        """table inet zone {
    chain in {
        type filter hook input priority filter; policy drop
        iifname lo accept
        meta l4proto { icmp, ipv6-icmp } accept
        ct state established, related accept
        tcp dport { 7601, 7602 } accept
        udp dport { 3478, 3479, 7601, 7603, 7610-7619 } accept
    }
}
"""
    )


def install(fleet: LabFleet, version: str, device: str) -> None:
    """Release something, and wait until a device has it."""
    package = fleet.directory / f"package-{version}"
    package.write_bytes(CONTENT + version.encode())
    fleet.sign("add", "stable", package, "--product", "app", "--version", version, "--to", "/opt/app")
    fleet.publish()
    fleet.operate("p2pdist", "deploy", f"app@{version}", "/plant")
    place = fleet.root(device) / "opt" / "app"
    fleet.until(
        lambda: place.exists() and place.read_bytes() == package.read_bytes(), f"{device} has {version}"
    )


def until_it_came_through_the_point(fleet: LabFleet, version: str, device: str) -> None:
    """Wait until a device has reported a release, every byte of it from its distribution point."""

    def reported() -> bool:
        explained = fleet.ask("p2pdist", "explain", device, f"app@{version}")
        received = {
            source["role"]: source["received"] for source in explained["sources"] if source["received"]
        }
        return explained["stage"] == "installed" and received == {"point": len(CONTENT) + len(version)}

    fleet.until_asked(reported, f"{device} reports {version}")


def test_a_gateway_in_a_dmz_that_dials_nothing_carries_and_serves_those_inside(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    zone = laboratory.add("dmz", hosts=2)
    gateway, inside = zone.hosts
    address = f"{gateway.ipv4[0]}:{LINK_PORT}"
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found()
        count_dials(gateway)
        let_in_what_the_guide_names(gateway)

        request, answer = tmp_path / "request", tmp_path / "answer"
        bundle = fleet.bundle()
        enrol = ("p2pdist-seed", "enrol", "--bundle", bundle, "--data", fleet.data("gateway"))
        named = ("--name", "gateway")
        fleet.command(gateway, *enrol, *named, "--token-file", fleet.token("/points"), "--request", request)
        fleet.operate("p2pdist", "enrolment", "answer", request, "--to", answer)
        node = fleet.command(gateway, *enrol, "--answer", answer).split()[0]
        fleet.sign(
            "grant", node, "--scope", "/plant", "--duty", "seed", "--duty", "gateway",
            "--address", address, "--dialled",
        )  # fmt: skip
        fleet.publish()
        program = fleet.start_node("gateway", gateway, "points/dmz-gateway.toml")
        fleet.until_asked(lambda: fleet.states().get("gateway") == ("online", ""), "the gateway is carried")

        fleet.command(
            inside, "p2pdist-agent", "enrol", "--bundle", fleet.bundle(address),
            "--token-file", fleet.token("/plant"), "--data", fleet.data("device"), "--name", "device",
        )  # fmt: skip
        fleet.start_node("device", inside, "agent.toml")
        carried = {"gateway": ("online", ""), "device": ("online", node)}
        fleet.until_asked(lambda: fleet.states() == carried, "the device is carried")
        install(fleet, "1", "device")
        until_it_came_through_the_point(fleet, "1", "device")
        assert "relayed" in fleet.operate("p2pdist", "ping", "device", "--count", "1")

        reached = fleet.ask("p2pdist", "path", "gateway")
        assert (reached["path"], reached["seconds"] < DIRECT_S) == ("direct", True), reached
        assert reached["here"], "the operator's machine has asked"
        assert not reached["there"], "the gateway asks nobody"
        assert "direct" in fleet.operate("p2pdist", "ping", "gateway", "--count", str(CONSENTED_S))
        assert dials(gateway) == 0

        for restarted in (program, fleet.programs["server"]):
            links = fleet.attached(node)
            restarted.kill()
            restarted.start()
            began = time.monotonic()
            fleet.until(lambda links=links: fleet.attached(node) > links, "it is linked again")  # type: ignore[misc]
            print(f"linked again after {time.monotonic() - began:.1f} s")
            fleet.until_asked(lambda: fleet.states() == carried, "everybody is carried again")
        zone.partition()
        time.sleep(1)
        zone.heal()
        install(fleet, "2", "device")
        assert dials(gateway) == 0
        listed = fleet.operate("p2pdist", "point", "list")
        assert "dialled from here" in listed


def test_a_gateway_behind_a_nat_carries_and_serves_those_beside_it(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    gateway, inside = laboratory.add("port-restricted", hosts=2).hosts
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found()
        bundle = fleet.bundle()
        for name, host, group, program in (
            ("gateway", gateway, "/points", "p2pdist-seed"),
            ("device", inside, "/plant", "p2pdist-agent"),
        ):
            said = fleet.command(
                host, program, "enrol", "--bundle", bundle, "--token-file", fleet.token(group),
                "--data", fleet.data(name), "--name", name,
            )  # fmt: skip
            if name == "gateway":
                node = said.split()[0]
        fleet.sign(
            "grant", node, "--scope", "/plant", "--duty", "seed", "--duty", "gateway",
            "--address", f"{gateway.ipv4[0]}:{LINK_PORT}",
        )  # fmt: skip
        fleet.publish()
        fleet.start_node("gateway", gateway, "points/behind-nat.toml")
        fleet.start_node("device", inside, "agent.toml")
        carried = {"gateway": ("online", ""), "device": ("online", node)}
        fleet.until_asked(lambda: fleet.states() == carried, "the device is carried")
        install(fleet, "1", "device")
        until_it_came_through_the_point(fleet, "1", "device")
        assert "relayed" in fleet.operate("p2pdist", "ping", "device", "--count", "1")
