"""Discovery against real daemons on a real segment: avahi, Samba's nmbd, wsdd; several devices each."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from laboratory.namespaces import PATH
from segment import Segment, address, mac

from p2pdist.core.identities import resolve
from p2pdist.core.inventory import describe, evidence_of
from p2pdist.wire.discovery import Sighting

pytestmark = [pytest.mark.network, pytest.mark.slow]

_READY_S_MAX = 40.0  # nmbd says nothing before it has asked whether its name is free

_AVAHI = """\
[server]
host-name={name}
use-ipv4=yes
use-ipv6=yes
enable-dbus=no
[publish]
publish-workstation=yes
publish-hinfo=no
"""
_SERVICE = """\
<?xml version="1.0"?><!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group><name>Laser of %h</name>
<service><type>_ipp._tcp</type><port>631</port></service>
</service-group>
"""
_SAMBA = """\
[global]
netbios name={name}
workgroup=BRANCH
pid directory={folder}
lock directory={folder}
state directory={folder}
cache directory={folder}
private dir={folder}
log file={folder}/log
"""


def needs(program: str) -> str:
    found = shutil.which(program, path=PATH)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def avahi(segment: Segment, place: int, name: str, folder: Path) -> None:
    program = needs("avahi-daemon")
    folder.mkdir()
    (folder / "services").mkdir()
    (folder / "services" / "ipp.service").write_text(_SERVICE)
    (folder / "avahi.conf").write_text(_AVAHI.format(name=name))
    script = f"mount --bind {folder}/services /etc/avahi/services && exec {program} -f {folder}/avahi.conf"
    segment.start(segment.hosts[place], f"{script} --no-drop-root --no-chroot --no-rlimits", folder / "log")


def nmbd(segment: Segment, place: int, name: str, folder: Path) -> None:
    program = needs("nmbd")
    folder.mkdir()
    (folder / "smb.conf").write_text(_SAMBA.format(name=name, folder=folder))
    segment.start(
        segment.hosts[place],
        f"exec {program} --foreground --no-process-group --configfile={folder}/smb.conf",
        folder / "output",
    )


def wsdd(segment: Segment, place: int, name: str, folder: Path) -> None:
    program = needs("wsdd")
    folder.mkdir()
    segment.start(segment.hosts[place], f"exec {program} -i eth0 -n {name} -w BRANCH", folder / "output")


class Polled:
    """Polls once what several tests look at, and again until all daemons have begun."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._found: dict[str, list[Sighting]] = {}

    def eventually(self, method: str, names: set[str], **arguments: Any) -> list[Sighting]:
        until = time.monotonic() + _READY_S_MAX
        while method not in self._found:
            found = self.segment.poll(method, **arguments)
            if names <= {name for sighting in found for name in sighting.names}:
                self._found[method] = found
            assert time.monotonic() < until, found
        return self._found[method]

    def zeroconf(self) -> list[Sighting]:
        return self.eventually("mdns", {f"desk-{place}.local" for place in range(3)})

    def windows(self) -> list[Sighting]:
        return self.eventually("netbios", _NAMES, ranges=["10.9.0.0/22"], per_s=500)

    def web_services(self) -> list[Sighting]:
        return self.eventually("wsd", _NAMES)


_NAMES = {f"DESK-{place}" for place in range(3)}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Polled]:
    """Three hosts with every daemon; a fourth that says nothing."""
    folder = tmp_path_factory.mktemp("office")
    with Segment(4, bits=22) as segment:
        for place in range(3):
            avahi(segment, place, f"desk-{place}", folder / f"avahi{place}")
            nmbd(segment, place, f"DESK-{place}", folder / f"nmbd{place}")
            wsdd(segment, place, f"DESK-{place}", folder / f"wsdd{place}")
        yield Polled(segment)


def test_zeroconf_hosts_are_found_with_their_services_over_both_families(office: Polled) -> None:
    found = office.zeroconf()
    for place in range(3):
        mine = [sighting for sighting in found if sighting.names == [f"desk-{place}.local"]]
        addresses = {each for sighting in mine for each in sighting.addresses}
        assert address(place + 2) in addresses and any(a.startswith("fe80::") for a in addresses)
        assert all("_ipp._tcp" in sighting.services for sighting in mine)


def test_windows_names_are_found_among_a_thousand_addresses_with_three_answers(office: Polled) -> None:
    assert {(s.names[0], s.addresses[0]) for s in office.windows()} == {
        (f"DESK-{place}", address(place + 2)) for place in range(3)
    }


def test_ws_discovery_finds_computers_by_name(office: Polled) -> None:
    found = office.web_services()
    assert {(s.names[0], s.addresses[0]) for s in found} >= {
        (f"DESK-{place}", address(place + 2)) for place in range(3)
    }
    assert all("wsd:Device" in sighting.services for sighting in found)


def test_open_ports_are_found_and_refusals_count_as_answers(office: Polled) -> None:
    office.web_services()  # wsdd has begun, and listens
    found = office.segment.poll("connects", ranges=["10.9.0.0/25"], ports=[5357, 22], per_s=1000)
    services = {sighting.addresses[0]: sighting.services for sighting in found}
    assert {place: services[address(place + 2)] for place in range(4)} == {
        **{place: ["tcp/5357"] for place in range(3)},
        3: [],
    }
    assert set(services) == {address(number) for number in range(1, 6)}


def test_what_all_methods_say_of_three_hosts_is_three_devices(office: Polled) -> None:
    found = [*office.zeroconf(), *office.windows(), *office.web_services()]
    found += [
        Sighting(method="neighbours", addresses=[address(number)], macs=[mac(number)])
        for number in range(2, 6)
    ]
    evidence = evidence_of(found, "office", 1_800_000_000)
    resolution = resolve(evidence)
    by_key = {each.key: each for each in evidence}
    devices = [describe("d", [by_key[key] for key in keys]) for keys in resolution.devices]
    assert {device.macs[0]: device.names and device.names[0] for device in devices if device.macs} == {
        **{mac(place + 2): f"desk-{place}.local" for place in range(3)},
        mac(5): (),
    }
    assert resolution.conflicts == frozenset()
