"""A fleet of the real programs in a laboratory's network, set up as the operator's guide says."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from laboratory.network import Host

BIN = Path(sys.executable).parent
SEEDS = Path(__file__).parents[2] / "seeds"
LINK_PORT, API_PORT = 7601, 7600
READY_S = 60.0
_LOOK_EVERY_S = 0.1
ASK_EVERY_S = 2.0
"""The same where each look is a command with an interpreter of its own."""


class Program:
    """A program that runs on a host; its log is a file."""

    def __init__(
        self, host: Host, words: list[str], log: Path, environment: Mapping[str, str], ready: str
    ) -> None:
        self._command = host.command(*words)
        self.log = log
        self._environment = environment
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
        until(lambda: self._ready in self.log.read_text()[offset:], f"{self.log.stem} is ready", self.tail)

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def tail(self) -> str:
        """Return the end of its log."""
        return "\n".join(self.log.read_text().splitlines()[-30:]) if self.log.exists() else ""


class LabFleet:
    """The admin server with its operator on one host, and nodes on others.

    Args:
        directory: Where everything is kept.
        server: The host of the admin server.
    """

    def __init__(self, directory: Path, server: Host) -> None:
        self.directory = directory
        self.host = server
        self.programs: dict[str, Program] = {}
        self.operator = directory / "operator"
        self.operator.mkdir(mode=0o700)
        self.publication = self.operator / "publication"
        self.environment = {
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "HOME": str(self.operator),
            "LANG": "C.UTF-8",
            "P2PDIST_PROFILE": str(self.operator / "profile.toml"),
            "P2PDIST_SIGN_REPOSITORY": str(self.operator / "signing"),
        }

    def __enter__(self) -> LabFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self.programs.values():
            program.kill()
        if error is not None:
            for name, program in self.programs.items():
                print(f"--- {name}\n{program.tail()}")

    # The operator ------------------------------------------------------------------------------------

    def command(self, host: Host, *words: str | Path) -> str:
        """Run a command on a host to its end, and return what it printed."""
        program, *rest = map(str, words)
        done = subprocess.run(
            host.command(str(BIN / program), *rest),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            timeout=READY_S,
        )
        assert not done.returncode, f"{program} {' '.join(rest)}: {done.stdout}{done.stderr}"
        return done.stdout

    def operate(self, *words: str | Path) -> str:
        """Run a command of the operator."""
        return self.command(self.host, *words)

    def ask(self, *words: str | Path) -> Any:
        """The same, for an answer in JSON."""
        return json.loads(self.operate(*words, "--output", "json"))

    def sign(self, *words: str | Path, keys: tuple[str, ...] = ()) -> None:
        """Run the signing tool with the passphrases of some keys."""
        files = [word for key in keys for word in ("--passphrase-file", f"{key}={self._passphrase(key)}")]
        self.operate("p2pdist-sign", *words, *files)

    def publish(self) -> None:
        """Sign what is to be signed, and publish it."""
        self._publish_locally()
        self.operate("p2pdist", "publish", self.publication)

    def found(self, *addresses: str, **settings: str) -> None:
        """Hold the ceremony, and found and start the admin server, at its first IPv4 address by default.

        *settings* are variables of its environment that change its configuration.
        """
        for key in ("alice", "online"):
            self._passphrase(key).touch(mode=0o600)
            self._passphrase(key).write_text(secrets.token_urlsafe(24))
        init = ("init", "--fleet", "lab", "--root", "alice", "--threshold", "1", "--kdf", "interactive")
        self.sign(*init, keys=("alice", "online"))
        self.sign("channel", "add", "stable", "--key", "alice")
        self._publish_locally()
        data, address = self.directory / "server", self.host.ipv4[0]
        linked = addresses or (f"{address}:{LINK_PORT}",)
        self.operate(
            "p2pdist-server", "init", "--data", data, "--fleet", "lab",
            "--root", self.publication / "metadata" / "1.root.json",
            "--online-key", self.operator / "signing" / "keys" / "online.key",
            "--passphrase-file", self._passphrase("online"),
            "--api", f"{address}:{API_PORT}", *(word for each in linked for word in ("--address", each)),
        )  # fmt: skip
        self._start("server", self.host, "p2pdist-server", data / "server.toml", settings, "server.ready")
        self.operate(
            "p2pdist", "login", f"https://{address}:{API_PORT}",
            "--token-file", data / "operator.token", "--ca", data / "ca.pem",
        )  # fmt: skip
        self.operate("p2pdist", "publish", self.publication)

    def token(self, group: str) -> Path:
        """Make a group, and a token for it."""
        self.operate("p2pdist", "group", "add", group)
        path = self.directory / f"token-{secrets.token_hex(4)}"
        self.operate("p2pdist", "token", "add", group, "--to", path)
        return path

    def bundle(self, *addresses: str) -> Path:
        """Get the enrolment bundle, with other addresses than the admin server's if any are given."""
        path = self.directory / f"bundle-{secrets.token_hex(4)}"
        named = [word for address in addresses for word in ("--address", address)]
        self.operate("p2pdist", "enrolment", "--to", path, *named)
        return path

    # Nodes -------------------------------------------------------------------------------------------

    def data(self, name: str) -> Path:
        """Return a node's directory."""
        return self.directory / name / "data"

    def root(self, name: str) -> Path:
        """Return where a node installs."""
        return self.directory / name / "root"

    def start_node(self, name: str, host: Host, template: str) -> Program:
        """Start a node with a configuration file of ``seeds``, as it stands there, in its own directory."""
        self.root(name).mkdir(parents=True, exist_ok=True)
        point = template.startswith("points/")
        settings = {
            "P2PDIST_NODE_DATA": str(self.data(name)),
            "P2PDIST_NODE_NAME": name,
            "P2PDIST_INSTALL_ROOT": str(self.root(name)),
            "P2PDIST_LOG_JSON": "true",
        }
        program = "p2pdist-seed" if point else "p2pdist-agent"
        ready = "seed.running" if point else "agent.running"
        return self._start(name, host, program, SEEDS / template, settings, ready)

    def states(self) -> dict[str, tuple[str, str]]:
        """Return the state of each node, and by whom it is carried, by name."""
        devices = self.ask("p2pdist", "device", "list")["devices"]
        return {device["name"]: (device["state"], device["via"]) for device in devices}

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait until *condition* holds."""
        until(condition, what, lambda: "")

    def until_asked(self, condition: Callable[[], Any], what: str) -> None:
        """The same for a condition that runs commands."""
        until(condition, what, lambda: "", ASK_EVERY_S)

    def attached(self, node: str) -> int:
        """How often the admin server has had a link with a node, as its log says."""
        lines = self.programs["server"].log.read_text().splitlines()
        return sum("link.attached" in line and f"node={node}" in line for line in lines)

    def _start(
        self, name: str, host: Host, program: str, config: Path, settings: Mapping[str, str], ready: str
    ) -> Program:
        words = [str(BIN / program), "run", "--config", str(config)]
        log = self.directory / f"{name}.log"
        self.programs[name] = Program(host, words, log, {**self.environment, **settings}, ready)
        self.programs[name].start()
        return self.programs[name]

    def _publish_locally(self) -> None:
        self.sign("sign", "--key", "alice", "--yes", keys=("alice",))
        self.sign("publish", self.publication, keys=("online",))

    def _passphrase(self, key: str) -> Path:
        return self.operator / f"passphrase-{key}"


def until(
    condition: Callable[[], Any], what: str, tail: Callable[[], str], every_s: float = _LOOK_EVERY_S
) -> None:
    """Wait until *condition* holds."""
    end = time.monotonic() + READY_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {READY_S:g} s\n{tail()}"
        time.sleep(every_s)
