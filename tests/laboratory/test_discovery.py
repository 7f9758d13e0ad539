"""Polls of networks that the admin server cannot see, by distribution points behind NATs and firewalls."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab_fleet import POINTS, LabFleet
from laboratory.namespaces import PATH
from laboratory.network import Host, Laboratory
from slapd import PASSWORD, SLAPADD, SLAPD, running_slapd

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]


class Site:
    """A site behind a NAT: a distribution point with the duty of discovery, and who else is there."""

    def __init__(self, fleet: LabFleet, point: Host, neighbour: Host, silent: Host) -> None:
        self.fleet = fleet
        self.point, self.neighbour, self.silent = point, neighbour, silent
        fleet.enrol("point", point, POINTS)
        self.grant("seed", "gateway", "discovery")
        fleet.start("point", point, "points/behind-nat.toml", more=self.own_user())
        fleet.until_asked(lambda: fleet.states().get("point") == ("online", ""), "the point is linked")

    @property
    def network(self) -> str:
        return self.point.ipv4[0].rpartition(".")[0] + ".0/24"

    def own_user(self) -> str:
        """Write down a password for the point, and return what its configuration says of its neighbour."""
        self.directory = self.fleet.directory / "directory"
        self.directory.mkdir()
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(f"{PASSWORD}\n")
        return f"""
