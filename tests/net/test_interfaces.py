"""The network interfaces of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import ifaddr
import pytest

from p2pdist import limits
from p2pdist.net import interfaces
from p2pdist.net.interfaces import read_interfaces
from p2pdist.wire.discovery import Interface


class Machine:
    """A machine's interfaces, as the kernel and the C library show them."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.cards: list[tuple[str, str]] = []
        self.adapters: list[SimpleNamespace] = []
        monkeypatch.setattr(interfaces, "_CLASS", root)
        monkeypatch.setattr(interfaces, "hardware_addresses", lambda: iter(self.cards))
        monkeypatch.setattr(ifaddr, "get_adapters", lambda: self.adapters)

    def add(self, name: str, mac: str, *addresses: str, real: bool = False) -> None:
        if mac:
            self.cards.append((name, mac))
        if real:
            (self.root / name / "device").mkdir(parents=True)
        ips = [SimpleNamespace(ip=each if "." in each else (each, 0, 2)) for each in addresses]
        self.adapters.append(SimpleNamespace(name=name, ips=ips))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_real_cards_come_first_with_their_addresses(machine: Machine) -> None:
    machine.add("bond0", "00:1b:21:00:00:09", "10.1.0.9")
    machine.add("eth0", "00:1b:21:00:00:07", "fe80::7", "fd00::7", "10.1.0.7", real=True)
    assert read_interfaces() == [
        Interface(mac="00:1b:21:00:00:07", addresses=["10.1.0.7", "fd00::7", "fe80::7"]),
        Interface(mac="00:1b:21:00:00:09", addresses=["10.1.0.9"]),
    ]


def test_loopback_tunnels_and_bridges_of_containers_are_left_out(machine: Machine) -> None:
    machine.add("lo", "", "127.0.0.1")
    machine.add("wg0", "", "10.9.0.1")
    machine.add("docker0", "02:42:00:00:00:01", "172.17.0.1")
    assert read_interfaces() == []


def test_what_shares_a_hardware_address_is_one_card(machine: Machine) -> None:
    machine.add("br0", "00:1b:21:00:00:07", "10.1.0.7")
    machine.add("eth0", "00:1b:21:00:00:07", real=True)
    machine.add("eth0.5", "00:1b:21:00:00:07", "10.5.0.7")
    assert read_interfaces() == [Interface(mac="00:1b:21:00:00:07", addresses=["10.1.0.7", "10.5.0.7"])]


def test_no_more_is_told_than_the_admin_server_takes(machine: Machine) -> None:
    for number in range(20):
        machine.add(
            f"eth{number}", f"00:1b:21:00:00:{number:02x}", *(f"10.{number}.0.{i}" for i in range(1, 13))
        )
    told = read_interfaces()
    assert len(told) == limits.INTERFACES_MAX
    assert {len(each.addresses) for each in told} == {limits.INTERFACE_ADDRESSES_MAX}


@pytest.mark.network
def test_a_real_card_is_told_with_its_real_addresses() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    program = (
        "import json; from p2pdist.net.interfaces import read_interfaces;"
        "print(json.dumps([[each.mac, each.addresses] for each in read_interfaces()]))"
    )
    script = (
        "set -e; ip link set lo up;"
        " ip link add cable address 02:00:00:00:00:07 type veth peer name far address 02:00:00:00:00:08;"
        " ip link set cable up; ip address add 10.77.0.7/24 dev cable;"
        f" exec {sys.executable} -c '{program}'"
    )
    namespace = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    done = subprocess.run([*namespace, "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = dict(json.loads(done.stdout))
    assert set(told) == {"02:00:00:00:00:07", "02:00:00:00:00:08"}
    assert told["02:00:00:00:00:07"][0] == "10.77.0.7"
