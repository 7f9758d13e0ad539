"""The fleet of a matrix, by the commands that its owner would type."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from laboratory.network import Host

from matrix.grounds import Grounds, Stand
from matrix.programs import Console, Log, Programs

CONTROL_PORT = 443
"""Of the admin server's links and its API, and of every gateway: what the strictest firewall lets out to."""

_ORIGIN_PORT = 7602
_DOOR_PORT = 8443
_GATEWAY = "gateway"
_LAB = "/lab"
_ZONES = "/zones"
_AT_ONCE = 3
_PATIENCE_S = 180.0
_ASK_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A member of the fleet, by the name that it has for people.

    ``scope`` is whom it serves if it is a distribution point. ``carrier`` is the point of its scope, empty
    for one whose neighbour is the admin server. One that is ``dialled`` may dial nobody. One that is
    ``inside`` reaches nothing but its carrier.
    """

    name: str
    host: Host
    group: str
    scope: str = ""
    carrier: str = ""
    dialled: bool = False
    inside: bool = False

    @property
    def program(self) -> str:
        """What runs on its host."""
        return "p2pdist-seed" if self.scope else "p2pdist-agent"

    @property
    def address(self) -> str:
        """Where its devices dial it."""
        return f"{self.host.ipv4[0]}:{CONTROL_PORT}"


class Fleet:
    """A fleet that comes to life step by step.

    Attributes:
        nodes: Everybody, by name.
        ids: Their ids, as they are enrolled.
        logs: Their logs, as they are started.
        info_hashes: Those of the artifacts, by product, as they are published.
    """

    def __init__(self, programs: Programs, grounds: Grounds) -> None:
        self.programs = programs
        self.grounds = grounds
        self.nodes = {
            _GATEWAY: Node(name=_GATEWAY, host=grounds.gateway, group="/infrastructure", scope=_LAB),
            **{name: _node(name, stand) for name, stand in grounds.stands.items()},
        }
        self.ids: dict[str, str] = {}
        self.logs: dict[str, Log] = {}
        self.info_hashes: dict[str, str] = {}
        self.console: Console
        self._directory = programs.directory
        self._operator = self._directory / "operator"

    # Steps -------------------------------------------------------------------------------------------

    def found(self) -> None:
        """Hold the ceremony, found and start the admin server, enrol the distribution points."""
        self._operator.mkdir(mode=0o700)
        for key in ("alice", "online"):
            self._passphrase(key).touch(mode=0o600)
            self._passphrase(key).write_text(secrets.token_urlsafe(24))
        self._sign("init", "--fleet", "matrix", "--root", "alice", "--threshold", "1", "--kdf",
                   "interactive", keys=["alice", "online"])  # fmt: skip
        self._sign("channel", "add", "stable", "--key", "alice")
        self._publish_locally()
        # Two addresses, so that links and API both have the port that every firewall lets out to.
        link, api = (f"{address}:{CONTROL_PORT}" for address in self.grounds.server.ipv4)
        data = self._directory / "server"
        self._operate(
            "p2pdist-server", "init", "--data", data, "--fleet", "matrix",
            "--root", self._operator / "publication" / "metadata" / "1.root.json",
            "--online-key", self._operator / "signing" / "keys" / "online.key",
            "--passphrase-file", self._passphrase("online"),
            "--address", link, "--api", api, "--api-host", _host(api),
            "--origin-port", str(_ORIGIN_PORT),
        )  # fmt: skip
        listening = {"P2PDIST_LINK_HOST": _host(link), "P2PDIST_API_HOST": _host(api)}
        log = self.programs.start(
            "server", self.grounds.server, "p2pdist-server", "run", "--config", data / "server.toml",
            environment=listening,
        )  # fmt: skip
        self._until(lambda: "server.ready" in log.path.read_text(), "the admin server")
        token, ca = data / "operator.token", data / "ca.pem"
        self._operate("p2pdist", "login", f"https://{api}", "--token-file", token, "--ca", ca)
        self.console = Console(self.programs, self.grounds.server, f"https://{api}", token=token, ca=ca)
        self._enrol(self._points())

    def publish(self, artifacts: Mapping[str, Path]) -> None:
        """Sign and publish artifacts, by the product of which each is the first version, and the grants."""
        manifest = self._operator / "releases.toml"
        manifest.write_text("".join(_entry(product, path) for product, path in artifacts.items()))
        if artifacts:
            self._sign("add", "stable", "--manifest", manifest)
        for node in self._points():
            dialled = ["--dialled"] if node.dialled else []
            self._sign("grant", self.ids[node.name], "--scope", node.scope, "--duty", "seed",
                       "--duty", "gateway", "--address", node.address, *dialled)  # fmt: skip
        self._publish_locally()
        self._operate("p2pdist", "publish", self._operator / "publication")
        listed = self.console.get("/releases")["releases"]
        self.info_hashes = {release["product"]: release["info_hash"] for release in listed}

    def start_points(self) -> None:
        """Start the distribution points, once their grants are published."""
        self._start(self._points())

    def start_devices(self) -> None:
        """Enrol and start the others."""
        devices = [node for node in self.nodes.values() if not node.scope]
        self._enrol(devices)
        self._start(devices)

    def open_forward(self, zone: str) -> None:
        """Forward the API into a demilitarised zone, for an operator who sits there and may dial nobody.

        In there it has the address that it has everywhere.
        """
        inside, outside = self.nodes[zone].host, self.grounds.server
        api, door = f"{outside.ipv4[1]}:{CONTROL_PORT}", f"{inside.ipv4[0]}:{_DOOR_PORT}"
        inside.run("ip", "address", "add", f"{outside.ipv4[1]}/32", "dev", "lo")
        self.programs.start("forward-near", inside, "python", "-m", "matrix.forward", "near", api, door)
        self.programs.start("forward-far", outside, "python", "-m", "matrix.forward", "far", door, api)

    def deploy(self, product: str, group: str) -> None:
        """Order a release onto a group."""
        self.console.post("/deployments", target=f"{product}@1", group=group)

    def explain(self, name: str, product: str) -> dict[str, Any]:
        """Return where a node gets a release from, as ``p2pdist explain --output json`` says it."""
        answer: dict[str, Any] = self.console.get("/explain", device=self.ids[name], target=f"{product}@1")
        return answer

    # Parts of steps ----------------------------------------------------------------------------------

    def _points(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.scope]

    def _enrol(self, nodes: Sequence[Node]) -> None:
        for group in sorted({node.group for node in nodes}):
            self.console.post("/groups", path=group)
        for through in {node.carrier if node.inside else "" for node in nodes}:
            if not self._bundle(through).exists():
                named = ["--address", self.nodes[through].address] if through else []
                self._operate("p2pdist", "enrolment", "--to", self._bundle(through), *named)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            self.ids |= dict(pool.map(lambda node: (node.name, self._enrolled(node)), nodes))

    def _enrolled(self, node: Node) -> str:
        """Write a node's configuration, and make it a member; return its id."""
        home = self._directory / node.name
        (home / "root").mkdir(parents=True)
        tables: dict[str, dict[str, object]] = {
            "node": {"data": str(home / "data"), "name": node.name},
            "install": {"root": str(home / "root")},
            "log": {"level": "info", "json": True},
        }
        if node.scope:
            tables["point"] = {"host": node.host.ipv4[0], "port": CONTROL_PORT}
        if node.dialled:
            tables["point"]["dialled"] = True
        self._config(node).write_text(_toml(tables))
        token, bundle = home / "token", self._bundle(node.carrier if node.inside else "")
        token.touch(mode=0o600)
        token.write_text(self.console.post("/tokens", group=node.group)["token"])
        enrol = (node.program, "enrol", "--bundle", bundle, "--data", home / "data")
        asking = ("--token-file", token, "--name", node.name, "--machine", node.name)
        if not node.dialled:
            return self.programs.run(node.host, *enrol, *asking).split()[0]
        request, answer = home / "request", home / "answer"
        self.programs.run(node.host, *enrol, *asking, "--request", request)
        self._operate("p2pdist", "enrolment", "answer", request, "--to", answer)
        return self.programs.run(node.host, *enrol, "--answer", answer).split()[0]

    def _start(self, nodes: Sequence[Node]) -> None:
        """Start nodes; return when the admin server reaches each on its way."""
        for node in nodes:
            self.logs[node.name] = self.programs.start(
                node.name, node.host, node.program, "run", "--config", self._config(node)
            )
        self._until(lambda: not self._waiting(nodes), "every node online")

    def _waiting(self, nodes: Iterable[Node]) -> list[str]:
        listed = self.console.get("/devices")["devices"]
        via = {device["name"]: device["via"] for device in listed if device["state"] == "online"}
        return [node.name for node in nodes if via.get(node.name) != self.ids.get(node.carrier, "")]

    def _until(self, done: Callable[[], bool], what: str) -> None:
        self.programs.until(done, what, patience_s=_PATIENCE_S, every_s=_ASK_EVERY_S)

    def _sign(self, *words: str | Path, keys: Sequence[str] = ()) -> None:
        files = [word for key in keys for word in ("--passphrase-file", f"{key}={self._passphrase(key)}")]
        self._operate("p2pdist-sign", *words, *files)

    def _publish_locally(self) -> None:
        self._sign("sign", "--key", "alice", "--yes", keys=["alice"])
        self._sign("publish", self._operator / "publication", keys=["online"])

    def _operate(self, *words: str | Path) -> str:
        """Run a command of the operator, who sits beside the admin server."""
        return self.programs.run(self.grounds.server, *words)

    def _passphrase(self, key: str) -> Path:
        return self._operator / f"{key}.passphrase"

    def _bundle(self, through: str) -> Path:
        """The enrolment bundle for those who reach the admin server, or for those behind one gateway."""
        return self._operator / f"bundle-{through or 'all'}"

    def _config(self, node: Node) -> Path:
        return self._directory / node.name / "node.toml"


def _node(name: str, stand: Stand) -> Node:
    match stand.kind, stand.role:
        case "dmz", "left" | "right":
            group, scope = f"/infrastructure/{name}", f"{_ZONES}/{name}"
            return Node(name=name, host=stand.host, group=group, scope=scope, dialled=True)
        case "dmz", "beside":
            group = f"{_ZONES}/dmz-left/{name}"
            return Node(name=name, host=stand.host, group=group, carrier="dmz-left", inside=True)
        case _, "caller":
            group = f"{_ZONES}/dmz-right/{name}"
            return Node(name=name, host=stand.host, group=group, carrier="dmz-right")
        case _:
            return Node(name=name, host=stand.host, group=f"{_LAB}/{name}", carrier=_GATEWAY)


def _entry(product: str, path: Path) -> str:
    fields = {
        "path": str(path), "product": product, "version": "1", "sequence": 1, "install": "file",
        "to": f"/{product}",
    }  # fmt: skip
    return "[[release]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0]


def _toml(tables: Mapping[str, Mapping[str, object]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