[[directories]]
url = "ldaps://{self.neighbour.ipv4[0]}"
user = "cn=admin,dc=acme"
password_file = "{password}"
ca_file = "{self.directory / "ca.pem"}"
"""

    def grant(self, *duties: str) -> None:
        """Sign a grant with these duties, and publish it."""
        self.fleet.grant("point", self.point, "/plant", duties=duties)
        self.fleet.publish()

    def begin(self, per_s: int) -> str:
        """Begin a poll of the network; return the task once it is under way on the point."""
        made = self.fleet.ask("discover", self.network, "--via", "point", "--per-s", str(per_s))
        task = str(made["id"])
        self.fleet.until_asked(lambda: self.state(task)["state"] == "running", "it has begun")
        return task

    def state(self, task: str) -> Any:
        """How far the point is, as the admin server has it."""
        return self.fleet.task(task)["nodes"][0]

    def logged(self, task: str, event: str) -> int:
        """How often the point has logged something of a task."""
        return sum(fields["task"] == task for fields in self.fleet.logged("point", event))

    def discover(self, *words: str, code: int = 0) -> Any:
        """Poll through the point until it has ended, and return what the operator sees, as JSON."""
        command = ("p2pdist", "discover", *words, "--via", "point", "--wait", "--output", "json")
        done = subprocess.run(
            self.fleet.host.command(*command),
            capture_output=True,
            text=True,
            check=False,
            env=self.fleet.environment,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Laboratory() as laboratory:
        hosts = laboratory.add("port-restricted", hosts=3).hosts
        with LabFleet(tmp_path_factory.mktemp("fleet"), laboratory.server) as fleet:
            fleet.found()
            yield Site(fleet, *hosts)


def found(run: Any) -> dict[str, tuple[str, str]]:
    """How each address was found, and what is known of it."""
    return {item["subject"]: (item["step"], item["detail"]) for item in run["items"]}


def mac_of(host: Host) -> str:
    links = json.loads(host.run("ip", "-j", "link", "show"))
    return next(str(link["address"]) for link in links if link["ifname"] != "lo")


def link_local(host: Host) -> str:
    shown = json.loads(host.run("ip", "-j", "-6", "address", "show", "scope", "link"))
    return str(shown[0]["addr_info"][0]["local"])


def drop_everything(host: Host) -> None:
    """Let a host drop every packet of IPv4 that comes in; ARP is none."""
    host.namespace.rules(
        """table ip silent {
    chain in {
        type filter hook input priority filter
        drop
    }
}
"""
    )


def test_a_point_behind_a_nat_finds_its_neighbours_also_those_that_answer_no_ping(site: Site) -> None:
    drop_everything(site.silent)
    run = site.discover(site.network)
    seen = found(run)
    assert seen[site.neighbour.ipv4[0]] == ("echo, neighbours", f"hardware address {mac_of(site.neighbour)}")
    assert seen[site.silent.ipv4[0]] == ("neighbours", f"hardware address {mac_of(site.silent)}")
    assert seen[site.point.ipv4[0]][0] == "echo", "it answers itself"
    assert run["nodes"][0]["figures"]["asked"] == 254
    known = {each["name"]: each["state"] for each in site.fleet.ask("inventory", "list")["devices"]}
    assert known["point"] == "online"


def test_neighbours_over_ipv6_are_found_without_a_scan(site: Site) -> None:
    seen = found(site.discover("--method", "multicast", "--method", "neighbours"))
    known = ("multicast, neighbours", f"hardware address {mac_of(site.neighbour)}")
    assert [known] == [how for address, how in seen.items() if address == link_local(site.neighbour)]


def test_what_a_point_behind_a_nat_sees_by_many_methods_is_one_device_in_the_inventory(
    site: Site, tmp_path: Path
) -> None:
    avahi = shutil.which("avahi-daemon", path=PATH)
    if None in (avahi, SLAPD, SLAPADD):
        pytest.skip("avahi-daemon or slapd is not installed")
    config = tmp_path / "avahi.conf"
    config.write_text("[server]\nhost-name=desk-7\nenable-dbus=no\n[publish]\npublish-workstation=yes\n")
    script = (
        "mount -t tmpfs none /run && mkdir /run/avahi-daemon &&"
        f" exec {avahi} -f {config} --no-drop-root --no-chroot --no-rlimits"
    )
    daemon = subprocess.Popen(
        site.neighbour.command("unshare", "--mount", "sh", "-ec", script),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    point = site.fleet.nodes["point"]
    site.fleet.add_group("/plant/desks")
    site.fleet.operate("p2pdist", "inventory", "rule", "add", "name", "desk-*", "/plant/desks")
    words = [word for method in ("neighbours", "connect", "mdns") for word in ("--method", method)]
    words += ["--ldap", f"ldaps://{site.neighbour.ipv4[0]}", "--ldap-base", "dc=acme"]
    words += ["--ldap-filter", "(cn=desk-*)"]
    wanted = {"connect", "directory", "mdns", "neighbours"}

    def desk() -> bool:
        site.discover(site.network, *words, "--port", "22")
        seen = site.fleet.inventory()
        # how many of them see it at once is a matter of luck
        return any("desk-7.local" in each["names"] and wanted <= set(each["methods"]) for each in seen)

    address, within = site.neighbour.ipv4[0], site.neighbour.command
    try:
        with running_slapd(site.directory, address, within=within, more=["desk-7", "desk-8"]):
            site.fleet.until_asked(desk, "avahi and slapd answer")
    finally:
        daemon.kill()
        daemon.wait()
    device = desk_of(site)
    assert site.neighbour.ipv4[0] in {each["address"] for each in device["addresses"]}
    assert device["macs"] == [mac_of(site.neighbour)] and device["networks"] == [point]
    assert wanted <= set(device["methods"]) and device["unit"] == "ou=Berlin,dc=acme"
    others = [each for each in site.fleet.inventory() if "desk-8" in each["names"]]
    assert [each["methods"] for each in others] == [["directory"]]
    assert (device["state"], device["group"]) == ("unmanaged", "/plant/desks")
    assert site.fleet.ask("inventory", "conflicts")["conflicts"] == []


def desk_of(site: Site) -> Any:
    devices = site.fleet.inventory()
    return next(device for device in devices if "desk-7.local" in device["names"])


def test_what_is_excluded_is_neither_asked_nor_found(site: Site) -> None:
    excluded = site.neighbour.ipv4[0]
    run = site.discover(site.point.ipv4[0], excluded, "--exclude", f"{excluded}/32")
    assert list(found(run)) == [site.point.ipv4[0]]
    assert run["nodes"][0]["figures"]["asked"] == 1


def test_a_point_without_the_duty_polls_nothing_until_its_grant_has_it(site: Site) -> None:
    site.grant("seed", "gateway")
    (refused,) = site.discover(site.point.ipv4[0], code=6)["nodes"]
    assert refused["state"] == "refused"
    assert refused["reason"] == "the grant of this node has the duties seed, gateway, and not discovery"
    site.grant("discovery")
    assert site.point.ipv4[0] in found(site.discover(site.point.ipv4[0])), "it needs no other duty"
    site.grant("seed", "gateway", "discovery")
    assert site.point.ipv4[0] in found(site.discover(site.point.ipv4[0]))


def test_a_run_of_a_point_that_is_killed_in_the_middle_is_begun_again_and_ends_once(site: Site) -> None:
    task = site.begin(per_s=60)
    site.fleet.restart("point")
    site.fleet.until_asked(lambda: site.state(task)["finished"], "it has ended")
    state = site.state(task)
    assert (state["state"], state["figures"]["asked"]) == ("done", 254)
    assert site.point.ipv4[0] in found(site.fleet.task(task))
    began, ended = site.logged(task, "task.begun"), site.logged(task, "task.ended")
    assert (began, ended) == (2, 1)


def test_a_run_that_is_stopped_in_the_middle_ends_on_the_point(site: Site) -> None:
    task = site.begin(per_s=1)
    site.fleet.operate("p2pdist", "task", "stop", task)
    site.fleet.until_asked(lambda: site.state(task)["confirmed"], "the point says that it has ended")
    state = site.state(task)
    assert state["state"] == "cancelled"
    assert "stopped by" in state["reason"]


def test_an_enrolled_device_is_recognised_by_its_card_whatever_it_is_called(site: Site) -> None:
    site.fleet.enrol("till-4", site.neighbour, "/plant/tills")
    site.fleet.start("till-4", site.neighbour, "agent.toml")
    carried = ("online", site.fleet.nodes["point"])
    site.fleet.until_asked(lambda: site.fleet.states().get("till-4") == carried, "the point carries it")
    site.discover("--method", "neighbours")
    devices = site.fleet.inventory()
    (device,) = (each for each in devices if mac_of(site.neighbour) in each["macs"])
    assert (device["node"], device["known_by"]) == (site.fleet.nodes["till-4"], "node")
    assert "till-4" in device["names"] and "managed" in device["methods"]
    assert {site.neighbour.ipv4[0], link_local(site.neighbour)} <= {
        each["address"] for each in device["addresses"]
    }
    assert site.fleet.console.get("/inventory/conflicts")["conflicts"] == []
