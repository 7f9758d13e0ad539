"""Content for devices that no distribution point serves: the admin server introduces them, and offers a way.

Two homes behind port-restricted NATs, one of them with two devices, and an office whose firewall lets out to
nothing but TCP port 443, where the admin server's links are. The origin is slow.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_fleet import BYTES_TOLD, LabFleet, Sources
from laboratory.network import Laboratory

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]

CONTENT = bytes(range(256)) * 8_000
BYTES = len(CONTENT)
ORIGIN_BYTES_PER_S = 400_000
PLACES = {"home": ("port-restricted", 2), "flat": ("port-restricted", 1), "office": ("only-443", 1)}


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Sources]]:
    """Have every device install a release; give what each says of its sources in the end."""
    directory = tmp_path_factory.mktemp("direct")
    with Laboratory() as laboratory, LabFleet(directory, laboratory.server) as fleet:
        slow = {"P2PDIST_ORIGIN_UP_BYTES_PER_S": str(ORIGIN_BYTES_PER_S)}
        fleet.found(f"{laboratory.server.ipv4[0]}:443", **slow)
        devices = []
        for place, (kind, count) in PLACES.items():
            for number, host in enumerate(laboratory.add(kind, hosts=count).hosts):
                devices.append(name := f"{place}{number}")
                fleet.enrol(name, host, f"/{name}")
                fleet.start(name, host, "agent.toml")
        release = fleet.release(CONTENT)
        fleet.deploy(release)
        fleet.until_installed(release, *devices)
        yield fleet.until_told(release, *devices)


def test_devices_behind_different_nats_exchange_pieces(explained: dict[str, Sources]) -> None:
    sources = [explained["flat0"][name] for name in ("home0", "home1") if name in explained["flat0"]]
    exchanged = [source for source in sources if source["received"] or source["sent"]]
    assert {source["path"] for source in exchanged} == {"punched"}


def test_neighbours_behind_one_nat_fetch_over_the_wan_once(explained: dict[str, Sources]) -> None:
    received = [
        source["received"]
        for home in ("home0", "home1")
        for name, source in explained[home].items()
        if name not in ("home0", "home1")
    ]
    assert BYTES_TOLD * BYTES <= sum(received) < 1.2 * BYTES


def test_the_origin_sends_less_than_a_copy_to_each_place(explained: dict[str, Sources]) -> None:
    sent = sum(
        source["received"]
        for name, sources in explained.items()
        for source in sources.values()
        if source["role"] == "origin" and name != "office0"
    )
    assert sent < 1.6 * BYTES


def test_where_only_the_port_of_links_is_let_out_content_comes_through_the_link(
    explained: dict[str, Sources],
) -> None:
    (origin,) = [source for source in explained["office0"].values() if source["role"] == "origin"]
    assert origin["received"] >= BYTES_TOLD * BYTES
