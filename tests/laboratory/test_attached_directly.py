"""Content for devices that no distribution point serves: the admin server introduces them, and offers a way.

Two homes behind port-restricted NATs, one of them with two devices, and an office whose firewall lets out to
nothing but TCP port 443, where the admin server's links are. The origin is slow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lab_fleet import LabFleet
from laboratory.network import Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

CONTENT = bytes(range(256)) * 8_000
BYTES = len(CONTENT)
ORIGIN_BYTES_PER_S = 400_000
PLACES = {"home": ("port-restricted", 2), "flat": ("port-restricted", 1), "office": ("only-443", 1)}
Explained = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Explained]]:
    """Have every device install a release; give what each says of its sources in the end."""
    directory = tmp_path_factory.mktemp("direct")
    with Laboratory() as laboratory, LabFleet(directory, laboratory.server) as fleet:
        slow = {"P2PDIST_ORIGIN_UP_BYTES_PER_S": str(ORIGIN_BYTES_PER_S)}
        fleet.found(f"{laboratory.server.ipv4[0]}:443", **slow)
        bundle, devices = fleet.bundle(), []
        for place, (kind, count) in PLACES.items():
            for number, host in enumerate(laboratory.add(kind, hosts=count).hosts):
                devices.append(name := f"{place}{number}")
                enrol = ("p2pdist-agent", "enrol", "--bundle", bundle, "--name", name, "--machine", name)
                token = fleet.token(f"/{name}")
                fleet.command(host, *enrol, "--data", fleet.data(name), "--token-file", token)
                fleet.start_node(name, host, "agent.toml")
        package = directory / "package"
        package.write_bytes(CONTENT)
        fleet.sign("add", "stable", package, "--product", "app", "--version", "1", "--to", "/opt/app")
        fleet.publish()
        fleet.operate("p2pdist", "deploy", "app@1", "/")
        for name in devices:
            place = fleet.root(name) / "opt" / "app"
            fleet.until(
                lambda place=place: place.exists() and place.read_bytes() == CONTENT, f"{name} has it"
            )
        found: dict[str, Explained] = {}
        for name in devices:
            fleet.until_asked(lambda name=name: told_all(found, fleet, name), f"{name} has told its sources")
        yield found


def told_all(found: dict[str, Explained], fleet: LabFleet, name: str) -> bool:
    """Ask for the sources of a device; say whether it has told where everything came from."""
    answer = fleet.ask("p2pdist", "explain", name, "app@1")
    found[name] = {source["name"]: source for source in answer["sources"]}
    return sum(source["received"] for source in found[name].values()) >= 0.9 * BYTES


def test_devices_behind_different_nats_exchange_pieces(explained: dict[str, Explained]) -> None:
    sources = [explained["flat0"][name] for name in ("home0", "home1") if name in explained["flat0"]]
    exchanged = [source for source in sources if source["received"] or source["sent"]]
    assert {source["path"] for source in exchanged} == {"punched"}


def test_neighbours_behind_one_nat_fetch_over_the_wan_once(explained: dict[str, Explained]) -> None:
    received = [
        source["received"]
        for home in ("home0", "home1")
        for name, source in explained[home].items()
        if name not in ("home0", "home1")
    ]
    assert 0.9 * BYTES <= sum(received) < 1.2 * BYTES


def test_the_origin_sends_less_than_a_copy_to_each_place(explained: dict[str, Explained]) -> None:
    sent = sum(
        source["received"]
        for name, sources in explained.items()
        for source in sources.values()
        if source["role"] == "origin" and name != "office0"
    )
    assert sent < 1.6 * BYTES


def test_where_only_the_port_of_links_is_let_out_content_comes_through_the_link(
    explained: dict[str, Explained],
) -> None:
    (origin,) = [source for source in explained["office0"].values() if source["role"] == "origin"]
    assert origin["received"] >= 0.9 * BYTES
