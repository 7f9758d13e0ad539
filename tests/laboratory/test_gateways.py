"""Gateways of each direction, with the real programs and the files of ``seeds``, across real firewalls."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from founding import LINK_PORT
from lab_fleet import POINTS, LabFleet, Release
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


def attached(fleet: LabFleet, node: str) -> int:
    """How often the admin server has had a link with a node, as its log says."""
    return sum(fields["node"] == node for fields in fleet.logged("server", "link.attached"))


def install(fleet: LabFleet, version: str, device: str) -> Release:
    """Release something, and wait until a device has it."""
    release = fleet.release(CONTENT + version.encode(), version=version)
    fleet.deploy(release, "/plant")
    fleet.until_installed(release, device)
    return release


def until_it_came_through_the_point(fleet: LabFleet, release: Release, device: str) -> None:
    """Wait until a device has reported a release, every byte of it from its distribution point."""
    fleet.until_reported(release, device)

    def told() -> bool:
        sources = fleet.sources(device, release).values()
        received = {source["role"]: source["received"] for source in sources if source["received"]}
        return received == {"point": len(release.content)}

    fleet.until_asked(told, f"{device} tells that {release.name} came through the point")


def test_a_gateway_in_a_dmz_that_dials_nothing_carries_and_serves_those_inside(
    laboratory: Laboratory, tmp_path: Path
) -> None:
    zone = laboratory.add("dmz", hosts=2)
    gateway, inside = zone.hosts
    with LabFleet(tmp_path, laboratory.server) as fleet:
        fleet.found()
        count_dials(gateway)
        let_in_what_the_guide_names(gateway)

        request, answer = tmp_path / "request", tmp_path / "answer"
        enrol = ("p2pdist-seed", "enrol", "--bundle", fleet.bundle(), "--data", fleet.data("gateway"))
        asking = ("--token-file", fleet.token(POINTS), "--name", "gateway", "--request", request)
        fleet.command(gateway, *enrol, *asking)
        fleet.operate("p2pdist", "enrolment", "answer", request, "--to", answer)
        node = fleet.command(gateway, *enrol, "--answer", answer).split()[0]
        fleet.nodes["gateway"] = node
        fleet.grant("gateway", gateway, "/plant", "--dialled")
        fleet.publish()
        fleet.start("gateway", gateway, "points/dmz-gateway.toml")
        fleet.until_asked(lambda: fleet.states().get("gateway") == ("online", ""), "the gateway is carried")

        fleet.enrol("device", inside, "/plant", f"{gateway.ipv4[0]}:{LINK_PORT}")
        fleet.start("device", inside, "agent.toml")
        carried = {"gateway": ("online", ""), "device": ("online", node)}
        fleet.until_asked(lambda: fleet.states() == carried, "the device is carried")
        release = install(fleet, "1", "device")
        until_it_came_through_the_point(fleet, release, "device")
        assert "relayed" in fleet.operate("p2pdist", "ping", "device", "--count", "1")

        reached = fleet.ask("path", "gateway")
        assert (reached["path"], reached["seconds"] < DIRECT_S) == ("direct", True), reached
        assert reached["here"], "the operator's machine has asked"
        assert not reached["there"], "the gateway asks nobody"
        assert "direct" in fleet.operate("p2pdist", "ping", "gateway", "--count", str(CONSENTED_S))
        assert dials(gateway) == 0

        for restarted in ("gateway", "server"):
            links = attached(fleet, node)
            fleet.restart(restarted)
            began = time.monotonic()
            fleet.until(lambda links=links: attached(fleet, node) > links, "it is linked again")  # type: ignore[misc]
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
        fleet.enrol("gateway", gateway, POINTS)
        fleet.enrol("device", inside, "/plant")
        fleet.grant("gateway", gateway, "/plant")
        fleet.publish()
        fleet.start("gateway", gateway, "points/behind-nat.toml")
        fleet.start("device", inside, "agent.toml")
        carried = {"gateway": ("online", ""), "device": ("online", fleet.nodes["gateway"])}
        fleet.until_asked(lambda: fleet.states() == carried, "the device is carried")
        release = install(fleet, "1", "device")
        until_it_came_through_the_point(fleet, release, "device")
        assert "relayed" in fleet.operate("p2pdist", "ping", "device", "--count", "1")
