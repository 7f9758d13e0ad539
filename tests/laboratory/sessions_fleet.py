"""A fleet of the real programs in a laboratory: everything through the command lines, as its users do it.

The admin server stands at the laboratory's server, a distribution point with the duty ``gateway`` in the
open, devices wherever a test puts them, and the operator's command line runs on any host.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from laboratory.network import Host

BIN = Path(sys.executable).parent
GROUP = "/sites"
_READY_S = 60.0


class LabFleet:
    """The fleet's files, commands and processes; a context manager that ends them.

    Args:
        directory: For everything that is written.
        server: The host of the admin server.
    """

    def __init__(self, directory: Path, server: Host) -> None:
        self.directory = directory
        self.server = server
        self.environment = {
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "P2PDIST_PROFILE": str(directory / "profile.toml"),
            "P2PDIST_SIGN_REPOSITORY": str(directory / "signing"),
        }
        self._programs: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> LabFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self._programs:
            program.kill()
        for program in self._programs:
            program.wait()

    def run(self, host: Host, *words: str | Path) -> str:
        """Run a command on a host to its end; return what it printed."""
        program, *rest = map(str, words)
        done = subprocess.run(
            host.command(str(BIN / program), *rest),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{program} {' '.join(rest)}: {done.stderr}\n{self.tails()}"
        return done.stdout

    def ask(self, host: Host, *words: str) -> Any:
        """Run a command of ``p2pdist`` on a host, and return its JSON."""
        return json.loads(self.run(host, "p2pdist", *words, "--output", "json"))

    def start(self, name: str, host: Host, *words: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that runs until the end; its log is a file."""
        program, *rest = map(str, words)
        with (self.directory / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                host.command(str(BIN / program), *rest),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        self._programs.append(started)
        return started

    def logged(self, name: str) -> str:
        """Return a node's log."""
        return (self.directory / f"{name}.log").read_text()

    def tails(self) -> str:
        """Return the end of every log."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"{log.name}:\n" + "\n".join(log.read_text().splitlines()[-12:]) for log in logs)

    def until(self, done: Callable[[], bool], what: str) -> None:
        """Wait until *done*."""
        end = time.monotonic() + _READY_S
        while not done():
            assert time.monotonic() < end, f"{what}: not within {_READY_S:g} s\n{self.tails()}"
            time.sleep(0.1)

    # Steps -------------------------------------------------------------------------------------------

    def found(self) -> None:
        """Hold the ceremony, and start the admin server."""
        for key in ("alice", "online"):
            self._passphrase(key).touch(mode=0o600)
            self._passphrase(key).write_text(secrets.token_urlsafe(24))
        keys = ["alice", "online"]
        self._sign(
            "init", "--fleet", "lab", "--root", "alice", "--threshold", "1", "--kdf", "interactive", keys=keys
        )
        self._publish_locally()
        data, address = self.directory / "server", self.server.ipv4[0]
        self.run(
            self.server, "p2pdist-server", "init", "--data", data, "--fleet", "lab",
            "--root", self.directory / "publication" / "metadata" / "1.root.json",
            "--online-key", self.directory / "signing" / "keys" / "online.key",
            "--passphrase-file", self._passphrase("online"),
            "--address", f"{address}:7601", "--api", f"{address}:7600",
        )  # fmt: skip
        self.start("server", self.server, "p2pdist-server", "run", "--config", data / "server.toml")
        self.until(lambda: "server.ready" in self.logged("server"), "the admin server is ready")
        self.run(
            self.server, "p2pdist", "login", f"https://{address}:7600",
            "--token-file", data / "operator.token", "--ca", data / "ca.pem",
        )  # fmt: skip
        self.run(self.server, "p2pdist", "enrolment", "--to", self.directory / "bundle")
        for group in ("/points", GROUP):
            self.run(self.server, "p2pdist", "group", "add", group)
            self.run(
                self.server, "p2pdist", "token", "add", group, "--uses", "50", "--to", self._token(group)
            )

    def add(self, nodes: Mapping[str, Host], gateway: Host) -> None:
        """Enrol and start a gateway for everybody, and devices by their names; wait until it carries them."""
        point = self._enrol("gateway", gateway, "/points", {"point": {"host": gateway.ipv4[0]}})
        self._sign(
            "grant", point, "--scope", GROUP, "--address", f"{gateway.ipv4[0]}:7601",
            "--duty", "seed", "--duty", "gateway",
        )  # fmt: skip
        self._publish_locally()
        self.run(self.server, "p2pdist", "publish", self.directory / "publication")
        self._start_node("gateway", gateway)
        for name, host in nodes.items():
            self._enrol(name, host, GROUP, {})
            self._start_node(name, host)
        self.until(lambda: self._carried(point) >= set(nodes), "the gateway carries all devices")

    def _carried(self, point: str) -> set[str]:
        listed = self.ask(self.server, "device", "list")["devices"]
        return {each["name"] for each in listed if each["via"] == point and each["state"] == "online"}

    def _start_node(self, name: str, host: Host) -> None:
        program = "p2pdist-seed" if name == "gateway" else "p2pdist-agent"
        self.start(name, host, program, "run", "--config", self.directory / name / "node.toml")

    def _enrol(self, name: str, host: Host, group: str, tables: Mapping[str, Mapping[str, object]]) -> str:
        home = self.directory / name
        (home / "root").mkdir(parents=True)
        own = {
            "node": {"data": str(home / "data"), "name": name},
            "install": {"root": str(home / "root")},
            "log": {"level": "info", "json": True},
        }
        (home / "node.toml").write_text(_toml({**own, **tables}))
        said = self.run(
            host, "p2pdist-seed" if group == "/points" else "p2pdist-agent", "enrol",
            "--bundle", self.directory / "bundle", "--token-file", self._token(group),
            "--data", home / "data", "--name", name, "--machine", name,
        )  # fmt: skip
        return said.split()[0]

    def _sign(self, *words: str | Path, keys: Sequence[str] = ()) -> None:
        files = [word for key in keys for word in ("--passphrase-file", f"{key}={self._passphrase(key)}")]
        self.run(self.server, "p2pdist-sign", *words, *files)

    def _publish_locally(self) -> None:
        self._sign("sign", "--key", "alice", "--yes", keys=["alice"])
        self._sign("publish", self.directory / "publication", keys=["online"])

    def _passphrase(self, key: str) -> Path:
        return self.directory / f"{key}.passphrase"

    def _token(self, group: str) -> Path:
        return self.directory / f"token{group.replace('/', '-')}"


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
