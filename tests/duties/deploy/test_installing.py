"""Installing the agent on bare machines over real SSH, and on servers that go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import asyncssh
import msgspec
import pytest
import trio
from bare import OPERATOR, PASSWORD, BareMachine, Machines, machines_in, needs_machines
from standin import BUNDLE, make_agent

from p2pdist.core import installation
from p2pdist.core.installation import STEPS, InstallationSettings, Outcome
from p2pdist.duties.deploy import installing
from p2pdist.duties.deploy.installing import HostState, Order, install
from p2pdist.duties.deploy.protocol import Credentials, Host, Package
from p2pdist.duties.deploy.service import FILES
from p2pdist.ids import NodeId

pytestmark = needs_machines

ROOT = Credentials(user="root", password=PASSWORD)
SETTINGS = InstallationSettings(again_s=0.1)
PATIENCE_S = 60.0


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """A network for bare machines, into which workers are started."""
    with machines_in(tmp_path) as found:
        monkeypatch.setattr(installing, "_COMMAND", tuple(found.within(*installing._COMMAND)))
        yield found


class Story:
    """What was told of each host."""

    def __init__(self) -> None:
        self.states: dict[str, list[HostState]] = defaultdict(list)
        self.reported: list[NodeId] = []

    async def tell(self, state: HostState) -> None:
        self.states[state.host].append(state)

    async def report(self, node: NodeId) -> None:
        self.reported.append(node)

    def last(self, host: str) -> HostState:
        return self.states[host][-1]

    def tries(self, host: str) -> int:
        return sum(state.state == "waiting" for state in self.states[host]) + 1

    def details(self, host: str) -> str:
        return " | ".join(dict.fromkeys(state.detail for state in self.states[host]))


async def run(
    story: Story,
    package: Package,
    *hosts: Host,
    credentials: Credentials = ROOT,
    settings: InstallationSettings = SETTINGS,
) -> Outcome:
    order = Order(hosts=hosts, credentials=credentials, package=package, bundle=BUNDLE, settings=settings)
    with trio.fail_after(PATIENCE_S):
        return await install(order, tell=story.tell, reported=story.report)


def running(machine: BareMachine) -> bool:
    pid = machine.root / "run/p2pdist-agent.pid"
    return pid.exists() and (machine.root / f"proc/{pid.read_text().strip()}").exists()


def written_secrets(machine: BareMachine, *secrets: str) -> list[str]:
    """Return the files of a machine in which one of these stands."""
    found = []
    for path in machine.upper.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [str(path) for secret in secrets if secret.encode() in data]
    return found


async def test_a_bare_machine_becomes_a_member_whose_agent_runs(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, node = make_agent(tmp_path)
    assert await run(story, package, machine.host("a")) == "done"
    assert list(dict.fromkeys(state.step for state in story.states["a"])) == [*STEPS]
    assert story.last("a").node == node and story.reported == [node]
    assert story.last("a").copied_bytes == package.length
    assert running(machine)
    assert (machine.root / "var/lib/p2pdist/enrolment.json").read_bytes() == BUNDLE
    assert written_secrets(machine, PASSWORD, "token-of-a") == []
    assert "token-of-a" not in (machine.root / "var/log/agent-calls").read_text()


async def test_a_second_run_finds_everything_done_and_sends_nothing(
    machines: Machines, tmp_path: Path
) -> None:
    machine = machines.add()
    package, node = make_agent(tmp_path)
    assert await run(Story(), package, machine.host("a")) == "done"
    story = Story()
    assert await run(story, package, machine.host("a", token="")) == "done"
    assert "it was there" in story.details("a") and "it was a member" in story.details("a")
    assert story.last("a").node == node
    assert (machine.root / "var/log/agent-calls").read_text().count("enrol") == 1


async def test_another_version_takes_the_place_of_the_one_that_runs_which_stays_beside_it(
    machines: Machines, tmp_path: Path
) -> None:
    machine = machines.add()
    oldest, older, newer = (make_agent(tmp_path, note=note)[0] for note in ("oldest", "older", "newer"))
    assert await run(Story(), oldest, machine.host("a")) == "done"
    assert await run(Story(), older, machine.host("a")) == "done"
    before = (machine.root / "run/p2pdist-agent.pid").read_text()
    assert await run(Story(), newer, machine.host("a")) == "done"
    assert running(machine) and (machine.root / "run/p2pdist-agent.pid").read_text() != before
    assert newer.sha256[:16] in str((machine.root / "opt/p2pdist-agent/p2pdist-agent").readlink())
    kept = {path.name for path in (machine.root / "opt/p2pdist-agent/versions").iterdir()}
    assert kept == {older.sha256[:16], newer.sha256[:16]}


async def test_where_systemd_runs_the_agent_is_a_unit_of_it(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    (machine.root / "run/systemd/system").mkdir(parents=True)
    # Not systemd itself: what it is asked, and that its answers are heeded.
    machine.shadow("systemctl", 'echo "$*" >>/var/log/systemctl; [ "$2" != is-active ]')
    package, _ = make_agent(tmp_path)
    assert await run(story, package, machine.host("a")) == "failed"  # it was started, and is not active
    assert story.last("a").step == "start"
    machine.shadow("systemctl", 'echo "$*" >>/var/log/systemctl; exit 0')
    assert await run(story, package, machine.host("a")) == "done"
    assert (machine.root / "etc/systemd/system/p2pdist-agent.service").read_text() == FILES["systemd"][-1][2]
    asked = (machine.root / "var/log/systemctl").read_text().splitlines()
    service = "p2pdist-agent.service"
    assert asked[-4:] == [
        "daemon-reload",
        f"--quiet enable {service}",
        f"start {service}",
        f"--quiet is-active {service}",
    ]


async def test_several_machines_are_installed_at_once_and_no_more_than_the_limit(
    machines: Machines, tmp_path: Path
) -> None:
    several = {f"host{number}": machines.add() for number in range(4)}
    package, _ = make_agent(tmp_path)
    story, most = Story(), 0

    async def tell(state: HostState) -> None:
        nonlocal most
        await story.tell(state)
        last = [story.last(host) for host in story.states]
        most = max(most, sum(each.state == "running" and each.step != "report" for each in last))

    order = Order(
        hosts=[machine.host(name) for name, machine in several.items()],
        credentials=ROOT,
        package=package,
        bundle=BUNDLE,
        settings=InstallationSettings(parallel=2),
    )
    with trio.fail_after(PATIENCE_S):
        assert await install(order, tell=tell, reported=story.report) == "done"
    assert most == 2
    assert all(running(machine) for machine in several.values())


async def test_a_dry_run_says_what_is_there_and_changes_nothing(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    settings = InstallationSettings(dry_run=True)
    assert await run(story, package, machine.host("a"), settings=settings) == "done"
    assert story.last("a").step == "space" and "MB free" in story.last("a").detail
    assert not (machine.root / "opt/p2pdist-agent").exists() and not (machine.root / "etc/p2pdist").exists()


# Keys of hosts ---------------------------------------------------------------------------------------


async def test_a_host_with_another_key_than_the_pinned_one_is_left_before_any_credential_is_shown(
    machines: Machines, tmp_path: Path
) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    assert await run(story, package, machine.host("a", key=other)) == "failed"
    assert story.last("a").step == "key" and "not the one that is pinned" in story.last("a").detail
    assert story.tries("a") == 1
    assert "password" not in machine.log.lower()


async def test_an_unknown_key_is_shown_and_not_believed(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    assert await run(story, package, machine.host("a", key="")) == "failed"
    assert "not known here" in story.last("a").detail
    assert story.last("a").key == " ".join(machine.key.split()[:2])


async def test_a_key_may_be_believed_at_first_use_and_is_told(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    assert await run(story, package, machine.host("a", key="", first_use=True)) == "done"
    assert story.last("a").key == " ".join(machine.key.split()[:2])


# Credentials -----------------------------------------------------------------------------------------


async def test_a_wrong_password_is_tried_once_and_never_again(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    wrong = Credentials(user="root", password="wrong", sudo_password="wrong")
    assert await run(story, package, machine.host("a"), credentials=wrong) == "failed"
    assert story.last("a").step == "login" and story.tries("a") == 1
    assert machine.log.count("Failed password") == 1


@pytest.mark.parametrize("passphrase", ["", "a passphrase"])
async def test_a_key_lets_in(machines: Machines, tmp_path: Path, passphrase: str) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    key = asyncssh.generate_private_key("ssh-ed25519")
    machine.authorize(key.export_public_key().decode())
    mine = key.export_private_key("openssh", passphrase or None).decode()
    credentials = Credentials(user="root", key=mine, passphrase=passphrase)
    assert await run(story, package, machine.host("a"), credentials=credentials) == "done"


async def test_an_agent_lets_in(machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    key = asyncssh.generate_private_key("ssh-ed25519")
    machine.authorize(key.export_public_key().decode())
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(key.export_private_key())
    socket = str(tmp_path / "agent.socket")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not Path(socket).exists():
            await trio.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", socket)
        subprocess.run(["ssh-add", "-q", str(tmp_path / "key")], check=True)
        credentials = Credentials(user="root", agent=True)
        assert await run(story, package, machine.host("a"), credentials=credentials) == "done"
    finally:
        agent.terminate()
        agent.wait()


async def test_sudo_with_its_password_installs_as_root(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    credentials = Credentials(user=OPERATOR, password=PASSWORD, sudo=True, sudo_password=PASSWORD)
    assert await run(story, package, machine.host("a"), credentials=credentials) == "done", story.details("a")
    assert running(machine)
    assert written_secrets(machine, PASSWORD, "token-of-a") == []


async def test_a_wrong_password_for_sudo_is_tried_once(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    credentials = Credentials(user=OPERATOR, password=PASSWORD, sudo=True, sudo_password="wrong")
    assert await run(story, package, machine.host("a"), credentials=credentials) == "failed"
    assert story.last("a").step == "login" and "sudo refused" in story.last("a").detail
    assert story.tries("a") == 1


async def test_sudo_without_a_password_needs_none(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    (machine.root / "etc/sudoers.d/bare").chmod(0o600)
    (machine.root / "etc/sudoers.d/bare").write_text(f"{OPERATOR} ALL=(ALL) NOPASSWD: ALL\n")
    credentials = Credentials(user=OPERATOR, password=PASSWORD, sudo=True)
    assert await run(story, package, machine.host("a"), credentials=credentials) == "done", story.details("a")


async def test_who_is_not_root_hears_that_sudo_is_needed(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    credentials = Credentials(user=OPERATOR, password=PASSWORD)
    assert await run(story, package, machine.host("a"), credentials=credentials) == "failed"
    assert "is not root there" in story.last("a").detail


# What goes wrong on the machine ----------------------------------------------------------------------


async def test_a_machine_of_another_platform_is_left_as_it_is(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    package = msgspec.structs.replace(package, platform="linux-riscv64")
    assert await run(story, package, machine.host("a")) == "failed"
    assert story.last("a").step == "platform" and "the agent for linux-riscv64" in story.last("a").detail
    assert not (machine.root / "opt/p2pdist-agent").exists()


async def test_a_disk_without_room_is_seen_before_anything_is_sent(
    machines: Machines, tmp_path: Path
) -> None:
    machine, story = machines.add(size="20m"), Story()
    package, _ = make_agent(tmp_path, length=8_000_000)
    assert await run(story, package, machine.host("a")) == "failed"
    assert story.last("a").step == "space" and "MB are free" in story.last("a").detail


async def test_a_disk_that_fills_up_on_the_way_ends_it_and_leaves_nothing_in_place(
    machines: Machines, tmp_path: Path
) -> None:
    machine, story = machines.add(size="6m"), Story()
    machine.shadow("df", "echo x 1 1 999999999 1% /")  # somebody else fills it just afterwards
    package, _ = make_agent(tmp_path, length=8_000_000)
    assert await run(story, package, machine.host("a")) == "failed"
    assert story.last("a").step == "copy" and story.last("a").detail == "its disk is full"
    assert not list((machine.root / "opt/p2pdist-agent").glob("versions/*/p2pdist-agent"))


async def test_a_token_that_the_fleet_refuses_ends_it(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    assert await run(story, package, machine.host("a", token="refused-token")) == "failed"
    assert story.last("a").step == "enrol" and "the token is not known" in story.last("a").detail
    assert story.tries("a") == 1


async def test_a_member_of_another_fleet_is_not_taken_over(machines: Machines, tmp_path: Path) -> None:
    machine, story = machines.add(), Story()
    package, _ = make_agent(tmp_path)
    (machine.root / "var/lib/p2pdist").mkdir()
    (machine.root / "var/lib/p2pdist/certificate.pem").write_text("theirs")
    (machine.root / "var/lib/p2pdist/enrolment.json").write_text('{"fleet": "theirs"}')
    assert await run(story, package, machine.host("a")) == "failed"
    assert "a member of another fleet: theirs" in story.last("a").detail


# The worker ------------------------------------------------------------------------------------------


def worker_pids() -> list[int]:
    """Return the workers that this process has started."""
    found = []
    for thread in Path("/proc/self/task").iterdir():  # whichever has started it
        for word in (thread / "children").read_text().split():
            if b"p2pdist.duties.deploy.worker" in Path(f"/proc/{word}/cmdline").read_bytes():
                found.append(int(word))
    return found


STOP_AFTER = 4_000_000
STOPS_ONCE = f"""
if [ -e /run/stopped ]; then exec /bin/cat "$@"; fi
touch /run/stopped
/bin/head -c {STOP_AFTER}
exec sleep 600
"""


async def test_after_a_kill_of_the_worker_another_goes_on_at_the_byte_where_it_stopped(
    machines: Machines, tmp_path: Path
) -> None:
    machine, story = machines.add(), Story()
    machine.shadow("cat", STOPS_ONCE)
    package, _ = make_agent(tmp_path, length=10_000_000)
    part = machine.root / f"opt/p2pdist-agent/versions/{package.sha256[:16]}/p2pdist-agent.part"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run, story, package, machine.host("a")))
        with trio.fail_after(PATIENCE_S):
            while not part.exists() or part.stat().st_size < STOP_AFTER:
                await trio.sleep(0.02)
        (worker,) = worker_pids()
        os.kill(worker, signal.SIGKILL)
    assert story.last("a").state == "done", story.details("a")
    assert "what worked on it has ended" in story.details("a")
    assert f"{10_000_000 - STOP_AFTER} bytes sent" in story.details("a")


async def test_the_worker_has_no_secret_in_its_arguments_or_environment_and_ends_with_who_cancels_it(
    machines: Machines, tmp_path: Path
) -> None:
    machine, story = machines.add(), Story()
    machine.shadow("cat", STOPS_ONCE)
    package, _ = make_agent(tmp_path, length=10_000_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run, story, package, machine.host("a")))
        with trio.fail_after(PATIENCE_S):
            while not (machine.root / "run/stopped").exists():
                await trio.sleep(0.02)
        (worker,) = worker_pids()
        seen = b"".join(Path(f"/proc/{worker}/{what}").read_bytes() for what in ("cmdline", "environ"))
        nursery.cancel_scope.cancel()
    assert PASSWORD.encode() not in seen and b"token-of-a" not in seen
    assert not Path(f"/proc/{worker}").exists()


async def test_a_server_that_hangs_at_any_step_is_left_when_the_step_has_had_its_time(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, _ = make_agent(tmp_path, length=400_000)
    hanging = [step for step in STEPS if step not in ("reach", "report")]
    # The times are long enough for a busy machine, and those of one host are over when the others' are.
    monkeypatch.setattr(installation, "STEP_S", dict.fromkeys(STEPS, 4.0))
    monkeypatch.setattr(installation, "COPY_SILENCE_S", 4.0)
    address = "10.99.1.1"
    machines.namespace.ip(f"address add {address}/32 dev lo")
    # Nothing comes back from there: the other end of the cable has no address.
    machines.namespace.ip(
        "link add nowhere type veth peer name nobody",
        "address add 10.99.2.1/24 dev nowhere",
        "link set nowhere up",
        "link set nobody up",
        "neighbour add 10.99.2.2 lladdr 02:00:00:00:00:02 dev nowhere nud permanent",
    )
    server = subprocess.Popen(
        machines.within(
            sys.executable, str(Path(__file__).with_name("hanging.py")), address, "2200", *hanging
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        hosts = [
            Host(id=step, address=address, port=2200 + number, first_use=True)
            for number, step in enumerate(hanging)
        ]
        hosts.append(Host(id="reach", address="10.99.2.2", first_use=True))
        story = Story()
        settings = InstallationSettings(parallel=len(hosts), tries_max=1)
        assert await run(story, package, *hosts, settings=settings) == "failed"
        assert {host: story.last(host).step for host in story.states} == {host.id: host.id for host in hosts}
        assert {story.last(host.id).detail for host in hosts} == {"no answer in time"}
    finally:
        server.kill()
        server.communicate()
