"""Releases straight from the vendor, by distribution points in three networks that read each part once.

Two of them stand behind NATs and do not reach each other; the third stands in the open. The vendor's server
is nginx, on a host of its own, and one of the mirrors that are signed has another file.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_fleet import POINTS, LabFleet, Release
from laboratory.network import Host, Laboratory

sys.path.insert(0, str(Path(__file__).parents[1] / "duties"))
sys.path.insert(0, str(Path(__file__).parents[1] / "duties" / "follow"))

from mirror_servers import NGINX, Nginx, WebAuthority, configure_nginx
from vendor import APT_FTPARCHIVE, DPKG_DEB, GPG, AptRepository, open_signer

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(NGINX is None, reason="needs nginx"),
]

SITES = {"home": "points/behind-nat.toml", "shop": "points/behind-nat.toml", "hub": "points/dedicated.toml"}
CONTENT = bytes(range(251)) * 10_000


class Vendor:
    """The vendor's server: what it has, and what it has sent."""

    def __init__(self, directory: Path, host: Host) -> None:
        self.directory, self.address = directory, host.ipv4[0]
        (directory / "www" / "bad").mkdir(parents=True)
        self.authority = WebAuthority(directory, self.address)
        (directory / "nginx").mkdir()
        configuration = configure_nginx(
            directory / "nginx",
            self.authority,
            directory / "www",
            f"{self.address}:443",
            rules="limit_rate 150k;",
        )
        log = directory / "nginx" / "log"
        self.nginx = Nginx(f"https://{self.address}", log)
        self._command = host.command(
            str(NGINX), "-p", str(directory / "nginx"), "-e", str(directory / "nginx" / "error"),
            "-c", str(configuration),
        )  # fmt: skip

    def __enter__(self) -> Vendor:
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def offers(self, name: str, content: bytes) -> tuple[str, str]:
        """Put a file there; return its address, and one at which another file stands."""
        (self.directory / "www" / name).write_bytes(content)
        (self.directory / "www" / "bad" / name).write_bytes(bytes(len(content)))
        return f"{self.nginx.url}/{name}", f"{self.nginx.url}/bad/{name}"

    def sent(self, release: Release) -> int:
        """How many bytes of a release's right content have been sent."""
        return self.nginx.sent_of(f"/{release.product}")


class Sites:
    """The fleet: a point in each network, and a device beside the first."""

    def __init__(self, fleet: LabFleet, vendor: Vendor) -> None:
        self.fleet, self.vendor = fleet, vendor

    def publish(self, name: str, content: bytes, *, liar: bool = False) -> Release:
        """Sign a release that comes from mirrors, and publish it without its content."""
        good, bad = self.vendor.offers(name, content)
        package = self.fleet.directory / name
        package.write_bytes(content)
        mirrors = ["--mirror", good, *(["--mirror", f"{bad},priority=1"] if liar else [])]
        self.fleet.sign(
            "add", "stable", package, "--product", name, "--version", "1", "--to", f"/opt/{name}", *mirrors
        )
        self.fleet.publish("--mirrored")
        return Release(name, "1", content)

    def fetch(self, *words: str) -> Any:
        """Have the points get something, and wait for it; return how it went."""
        return self.fleet.ask("fetch", *words, "--wait")

    def origin_sent(self) -> int:
        """How many bytes of content have left the admin server."""
        return int(self.fleet.console.get("/status")["origin_sent_bytes"])


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    directory = tmp_path_factory.mktemp("mirrors")
    with Laboratory() as laboratory:
        home, neighbour = laboratory.add("port-restricted", hosts=2).hosts
        hosts = {
            "home": home,
            "shop": laboratory.add("port-restricted").hosts[0],
            "hub": laboratory.add("open").hosts[0],
        }
        with (
            Vendor(directory, laboratory.add("open").hosts[0]) as vendor,
            LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet,
        ):
            settings = {"P2PDIST_MIRRORS_CA_FILE": str(vendor.authority.ca_file)}
            fleet.found(**settings)
            for name, host in hosts.items():
                fleet.enrol(name, host, POINTS)
                fleet.grant(name, host, f"/sites/{name}")
            fleet.publish()
            for name, host in hosts.items():
                fleet.start(name, host, SITES[name], **settings)
            fleet.add_group("/sites")
            fleet.enrol("device", neighbour, "/sites/home")
            fleet.start("device", neighbour, "agent.toml")
            fleet.until_carried("device", by="home")
            yield Sites(fleet, vendor)


