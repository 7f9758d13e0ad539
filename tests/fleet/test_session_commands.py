"""What operators type to reach into a device, and what they use through it: real programs on both ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from fleet_addresses import free_port
from fleet_logs import LogBook
from fleet_processes import Processes, ServerProcess, reaching_server
from harness import Fleet, open_fleet

from p2pdist.node.config import RestingTable

pytestmark = pytest.mark.slow  # whole fleets as processes

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
PATIENCE_S = 30.0


class Console:
    """Somebody at a machine with the command line ``p2pdist``."""

    def __init__(self, fleet: Fleet, directory: Path) -> None:
        assert isinstance(fleet.server, ServerProcess)
        target = fleet.server.target("operator")
        token, ca = directory / "operator.token", directory / "ca.pem"
        token.touch(mode=0o600)
        token.write_text(target.token)
        ca.write_text(target.ca_pem)
        own = {"P2PDIST_SERVER": target.server, "P2PDIST_TOKEN_FILE": str(token), "P2PDIST_CA": str(ca)}
        self.environ = {**os.environ, **own, "HOME": str(directory), "COLUMNS": "200"}

    @staticmethod
    def _call(arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", "from p2pdist.cli.main import main; main()", *arguments]

    async def run(self, *arguments: str, code: int = 0) -> str:
        """Run a command; check its exit code; return what it prints, on whichever stream."""
        with trio.fail_after(PATIENCE_S):
            ran = await trio.run_process(
                self._call(arguments),
                env=self.environ,
                check=False,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
            )
        printed = ran.stdout.decode()
        assert ran.returncode == code, printed
        return printed

    @asynccontextmanager
    async def running(self, *arguments: str, **options: Any) -> AsyncIterator[trio.abc.ReceiveStream]:
        """Run a command beside the block, which has its output, and end it with the block."""
        async with running(*self._call(arguments), env=self.environ, **options) as process:
            assert process.stdout is not None
            yield process.stdout

    @asynccontextmanager
    async def tunnel(self, to: str) -> AsyncIterator[int]:
        """Have a tunnel beside the block, which has the port here."""
        async with self.running("tunnel", to, "--output", "json") as printed:
            yield json.loads(await until_printed(printed, "\n"))["port"]

    async def audit(self) -> list[dict[str, Any]]:
        """Return the audit log, newest first."""
        entries: list[dict[str, Any]] = json.loads(await self.run("audit", "--output", "json"))["entries"]
        return entries


@asynccontextmanager
async def running(*call: str, **options: Any) -> AsyncIterator[trio.Process]:
    async with trio.open_nursery() as nursery:
        started = partial(trio.run_process, call, check=False, stdout=subprocess.PIPE, **options)
        yield await nursery.start(started)
        nursery.cancel_scope.cancel()


async def until_printed(printed: trio.abc.ReceiveStream, text: str) -> str:
    """Read until *text* has come; return everything that has."""
    came = ""
    with trio.fail_after(PATIENCE_S):
        while text not in came:
            data = await printed.receive_some()
            assert data, f"it has ended without saying {text!r}: {came}"
            came += data.decode()
    return came


@asynccontextmanager
async def operated(
    directory: Path, log_book: LogBook, *, ports: Sequence[int] = (), points: int = 0
) -> AsyncIterator[tuple[Fleet, Console]]:
    """A fleet with one device that the server can reach, and an operator."""
    async with open_fleet(
        directory, log_book, points=points, devices=1, form=Processes(log_book), tunnel_ports=ports
    ) as fleet:
        await reaching_server(fleet)
        yield fleet, Console(fleet, directory)


class SshServer:
    """A real sshd on a port of its own, with a host key and a user's key that are good for this test only."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = port
        self.key, host = directory / "user_key", directory / "host_key"
        for path in (self.key, host):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=PATIENCE_S
            )
        self.known = directory / "known_hosts"
        self.known.write_text(f"device0 {host.with_suffix('.pub').read_text()}")
        self.config = directory / "sshd_config"
        lines = (
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {host}",
            f"AuthorizedKeysFile {self.key.with_suffix('.pub')}",
            "StrictModes no",  # the directory of a test lies below one that everybody may write
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "PidFile none",
        )
        self.config.write_text("\n".join(lines) + "\n")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have it beside the block."""
        assert SSHD is not None
        separated = Path("/run/sshd")  # which root's sshd wants; systemd makes it where that starts it
        made = os.geteuid() == 0 and not separated.exists()
        if made:
            separated.mkdir(mode=0o755)
        try:
            async with running(SSHD, "-D", "-e", "-f", str(self.config), stderr=subprocess.STDOUT) as sshd:
                assert sshd.stdout is not None
                await until_printed(sshd.stdout, "Server listening on 127.0.0.1")
                yield
        finally:
            if made:
                separated.rmdir()

    async def run(self, port: int, command: str, data: bytes = b"") -> bytes:
        """Run a command through the real ``ssh`` to *port* here; return what it prints."""
        options = (
            "BatchMode=yes",
            f"IdentityFile={self.key}",
            "IdentitiesOnly=yes",
            "HostKeyAlias=device0",
            f"UserKnownHostsFile={self.known}",
            "StrictHostKeyChecking=yes",
        )
        call = ["ssh", "-F", "none", "-p", str(port)]
        call += [word for option in options for word in ("-o", option)]
        with trio.fail_after(PATIENCE_S):
            ran = await trio.run_process([*call, "127.0.0.1", command], stdin=data, capture_stdout=True)
        return bytes(ran.stdout)


@pytest.mark.skipif(SSHD is None or not shutil.which("ssh"), reason="needs openssh-server and openssh-client")
async def test_ssh_through_a_tunnel_runs_a_command_on_the_device(tmp_path: Path, log_book: LogBook) -> None:
    ssh = SshServer(tmp_path, free_port("127.0.0.1"))
    data = os.urandom(300_000)
    async with ssh.running(), operated(tmp_path, log_book, ports=[ssh.port], points=1) as (fleet, console):
        async with console.tunnel(f"device0:{ssh.port}") as port:
            assert await ssh.run(port, "cat", data) == data
            assert (await ssh.run(port, 'echo "$SSH_CONNECTION"')).split()[-1] == b"%d" % ssh.port
        noted = [entry for entry in await console.audit() if entry["action"].startswith("session.")]
    assert [(entry["action"], entry["detail"]) for entry in reversed(noted)] == [
        ("session.announce", f"tunnel to port {ssh.port} of device0"),
        ("session.connect", f"connection to port {ssh.port} of device0"),
        ("session.connect", f"connection to port {ssh.port} of device0"),
    ]
    assert {entry["subject"] for entry in noted} == {f"{fleet.devices[0].node} device0"}
    assert log_book.find("session.opened", who="device0", service=f"Tunnel(port={ssh.port})")


async def test_a_browser_fetches_through_a_tunnel_with_several_connections_at_once(
    tmp_path: Path, log_book: LogBook
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "page").write_bytes(os.urandom(200_000))
    listening = free_port("127.0.0.1")
    serve = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", str(listening)]
    got: list[bytes] = []
    async with (
        running(*serve, cwd=pages, stderr=subprocess.DEVNULL) as server,
        operated(tmp_path, log_book, ports=[listening]) as (_, console),
    ):
        assert server.stdout is not None
        await until_printed(server.stdout, "Serving HTTP")
        async with (
            console.tunnel(f"device0:{listening}") as port,
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client,
            trio.open_nursery() as nursery,
        ):

            async def fetch() -> None:
                got.append((await client.get(f"http://127.0.0.1:{port}/page")).content)

            for _ in range(3):
                nursery.start_soon(fetch)
    assert got == 3 * [(pages / "page").read_bytes()]


async def test_a_tunnel_that_cannot_be_says_why_and_what_to_do(tmp_path: Path, log_book: LogBook) -> None:
    silent, forbidden = free_port("127.0.0.1"), 22
    async with operated(tmp_path, log_book, ports=[silent]) as (_, console):
        said = await console.run("tunnel", f"device0:{forbidden}", code=5)
        assert f"port {forbidden} is not allowed; allowed here: {silent}" in said
        async with console.running("tunnel", f"device0:{silent}", stderr=subprocess.STDOUT) as printed:
            here = (await until_printed(printed, "leads to port")).partition(" leads")[0].rpartition(":")[2]
            async with await trio.open_tcp_stream("127.0.0.1", int(here)) as connection:
                said = await until_printed(printed, "at which address it listens")
                assert f"port {silent} of the device does not answer: nothing listens there" in said
                with suppress(trio.BrokenResourceError):
                    assert await connection.receive_some() == b"", "the connection is closed, too"


async def test_the_log_of_a_device_is_followed_while_it_goes_on(tmp_path: Path, log_book: LogBook) -> None:
    async with (
        operated(tmp_path, log_book) as (_, console),
        console.running("logs", "device0", "--follow") as printed,
    ):
        assert "Echo" not in await until_printed(
            printed, "Logs(lines=100, follow=True)"
        )  # which is its own beginning
        assert "device0" in await console.run("ping", "device0", "--count", "1")
        assert "session.opened" in await until_printed(printed, "Echo()")


async def test_a_device_is_diagnosed_for_people_and_for_programs(tmp_path: Path, log_book: LogBook) -> None:
    async with operated(tmp_path, log_book) as (fleet, console):
        (device,) = fleet.devices
        shown = await console.run("diagnose", "device0")
        told = json.loads(await console.run("diagnose", "device0", "--output", "json"))
        announced = [
            entry["detail"] for entry in await console.audit() if entry["action"] == "session.announce"
        ]
        assert (told["node"], told["link"]["kind"]) == (device.node, "server")
    for fact in (device.node, f"to: {told['link']['to']}", "certificate until", "swarm port"):
        assert fact in shown
    assert announced == 2 * ["diagnosis of device0"]


async def test_a_resting_device_is_woken_by_hand_and_comes_for_a_session(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=0, form=Processes(log_book)) as fleet:
        device = await fleet.add_device(resting=RestingTable(enabled=True, after_s=1.0))
        console = Console(fleet, tmp_path)

        async def resting() -> bool:
            assert isinstance(fleet.server, ServerProcess)
            return (await fleet.server.states()).get(device.name) == "resting"

        await fleet.until(resting, "it rests")
        shown = json.loads(await console.run("device", "list", "--output", "json"))["devices"]
        assert (device.name, "resting") in [(each["name"], each["state"]) for each in shown]
        assert "online" in await console.run("wake", device.name, "--wait")
        assert "device.wake" in [entry["action"] for entry in await console.audit()]
        await fleet.until(resting, "it rests again")
        assert device.name in await console.run("ping", device.name, "--count", "1")
        assert fleet.log.find("device.woken", who=device.name, reason="session")
        shown = await console.run("device", "show", device.name)
        assert re.search(r"straight 2 of \d+ times", shown), "a wake that is answered late is sent again"
        await console.run("wake", fleet.points[0].name)  # which has a link, so there is nothing to do
        await console.run("wake", "nobody", code=2)
