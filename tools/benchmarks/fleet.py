"""A real p2pdist fleet in the benchmark's network: every program as its users run it.

The admin server stands at the origin, a distribution point in each site, an agent on each device. Keys,
enrolment, publication and deployment go through the command lines. The clock starts with the order to
deploy: until then no node but the origin has a byte of the package.
"""

from __future__ import annotations

import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

from network import Host
from processes import Started
from running import Run

BIN = Path(sys.executable).parent
LINK_PORT, API_PORT, SWARM_PORT = 7601, 7600, 7602
PRODUCT = "package"
GROUP = "/sites"
ONLINE_S = 300.0
IDLE_S = 10.0
"""Within a minute after an installation an agent closes connections and gives freed memory back."""


class Fleet:
    """The fleet's files, commands and processes."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.operator = run.directory / "operator"
        self.server = run.directory / "server"
        self.node_ids: dict[str, str] = {}
        self.agents: dict[str, Started] = {}
        self._environment = {
            "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
            "HOME": str(self.operator),
            "LANG": "C.UTF-8",
            "P2PDIST_PROFILE": str(self.operator / "profile.toml"),
            "P2PDIST_SIGN_REPOSITORY": str(self.operator / "signing"),
        }

    def command(self, host: Host, *words: str | Path) -> str:
        """Run a command in a host to its end, and return what it printed."""
        program, *rest = map(str, words)
        done = subprocess.run(
            host.command(str(BIN / program), *rest),
            capture_output=True,
            text=True,
            check=False,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SystemExit(f"{program} {' '.join(rest)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def operate(self, *words: str | Path) -> str:
        """Run a command of the operator, who sits beside the admin server."""
        return self.command(self.run.network.origin, *words)

    def start(self, role: str, name: str, host: Host, *words: str | Path) -> Started:
        """Start a program that runs until the end; its log is a file beside its data."""
        program, *rest = map(str, words)
        with self.log(name).open("w") as log:
            return self.run.processes.start(
                role, host, str(BIN / program), *rest, log=log, environment=self._environment
            )

    def log(self, name: str) -> Path:
        """Return the log of a node."""
        return self.run.directory / f"{name}.log"

    # Steps -------------------------------------------------------------------------------------------

    def sign(self, *words: str | Path, keys: Sequence[str] = ()) -> None:
        """Run the signing tool with the passphrases of some keys."""
        files = [word for key in keys for word in ("--passphrase-file", f"{key}={self._passphrase(key)}")]
        self.operate("p2pdist-sign", *words, *files)

    def publish_locally(self) -> None:
        """Sign what is to be signed, and write the publication."""
        self.sign("sign", "--key", "alice", "--yes", keys=["alice"])
        self.sign("publish", self.operator / "publication", keys=["online"])

    def found(self) -> None:
        """Hold the ceremony, and found and start the admin server."""
        self.operator.mkdir(mode=0o700)
        for key in ("alice", "online"):
            self._passphrase(key).touch(mode=0o600)
            self._passphrase(key).write_text(secrets.token_urlsafe(24))
        self.sign(
            "init", "--fleet", "bench", "--root", "alice", "--threshold", "1", "--kdf", "interactive",
            keys=["alice", "online"],
        )  # fmt: skip
        self.sign("channel", "add", "stable", "--key", "alice")
        self.publish_locally()
        address = self.run.network.origin.address
        self.operate(
            "p2pdist-server", "init", "--data", self.server, "--fleet", "bench",
            "--root", self.operator / "publication" / "metadata" / "1.root.json",
            "--online-key", self.operator / "signing" / "keys" / "online.key",
            "--passphrase-file", self._passphrase("online"),
            "--address", f"{address}:{LINK_PORT}", "--api", f"{address}:{API_PORT}",
            "--origin-port", str(SWARM_PORT),
        )  # fmt: skip
        origin = self.run.network.origin
        self.start(
            "origin", "server", origin, "p2pdist-server", "run", "--config", self.server / "server.toml"
        )
        self._until(lambda: "server.ready" in self.log("server").read_text(), "the admin server")
        self.operate(
            "p2pdist", "login", f"https://{address}:{API_PORT}",
            "--token-file", self.server / "operator.token", "--ca", self.server / "ca.pem",
        )  # fmt: skip
        self.operate("p2pdist", "enrolment", "--to", self.operator / "bundle")

    def enrol(self) -> None:
        """Enrol every node, and grant each point its site."""
        sites = self.run.network.sites
        points = {f"site{site.number}-point": site.point for site in sites}
        groups = dict.fromkeys(points, "/points")
        groups |= {name: f"{GROUP}/{name.partition('-')[0]}" for name, _ in self.run.devices()}
        for group in sorted(set(groups.values())):
            count = sum(each == group for each in groups.values())
            self.operate("p2pdist", "group", "add", group)
            self.operate("p2pdist", "token", "add", group, "--uses", str(count), "--to", self._token(group))
        hosts = points | dict(self.run.devices())
        with ThreadPoolExecutor(4) as pool:
            for name, node in pool.map(lambda n: (n, self._enrol(n, hosts[n], groups[n])), hosts):
                self.node_ids[name] = node
        for site in sites:
            self.sign(
                "grant", self.node_ids[f"site{site.number}-point"], "--scope", f"{GROUP}/site{site.number}",
                "--address", f"{site.point.address}:{LINK_PORT}",
            )  # fmt: skip

    def release(self) -> None:
        """Sign the package and publish it."""
        self.sign(
            "add", "stable", self.run.package, "--product", PRODUCT, "--version", "1", "--to", "/package"
        )
        self.publish_locally()
        self.operate("p2pdist", "publish", self.operator / "publication")

    def start_nodes(self) -> None:
        """Start points, then devices; return when each is online, devices through their point."""
        for site in self.run.network.sites:
            self._start_node("point", f"site{site.number}-point", site.point)
        self._wait_online([f"site{site.number}-point" for site in self.run.network.sites])
        for name, host in self.run.devices():
            self.agents[name] = self._start_node("device", name, host)
        self._wait_online(list(self.node_ids))

    def _start_node(self, role: str, name: str, host: Host) -> Started:
        program = "p2pdist-seed" if role == "point" else "p2pdist-agent"
        return self.start(role, name, host, program, "run", "--config", self._home(name) / "node.toml")

    def _enrol(self, name: str, host: Host, group: str) -> str:
        home = self._home(name)
        (home / "root").mkdir(parents=True)
        point = group == "/points"
        tables: dict[str, dict[str, object]] = {
            "node": {"data": str(home / "data"), "name": name},
            "swarm": {"host": host.address, "port": SWARM_PORT},
            "install": {"root": str(home / "root")},
            "log": {"level": "info", "json": True},
        }
        if point:
            tables["point"] = {"host": host.address, "port": LINK_PORT}
        (home / "node.toml").write_text(_toml(tables))
        said = self.command(
            host, "p2pdist-seed" if point else "p2pdist-agent", "enrol", "--bundle", self.operator / "bundle",
            "--token-file", self._token(group), "--data", home / "data", "--name", name, "--machine", name,
        )  # fmt: skip
        return said.split()[0]

    def _wait_online(self, names: Sequence[str]) -> None:
        points = {name.partition("-")[0]: node for name, node in self.node_ids.items() if "-point" in name}

        def online() -> bool:
            listed = json.loads(self.operate("p2pdist", "device", "list", "--output", "json"))["devices"]
            via = {device["name"]: device["via"] for device in listed if device["state"] == "online"}
            return all(
                via.get(name) == ("" if name.endswith("-point") else points[name.partition("-")[0]])
                for name in names
            )

        self._until(online, "every node online", every_s=1.0)

    def _until(self, done: Callable[[], bool], what: str, *, every_s: float = 0.2) -> None:
        self.run.processes.wait_all(done, deadline_s=ONLINE_S, what=what, every_s=every_s)

    # Measuring ---------------------------------------------------------------------------------------

    def events(self, name: str, event: str) -> list[float]:
        """Return when a node logged an event, on the monotonic clock."""
        behind = time.time() - time.monotonic()
        found = []
        for line in self.log(name).read_text().splitlines():
            if f'"{event}"' in line:
                values = json.loads(line)
                if values.get("event") == event:
                    found.append(datetime.fromisoformat(values["timestamp"]).timestamp() - behind)
        return found

    def take_times(self, event: str, take: Callable[[str, float], object]) -> None:
        """Pass on the first time of an event of each device that has logged it."""
        for name in self.agents:
            times = self.events(name, event)
            if times:
                take(name, times[0])

    def idle(self) -> Mapping[str, float]:
        """Measure the agents for a while in which nothing happens."""
        before = {name: started.cpu_now() for name, started in self.agents.items()}
        watched_s = min(IDLE_S, self.run.settle_s)
        time.sleep(watched_s)
        used = [started.cpu_now() - before[name] for name, started in self.agents.items()]
        resident = [started.rss_now_mb() for started in self.agents.values()]
        return {
            "cpu_percent_median": round(100 * statistics.median(used) / watched_s, 2),
            "rss_mb_median": round(statistics.median(resident), 1),
            "rss_mb_max": round(max(resident), 1),
        }

    # Names -------------------------------------------------------------------------------------------

    def _passphrase(self, key: str) -> Path:
        return self.operator / f"{key}.passphrase"

    def _token(self, group: str) -> Path:
        return self.operator / f"token{group.replace('/', '-')}"

    def _home(self, name: str) -> Path:
        return self.run.directory / name


def p2pdist(run: Run) -> None:
    """(d) The admin server, a distribution point in each site, and the agents."""
    fleet = Fleet(run)
    fleet.found()
    fleet.enrol()
    fleet.release()
    fleet.start_nodes()
    run.notes["agent_idle_before"] = fleet.idle()
    run.go()
    fleet.operate("p2pdist", "deploy", f"{PRODUCT}@1", GROUP)
    installed: dict[str, float] = {}

    def done() -> bool:
        fleet.take_times("artifact.complete", run.finished.finished)
        return run.finished.complete()

    def all_installed() -> bool:
        fleet.take_times("release.installed", installed.setdefault)
        return len(installed) == len(fleet.agents)

    run.processes.wait_all(done, deadline_s=run.deadline_s, what="the last device", every_s=0.5)
    run.counted()
    run.processes.wait_all(
        all_installed, deadline_s=run.deadline_s, what="the last installation", every_s=0.5
    )
    run.notes["seconds_last_installed"] = run.seconds(max(installed.values()))
    for name, _ in run.devices():
        os.link(fleet._home(name) / "root" / "package", run.output(name))
    time.sleep(run.settle_s)
    run.notes["agent_idle_after"] = fleet.idle()


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