def test_each_byte_leaves_the_mirror_once_and_none_the_admin_server(sites: Sites) -> None:
    before = sites.origin_sent()
    release = sites.publish("tool", CONTENT)
    run = sites.fetch("tool@1", "--points", "/sites")
    assert {node["name"]: node["state"] for node in run["nodes"]} == dict.fromkeys(SITES, "done")
    assert sites.vendor.sent(release) == len(release.content)
    read = [node["figures"]["bytes_from_mirrors"] for node in run["nodes"]]
    assert sum(read) == len(release.content)
    assert all(read), "they have shared it"

    sites.fleet.deploy(release, "/sites/home")
    sites.fleet.until_installed(release, "device")
    assert sites.origin_sent() == before
    sources = sites.fleet.until_told(release, "home")["home"].values()
    assert {"mirror", "point"} <= {source["role"] for source in sources if source["received"]}
    (origin,) = [source for source in sources if source["role"] == "origin"]
    assert not origin["taken"]
    assert "vendor's mirrors" in origin["reason"]


@pytest.mark.skipif(None in (APT_FTPARCHIVE, DPKG_DEB, GPG), reason="needs apt-utils, dpkg-deb and GnuPG")
def test_a_point_behind_a_nat_follows_the_vendor_whose_package_then_reaches_every_point(sites: Sites) -> None:
    fleet, vendor = sites.fleet, sites.vendor
    with open_signer() as signer:
        key = vendor.directory / "vendor.gpg"
        key.write_bytes(signer.make("vendor"))
        repository = AptRepository(vendor.directory / "www" / "debian", signer, "vendor")
        repository.add("gadget", "1.0-1")
        content = repository.add("gadget", "1.2-1").read_bytes()
        repository.publish()
    url = f"{vendor.nginx.url}/debian"
    run = fleet.ask(
        "follow", "apt", url, "stable", "main", "--key", key, "--package", "gadget", "--via", "home", "--wait"
    )
    assert [(node["name"], node["state"]) for node in run["nodes"]] == [("home", "done")]
    (proposal,) = fleet.ask("proposal", "list")["proposals"]
    assert (proposal["product"], proposal["version"], proposal["signed"]) == ("gadget", "1.2-1", True)

    to = fleet.directory / "incoming"
    fleet.ask("proposal", "fetch", proposal["id"], to, "--web-ca", vendor.authority.ca_file)
    fleet.sign("add", "stable", "--manifest", to / "releases.toml")
    fleet.publish("--mirrored")
    before = sites.origin_sent()
    run = sites.fetch("gadget@1.2-1", "--points", "/sites")
    assert {node["name"]: node["state"] for node in run["nodes"]} == dict.fromkeys(SITES, "done")
    assert sum(node["figures"]["bytes_from_mirrors"] for node in run["nodes"]) == len(content)
    assert sites.origin_sent() == before
    assert fleet.ask("proposal", "list", "--state", "published")["proposals"][0]["id"] == proposal["id"]


def test_what_is_new_at_a_mirror_is_read_by_itself_and_one_that_lies_is_named(sites: Sites) -> None:
    asked = ("fetch", "stable/drill/*", "--points", "home", "--points", "hub", "--on-metadata")
    task = str(sites.fleet.ask(*asked)["id"])
    release = sites.publish("drill", CONTENT[:1_000_000], liar=True)

    def shown() -> Any:
        return sites.fleet.task(task)

    sites.fleet.until_asked(lambda: shown().get("finished"), "it has ended")
    run = shown()
    assert [node["state"] for node in run["nodes"]] == ["done", "done"]
    liars = {item["name"]: item for item in run["items"] if item["subject"].endswith("/bad/drill")}
    assert set(liars) == {"home", "hub"}
    for item in liars.values():
        assert (item["state"], item["step"]) == ("failed", "lied")
        assert item["detail"].startswith("it sent wrong bytes for piece")
    assert sites.vendor.sent(release) >= len(release.content)


def test_a_point_that_is_killed_goes_on_where_it_was(sites: Sites) -> None:
    release, before = sites.publish("saw", CONTENT + CONTENT[:1_250_000]), sites.origin_sent()
    task = str(sites.fleet.ask("fetch", "saw@1", "--points", "home")["id"])

    def node() -> Any:
        return sites.fleet.task(task)["nodes"][0]

    sites.fleet.until(lambda: node()["done"] > len(release.content) // 5, "it has read a part")
    sites.fleet.restart("home")
    sites.fleet.until_asked(lambda: node()["finished"], "it has ended")
    assert node()["state"] == "done"
    assert sites.vendor.sent(release) < 1.3 * len(release.content)
    assert sites.origin_sent() == before


def test_the_admin_server_shares_the_reading_where_it_is_asked_to(sites: Sites) -> None:
    before = sites.origin_sent()
    release = sites.publish("plane", CONTENT[:1_500_000])
    run = sites.fetch("plane@1", "--points", "server", "--points", "hub")
    assert {node["name"]: node["state"] for node in run["nodes"]} == {"server": "done", "hub": "done"}
    assert sites.vendor.sent(release) == len(release.content)
    assert all(node["figures"]["bytes_from_mirrors"] for node in run["nodes"])
    assert before < sites.origin_sent() < before + len(release.content), (
        "it passes on its part, having been asked to"
    )
    assert not sites.fleet.ask("release", "show", "plane@1")["mirrored"], "it serves it now"
