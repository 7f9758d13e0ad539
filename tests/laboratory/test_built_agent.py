"""The agent as one file, built once: alone, and on a bare machine over SSH as a member of a real fleet."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio
from lab_fleet import LabFleet, Release
from laboratory.network import Laboratory

sys.path += [str(Path(__file__).parents[1] / directory) for directory in ("duties/deploy", "trust")]

from bare import PASSWORD, BareMachine, needs_machines
from workshop import Workshop

from p2pdist.core.deltas import window_log
from p2pdist.core.installation import InstallationSettings
from p2pdist.duties.deploy import installing
from p2pdist.duties.deploy.installing import HostState, Order, install
from p2pdist.duties.deploy.protocol import Credentials, Package
from p2pdist.ids import NodeId
from p2pdist.install.patch import Patch
from p2pdist.install.patching import PATCH_WORD
from p2pdist.install.platform import detect_platform
from p2pdist.sign.deltas import write_delta
from p2pdist.trust.catalog import Delta
from tests.node.nodes import Nodes

pytestmark = [*needs_machines, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BUILD_S = 400
CONTENT = b"a release" * 1_000
TRIAL_S = 60  # which makes the pauses between starts a second
CRASHES = b"""#!/bin/sh
[ "$1" = --version ] && exit
exit 3
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file; building it takes about a minute, and is done once for all processes of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    path = shared / "p2pdist-agent"
    with (shared / "p2pdist-agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _build(path)
    return path


def _build(path: Path) -> None:
    subprocess.run(
        [ROOT / "tools" / "build-agent", path], check=True, timeout=BUILD_S, stderr=subprocess.PIPE
    )


def alone(directory: Path) -> dict[str, str]:
    """Return an environment in which nothing but the file is found."""
    empty = directory / "empty"
    empty.mkdir()
    return {"PATH": str(empty), "TMPDIR": str(directory)}


def test_it_runs_without_python_and_without_anything_else(agent: Path, tmp_path: Path) -> None:
    said = subprocess.run(
        [agent, "--version"], env=alone(tmp_path), capture_output=True, text=True, check=True
    )
    assert said.stdout.strip()


def test_it_is_the_process_that_applies_deltas_too(agent: Path, tmp_path: Path) -> None:
    base, new = tmp_path / "base", tmp_path / "new"
    base.write_bytes(bytes(range(256)) * 100)
    new.write_bytes(base.read_bytes() + b"and more")
    delta = tmp_path / "delta"
    write_delta(base.read_bytes(), new.read_bytes(), delta)
    how = Delta(
        base="0" * 64,
        base_sha256=hashlib.sha256(base.read_bytes()).hexdigest(),
        base_length=base.stat().st_size,
        info_hash="1" * 64,
        length=delta.stat().st_size,
        sha256="2" * 64,
        window_log=window_log(base.stat().st_size, new.stat().st_size),
        base_unpacked=base.stat().st_size,
        unpacked=new.stat().st_size,
    )
    patch = Patch(
        base=str(base),
        delta=str(delta),
        result=str(tmp_path / "result"),
        how=how,
        length=new.stat().st_size,
        sha256=hashlib.sha256(new.read_bytes()).hexdigest(),
    )
    said = subprocess.run(
        [agent, PATCH_WORD],
        env=alone(tmp_path),
        input=msgspec.json.encode(patch),
        capture_output=True,
        check=True,
    )
    assert msgspec.json.decode(said.stdout) == {"failure": ""}
    assert (tmp_path / "result").read_bytes() == new.read_bytes()


def test_what_was_built_is_given_again_while_its_source_is_the_same(agent: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    said = subprocess.run(
        [ROOT / "tools" / "build-agent", again], capture_output=True, text=True, check=True, timeout=BUILD_S
    )
    assert "building" not in said.stderr
    assert again.read_bytes() == agent.read_bytes()


def test_a_mistake_in_the_call_has_the_exit_code_of_the_installed_program(
    agent: Path, tmp_path: Path
) -> None:
    call = [agent, "enrol", "--bundle=nothing", "--token-file=nothing"]
    said = subprocess.run(call, env=alone(tmp_path), capture_output=True, text=True, cwd=tmp_path)
    assert said.returncode == 2 and "nothing cannot be read" in said.stderr


async def test_it_gives_the_signs_of_life_that_are_expected_of_the_program_which_unpacks_it(
    agent: Path, tmp_path: Path
) -> None:
    home = Nodes(root=Workshop().roots[0]).home(tmp_path / "data")
    home.key.save(home.root / "identity.key")
    home.enrolment.save(home.root / "enrolment.json")
    (home.root / "certificate.pem").write_bytes(home.certificate_pem)
    config = tmp_path / "agent.toml"
    config.write_text(f'[node]\ndata = "{home.root}"\n[swarm]\nhost = "127.0.0.1"\nport = 0\n')
    address = str(tmp_path / "notify")
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        await supervisor.bind(address)
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$0" run --config "$1"', str(agent), str(config)],
            env={**alone(tmp_path), "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"},
        )
        try:
            with trio.fail_after(60):
                while b"WATCHDOG=1" not in await supervisor.recv(4_096):
                    pass
        finally:
            process.terminate()  # the one that unpacks passes it on
            with trio.CancelScope(shield=True), trio.move_on_after(20):
                await process.wait()


def update_agent(fleet: LabFleet, content: bytes, version: str) -> Release:
    """Deploy another version of the agent to everybody."""
    how = ("--install", "agent", "--platform", detect_platform(), "--timeout", str(TRIAL_S))
    release = fleet.release(content, product="p2pdist-agent", version=version, how=how)
    fleet.deploy(release)
    return release


def until_ended(fleet: LabFleet, release: Release) -> tuple[str, str]:
    """Wait until the only device has installed a release, or has failed to; return which, and why."""
    (name,) = fleet.states()
    said: dict[str, str] = {}

    def ended() -> bool:
        said.update(fleet.explain(name, release))
        return said["stage"] in ("installed", "failed", "refused")

    fleet.until_asked(ended, f"{release.name} ends")
    return said["stage"], said["reason"]


def check_self_update(fleet: LabFleet, machine: BareMachine, agent: bytes) -> None:
    """Have the machine take a version that works, then one that does not."""
    link = machine.root / "opt/p2pdist-agent/p2pdist-agent"
    first = link.readlink()
    newer = agent + b"\n"  # it unpacks itself all the same
    assert until_ended(fleet, update_agent(fleet, newer, "2")) == ("installed", "")
    second = link.readlink()
    assert hashlib.sha256(newer).hexdigest().startswith(second.parent.name) and second != first
    stage, reason = until_ended(fleet, update_agent(fleet, CRASHES, "3"))
    assert stage == "failed" and "did not report back: it ended 3 times" in reason
    assert link.readlink() == second


def test_a_bare_machine_gets_the_agent_over_ssh_joins_the_fleet_and_installs_releases_and_newer_agents(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states: list[HostState] = []

    async def tell(state: HostState) -> None:
        states.append(state)

    with Laboratory() as laboratory, LabFleet(tmp_path, laboratory.server) as fleet:
        monkeypatch.setattr(installing, "_COMMAND", tuple(laboratory.server.command(*installing._COMMAND)))

        async def reported(node: NodeId) -> None:
            await trio.to_thread.run_sync(fleet.until, partial(has_come, node), "it has come to the server")

        def has_come(node: NodeId) -> bool:
            return any(line["node"] == node for line in fleet.logged("server", "link.attached"))

        fleet.found()
        (host,) = laboratory.add("open").hosts
        machine = BareMachine(tmp_path / "bare", host.ipv4[0], host.command)
        try:
            data = agent.read_bytes()
            order = Order(
                hosts=[machine.host("bare", token=fleet.token("/emea").read_text().strip())],
                credentials=Credentials(user="root", password=PASSWORD),
                package=Package(
                    path=str(agent),
                    length=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    platform=detect_platform(),
                ),
                bundle=fleet.bundle().read_bytes(),
                settings=InstallationSettings(),
            )
            outcome = trio.run(partial(install, order, tell=tell, reported=reported))
            assert outcome == "done", [(state.step, state.state, state.detail) for state in states]
            assert not (machine.root / "usr/bin/python3").exists()
            release = fleet.release(CONTENT)
            fleet.deploy(release)
            place = machine.root / "opt" / release.product
            fleet.until(lambda: place.exists() and place.read_bytes() == CONTENT, "it is installed there")
            check_self_update(fleet, machine, data)
        finally:
            machine.end()
