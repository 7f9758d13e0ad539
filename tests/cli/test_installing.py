"""The agent onto bare machines, from the operator's prompt; the admin server logs in itself.

The agent is a script that takes no time, and the device that it makes is one that the test has enrolled.
"""

from __future__ import annotations

import io
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

sys.path[:0] = [
    str(Path(__file__).parents[1] / "duties" / "deploy"),
    str(Path(__file__).parents[1] / "server"),
    str(Path(__file__).parents[2] / "tools"),
]

from bare import PASSWORD, BareMachine, Machines, holding, machines_in, needs_machines  # noqa: E402
from serverkit import Publisher, TestDevice, enrolled_device  # noqa: E402
from standin import make_agent  # noqa: E402

from p2pdist.cli import installing as at_the_prompt  # noqa: E402
from p2pdist.core.hostkeys import fingerprint  # noqa: E402
from p2pdist.duties.deploy import installing  # noqa: E402
from p2pdist.install.platform import detect_platform  # noqa: E402
from p2pdist.wire import api as wire  # noqa: E402

from .conftest import OpenShell, Shell  # noqa: E402

pytestmark = [*needs_machines, pytest.mark.slow]


class Site:
    """A shell, a bare machine, and the device that it becomes."""

    def __init__(self, shell: Shell, machine: BareMachine, device: TestDevice, directory: Path) -> None:
        self.shell = shell
        self.machine = machine
        self.device = device
        self.asked = ""
        """What the operator was asked."""
        self.password_file = directory / "password"
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(PASSWORD + "\n")

    def words(self, *more: str) -> tuple[str, ...]:
        """The usual command."""
        login = ("--password-file", str(self.password_file), "--group", "/")
        return ("agent", "install", self.machine.address, "--via", "server", *login, *more)

    async def install(self, *more: str, code: int = 0) -> wire.TaskRun:
        """Install; the device comes meanwhile. Returns the run."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._come)
            await self.shell(*self.words(*more, "--wait"), code=code)
            self.asked = self.shell.stderr
            nursery.cancel_scope.cancel()
        return await self.newest()

    async def newest(self) -> wire.TaskRun:
        known = (await self.shell.json(wire.TaskList, "task", "list")).tasks[0]
        return await self.shell.json(wire.TaskRun, "task", "show", known.id)

    async def _come(self) -> None:
        while not (self.machine.root / "run/p2pdist-agent.pid").exists():
            await trio.sleep(0.1)
        async with self.device.attached() as link:
            await self.device.send(link, self.device.heartbeat())
            await trio.sleep_forever()


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machines]:
    """A network for bare machines, into which workers are started."""
    (tmp_path / "machines").mkdir()
    with machines_in(tmp_path / "machines") as found:
        monkeypatch.setattr(installing, "_COMMAND", tuple(found.within(*installing._COMMAND)))
        yield found


@pytest.fixture
def open_site(open_shell: OpenShell, machines: Machines, tmp_path: Path) -> OpenShell:
    """Open a server that has the agent as a release, and a bare machine."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Site]:
        publisher = Publisher(tmp_path / "signed")
        async with open_shell(publisher) as shell:
            device = await enrolled_device(shell.fleet, name="bare")
            package, _ = make_agent(tmp_path, certificate=device.certificate)
            made = {"product": "p2pdist-agent", "platform": detect_platform()}
            publisher.add_release("1", Path(package.path).read_bytes(), **made)
            await shell.fleet.operator.publish(publisher)
            yield Site(shell, machines.add(), device, tmp_path)

    return opened


async def test_a_bare_machine_becomes_a_managed_device_and_its_password_stands_nowhere(
    open_site: OpenShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_the_prompt, "interactive", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    async with open_site() as site:
        held: set[str] = set()
        before = holding(PASSWORD)  # what makes the machine sets its password

        async def look() -> None:
            while not (site.machine.root / "opt/p2pdist-agent").exists():
                await trio.sleep(0.05)
            held.update(await trio.to_thread.run_sync(holding, PASSWORD, tmp_path / "server"))

        config = tmp_path / "agent.toml"
        config.write_text("[resting]\nenabled = true\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            run = await site.install("--config", str(config))
        assert (site.machine.root / "etc/p2pdist/agent.toml").read_text() == config.read_text()
        assert f"{site.machine.address}  {fingerprint(site.machine.key)}" in site.asked
        (item,) = run.items
        assert (item.state, item.step, run.nodes[0].state) == ("done", "report", "done")
        assert f"it is node {site.device.node}" in item.detail
        assert fingerprint(site.machine.key) in item.detail
        assert held == before
        assert holding(PASSWORD, tmp_path / "server", tmp_path / "home") == before
        (found,) = (await site.shell.json(wire.FoundList, "inventory", "list")).devices
        assert found.node == site.device.node and found.state != "unmanaged"
        tokens = (await site.shell.json(wire.TokenList, "token", "list")).tokens
        assert not any(token.uses_left for token in tokens), "what was made for the run has gone with it"


async def test_a_dry_run_shows_keys_and_platforms_and_its_keys_can_be_accepted(open_site: OpenShell) -> None:
    async with open_site() as site:
        await site.shell(*site.words("--dry-run", "--wait"), code=6)
        unknown = await site.newest()
        shown = fingerprint(site.machine.key)
        assert unknown.items[0].detail == f"its key {shown} is not known here"
        await site.shell(*site.words("--dry-run", "--wait", "--accept-keys", unknown.task))
        looked = await site.newest()
        assert looked.items[0].state == "done" and shown in looked.items[0].detail
        assert f"{detect_platform()}, init" in looked.items[0].detail
        assert not (site.machine.root / "opt/p2pdist-agent").exists()


async def test_another_run_goes_on_where_the_one_before_stopped(open_site: OpenShell) -> None:
    async with open_site() as site:
        site.machine.shadow("start-stop-daemon", "echo No space left on device >&2; exit 1")
        failed = await site.install("--accept-keys", "first-use", code=6)
        assert (failed.items[0].state, failed.items[0].step) == ("failed", "start")
        (site.machine.root / "usr/local/sbin/start-stop-daemon").unlink()
        await site.shell("task", "run", failed.task, code=2)
        assert "--secrets FILE" in site.shell.stderr
        site.password_file.write_text(f'password = "{PASSWORD}"\n')
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site._come)
            again = ("task", "run", failed.task, "--secrets", str(site.password_file), "--wait")
            await site.shell(*again)
            nursery.cancel_scope.cancel()
        done = await site.newest()
        assert (done.run, done.items[0].state) == (2, "done")
        assert "it was there" in done.items[0].detail and "it was a member" in done.items[0].detail


async def test_what_makes_no_sense_is_said_before_anything_begins(open_site: OpenShell) -> None:
    async with open_site() as site:
        for words, said in (
            (("agent", "install", "10.0.0.1"), "--via"),
            (("agent", "install", "10.0.0.1", "--via", "server"), "to log in with"),
            ((*site.words(), "10.0.0.1:99999"), "names no port"),
            ((*site.words(), "nothing"), "discovery has found"),
            (site.words("--release", "p2pdist-agent@7"), "p2pdist-agent@7"),
            (site.words("--accept-keys", "nothing"), "no task"),
            (site.words("--config", str(site.password_file)), "is not TOML"),
        ):
            await site.shell(*words, code=2)
            assert said in site.shell.stderr, words
        assert (await site.shell.json(wire.TaskList, "task", "list")).tasks == []
