"""What a laboratory's networks do, and that nothing is left of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import namespaces
from laboratory.kinds import KINDS, Kind
from laboratory.measure import outside_endpoints, responding
from laboratory.network import Host, Laboratory, LaboratoryError, Place, Uplink, kind_named

pytestmark = pytest.mark.network

TOOLS = Path(__file__).parents[2] / "tools"
GONE_S_MAX = 10.0


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with Laboratory() as built:
        yield built


@pytest.fixture(scope="module")
def home(laboratory: Laboratory) -> Place:
    """Two hosts behind a usual NAT."""
    return laboratory.add("port-restricted", hosts=2)


def reaches(host: Host, address: str, count: int = 1) -> int:
    """How many of so many pings were answered."""
    script = f"""
import json, socket, sys
answers = 0
for number in range({count}):
    with socket.socket(socket.AF_INET6 if ":" in {address!r} else socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.settimeout(0.3 if {count} == 1 else 0.05)
        ours.sendto(json.dumps({{"id": 0, "from": None, "after": 0}}).encode(), ({address!r}, 3478))
        try:
            ours.recv(2048)
            answers += 1
        except OSError:
            pass
print(answers)
"""
    return int(host.run(sys.executable, "-S", "-c", script))


def network_of(pid: int | str) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def processes_in(networks: set[int]) -> list[str]:
    """The processes that are in one of these network namespaces."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if network_of(path.name) in networks:
                found.append(path.name)
        except OSError:
            continue
    return found


def test_every_host_reaches_the_server(laboratory: Laboratory, home: Place) -> None:
    with responding(laboratory.server):
        assert [reaches(host, laboratory.server.ipv4[0]) for host in home.hosts] == [1, 1]


def test_hosts_of_a_home_see_each_other(home: Place) -> None:
    left, right = home.hosts
    left.run("ip", "neighbour", "flush", "all")
    with subprocess.Popen(
        right.command(sys.executable, "-S", "-c", _ECHO), stdout=subprocess.PIPE, text=True
    ) as echo:
        assert echo.stdout is not None
        echo.stdout.readline()
        assert reaches(left, right.ipv4[0]) == 1
        echo.kill()


_ECHO = """
import socket
ours = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ours.bind(("0.0.0.0", 3478))
print("ready", flush=True)
while True:
    data, sender = ours.recvfrom(2048)
    ours.sendto(data, sender)
"""


def test_a_partition_cuts_a_place_off_until_it_heals(laboratory: Laboratory, home: Place) -> None:
    server = laboratory.server.ipv4[0]
    with responding(laboratory.server):
        home.partition()
        cut = reaches(home.hosts[0], server)
        home.heal()
        assert (cut, reaches(home.hosts[0], server)) == (0, 1)


def test_a_place_loses_about_as_many_packets_as_it_is_told_to(laboratory: Laboratory, home: Place) -> None:
    with responding(laboratory.server):
        home.lose(20)
        answered = reaches(home.hosts[0], laboratory.server.ipv4[0], count=100)
        home.lose(0)
        healed = reaches(home.hosts[0], laboratory.server.ipv4[0], count=50)
    assert 40 <= answered <= 88  # 64 expected, 0.8 each way, and 5 standard deviations
    assert healed == 50


@pytest.mark.parametrize("name", ["full-cone", "symmetric", "carrier-grade", "rebinding"])
def test_a_rebind_changes_the_outside_endpoint_of_a_socket(laboratory: Laboratory, name: str) -> None:
    place = laboratory.add(name)
    with responding(laboratory.server) as control:
        before, after = outside_endpoints(laboratory.server, control, place)
    assert before is not None and after is not None
    assert before != after


@pytest.mark.parametrize(("rebinding", "answered"), [(False, True), (True, False)])
def test_a_rebind_cuts_tcp_connections(laboratory: Laboratory, rebinding: bool, answered: bool) -> None:
    place = laboratory.add("rebinding")
    script = (
        "import socket, sys; s = socket.create_connection((sys.argv[1], 443)); s.recv(99);"
        "print('connected', flush=True); sys.stdin.readline(); s.settimeout(1); s.send(b'x');"
        "print('answered' if s.recv(99) == b'' else '')"
    )
    with (
        responding(laboratory.server),
        subprocess.Popen(
            place.hosts[0].command(sys.executable, "-S", "-c", script, laboratory.server.ipv4[0]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as connected,
    ):
        assert connected.stdout is not None
        assert connected.stdout.readline() == "connected\n"
        if rebinding:
            place.rebind()
        assert (connected.communicate("\n")[0] == "answered\n") == answered


def test_a_place_without_nat_cannot_rebind(laboratory: Laboratory) -> None:
    with pytest.raises(LaboratoryError, match="no NAT"):
        laboratory.add("open").rebind()


def test_two_hosts_that_call_from_the_same_port_are_mapped_to_different_ones(
    laboratory: Laboratory, home: Place
) -> None:
    script = (
        "import json, socket, sys; o = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); o.bind(('', 6881));"
        f"o.settimeout(2); o.sendto(b'{json.dumps({'id': 0, 'from': None})}', "
        f"('{laboratory.server.ipv4[0]}', 3478)); print(o.recv(2048).decode())"
    )
    with responding(laboratory.server):
        seen = [json.loads(host.run(sys.executable, "-S", "-c", script))["seen"] for host in home.hosts]
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_the_inside_of_a_dmz_reaches_only_the_dmz(laboratory: Laboratory) -> None:
    zone, inside = laboratory.add("dmz", hosts=2).hosts
    with (
        responding(laboratory.server),
        subprocess.Popen(
            zone.command(sys.executable, "-S", "-c", _ECHO), stdout=subprocess.PIPE, text=True
        ) as echo,
    ):
        assert echo.stdout is not None
        echo.stdout.readline()
        assert reaches(inside, zone.ipv4[0]) == 1
        assert reaches(inside, laboratory.server.ipv4[0]) == 0
        assert reaches(zone, inside.ipv4[0]) == 0
        echo.kill()


def test_an_uplink_has_the_rate_that_it_was_given(laboratory: Laboratory) -> None:
    place = laboratory.add("symmetric", uplink=Uplink(up_mbit=8, down_mbit=50))
    sink = (
        "import socket; s = socket.create_server(('', 9000)); print('ready', flush=True); c = s.accept()[0]\n"
    )
    sink += "while c.recv(65536): pass"
    source = (
        "import socket, sys, time; s = socket.create_connection((sys.argv[1], 9000)); b = time.monotonic();"
        "s.sendall(bytes(1_000_000)); s.shutdown(1); s.recv(1); print(time.monotonic() - b)"
    )
    with subprocess.Popen(
        laboratory.server.command(sys.executable, "-S", "-c", sink), stdout=subprocess.PIPE, text=True
    ) as listening:
        assert listening.stdout is not None
        listening.stdout.readline()
        took = float(place.hosts[0].run(sys.executable, "-S", "-c", source, laboratory.server.ipv4[0]))
    assert took > 0.8  # 1 MB at 8 Mbit/s takes a second, less the queue and the burst


def test_a_long_line_takes_its_time_and_changes_nothing(laboratory: Laboratory) -> None:
    place = laboratory.add("port-restricted", uplink=Uplink(delay_ms=20))
    script = """
import json, socket, sys, time
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
    ours.settimeout(5)
    took = []
    for number in range(3):
        before = time.monotonic()
        ours.sendto(json.dumps({"id": number, "from": None}).encode(), (sys.argv[1], 3478))
        ours.recv(2048)
        took.append(time.monotonic() - before)
print(min(took))
with socket.create_connection((sys.argv[1], 443), 5) as connection:
    print(connection.makefile().readline())
"""
    with responding(laboratory.server):
        host = place.hosts[0]
        took, seen = host.run(sys.executable, "-S", "-c", script, laboratory.server.ipv4[0]).split("\n", 1)
    assert 0.04 <= float(took) < 2
    assert json.loads(seen)[0].startswith("26.0.")


def test_an_unknown_kind_is_refused_with_the_known_ones(laboratory: Laboratory) -> None:
    with pytest.raises(LaboratoryError, match="port-restricted"):
        laboratory.add("portrestricted")


@pytest.mark.parametrize("hosts", [0, 9])
def test_a_place_has_one_to_eight_hosts(laboratory: Laboratory, hosts: int) -> None:
    with pytest.raises(LaboratoryError, match="1 to 8"):
        laboratory.add("open", hosts=hosts)


@pytest.mark.parametrize("kind", list(KINDS.values()), ids=lambda kind: kind.name)
def test_a_kind_is_found_by_its_name(kind: Kind) -> None:
    assert kind_named(kind.name) is kind


def test_leaving_a_laboratory_ends_the_programs_in_it() -> None:
    with Laboratory() as laboratory:
        host = laboratory.add("open").hosts[0]
        program = subprocess.Popen(host.command("sleep", "600"))
        networks = {network_of(laboratory.server.namespace.pid), network_of(host.namespace.pid)}
        _wait_until(lambda: len(processes_in(networks)) == 3)
    assert program.wait(GONE_S_MAX) == -signal.SIGKILL
    assert processes_in(networks) == []


_BUILDER = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(TOOLS)!r})
from laboratory.network import Laboratory
with Laboratory() as laboratory:
    host = laboratory.add("port-restricted").hosts[0]
    subprocess.Popen(host.command("sleep", "600"), start_new_session=True, stdout=subprocess.DEVNULL)
    keepers = [laboratory.server.namespace.pid, host.namespace.pid]
    networks = [os.stat(f"/proc/{{pid}}/ns/net").st_ino for pid in keepers]
    print(*networks, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_builder_that_is_killed_leaves_nothing(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _BUILDER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as builder:
        assert builder.stdout is not None
        networks = {int(word) for word in builder.stdout.readline().split()}
        assert len(networks) == 2
        _wait_until(lambda: len(processes_in(networks)) == 3)
        os.kill(builder.pid, how)
        builder.wait()
    _wait_until(lambda: processes_in(networks) == [])


_UNPRIVILEGED = f"""
import os, subprocess, sys
sys.path.insert(0, {str(TOOLS)!r})
from laboratory.measure import outside_endpoints, responding
from laboratory.network import Laboratory
with Laboratory() as laboratory:
    place = laboratory.add("port-restricted")
    assert "--user" in place.hosts[0].command("true")
    with responding(laboratory.server) as control:
        print(*outside_endpoints(laboratory.server, control, place), sep=chr(10))
"""


def test_who_may_not_make_namespaces_makes_them_in_a_user_namespace() -> None:
    """As root, all rights are given up but the one that mapping root to root takes."""
    drop = ("setpriv", "--bounding-set=-all,+setfcap", "--inh-caps=-all") if os.geteuid() == 0 else ()
    possible = subprocess.run([*drop, "unshare", "--user", "--map-root-user", "--net", "true"], check=False)
    if possible.returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run([*drop, sys.executable, "-c", _UNPRIVILEGED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert before != after


def test_a_laboratory_puts_no_device_and_no_name_into_the_machines_own_network() -> None:
    def own_network() -> set[str]:
        links = json.loads(subprocess.check_output(["ip", "-json", "link"]))
        return {
            link["ifname"]
            for link in links
            if re.match("(place|host|home)[0-9]+$|near$|far$", link["ifname"])
        }

    before = own_network()
    with Laboratory() as laboratory:
        laboratory.add("carrier-grade", uplink=Uplink(delay_ms=1))
        assert own_network() == before
        named = {path.stat().st_ino for path in Path("/run/netns").glob("*")}
        assert network_of(laboratory.server.namespace.pid) not in named


def test_a_missing_tool_is_named_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_TOOLS", ("ip", "no-such-tool"))
    namespaces.why_not.cache_clear()
    with pytest.raises(LaboratoryError, match=r"not installed: no-such-tool .*nftables"), Laboratory():
        pass
    namespaces.why_not.cache_clear()


def _wait_until(condition: object) -> None:
    assert callable(condition)
    end = time.monotonic() + GONE_S_MAX
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
