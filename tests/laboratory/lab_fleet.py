"""A fleet of the real programs in a laboratory's network, set up by commands as the operator's guide says.

The admin server stands on one host, with its operator; a test puts points and devices on others. They are
configured by the files of ``seeds`` as they stand there, and each logs into a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from founding import API_PORT, LINK_PORT, Founding
from laboratory.network import Host
from matrix.programs import Console, Log, Programs

SEEDS = Path(__file__).parents[2] / "seeds"
POINTS = "/points"
"""Every distribution point stands in this group."""
BYTES_TOLD = 0.9
"""A device that has told where so much of an artifact came from has told everything but its last blocks."""
_PATIENCE_S = 60.0
_LOOK_EVERY_S = 0.1
_ASK_EVERY_S = 0.25
"""The same where each look is a question to the admin server."""

Sources = dict[str, dict[str, Any]]
"""What a device says of each source of an artifact, by the source's name."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is published: a file, which devices install below ``/opt``."""

    product: str
    version: str
    content: bytes

    @property
    def name(self) -> str:
        """What commands call it."""
        return f"{self.product}@{self.version}"


@dataclass(frozen=True, slots=True)
class _Started:
    """What it takes to start a program again."""

    host: Host
    words: tuple[str | Path, ...]
    settings: Mapping[str, str]
    ready: str


class LabFleet:
    """The fleet's files, commands and programs; a context manager that ends the programs.

    Attributes:
        founding: How fleets are founded; the test run sets it.
        nodes: The ids of the nodes by name, as they are enrolled.
        environment: That of every command: with it anything on any host is the operator's.
        console: The admin server's API, for orders and questions that a test is not about.
    """

    founding: ClassVar[Founding]
    console: Console

    def __init__(self, directory: Path, server: Host) -> None:
        self.directory = directory
        self.host = server
        self.nodes: dict[str, str] = {}
        self._programs = Programs(directory)
        self.environment = self._programs.environment
        self._started: dict[str, _Started] = {}
        self._operator = directory / "operator"
        self._publication = self._operator / "publication"

    def __enter__(self) -> LabFleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._programs.__exit__(kind, error, trace)
        if error is not None:
            for name in self._started:
                print(f"--- {name}\n{self.log(name).tail()}")

    # The operator ------------------------------------------------------------------------------------

    def command(self, host: Host, *words: str | Path) -> str:
        """Run a command on a host to its end, and return what it printed."""
        return self._programs.run(host, *words)

    def operate(self, *words: str | Path) -> str:
        """Run a command of the operator, beside the admin server."""
        return self.command(self.host, *words)

    def ask(self, *words: str | Path, at: Host | None = None) -> Any:
        """Ask ``p2pdist`` something, elsewhere if it is said where; return the answer's JSON."""
        return json.loads(self.command(at or self.host, "p2pdist", *words, "--output", "json"))

    def found(self, *addresses: str, **settings: str) -> None:
        """Found the fleet, and start the admin server, at its first IPv4 address by default.

        *settings* are variables of its environment that change its configuration.
        """
        data, address = self.directory / "server", self.host.ipv4[0]
        self.founding.copy(self.host, self.directory)
        if addresses:
            port = addresses[0].rpartition(":")[2]
            settings |= {"P2PDIST_LINK_ADDRESSES": json.dumps(addresses), "P2PDIST_LINK_PORT": port}
            self.bundle().unlink()  # it has the usual address
        words = ("p2pdist-server", "run", "--config", data / "server.toml")
        self._start("server", _Started(self.host, words, settings, "server.ready"))
        token, ca = data / "operator.token", data / "ca.pem"
        self.console = Console(self._programs, self.host, f"https://{address}:{API_PORT}", token=token, ca=ca)

    def grant(
        self, name: str, host: Host, scope: str, *more: str, duties: Sequence[str] = ("seed", "gateway")
    ) -> None:
        """Sign the grant of a distribution point that is enrolled; it counts when it is published."""
        named = [word for duty in duties for word in ("--duty", duty)]
        address = f"{host.ipv4[0]}:{LINK_PORT}"
        self.sign("grant", self.nodes[name], "--scope", scope, *named, "--address", address, *more)

    def publish(self, *words: str) -> None:
        """Sign what is to be signed, and publish it."""
        self.sign("sign", "--key", "alice", "--yes", keys=("alice",))
        self.sign("publish", self._publication, keys=("online",))
        self.operate("p2pdist", "publish", self._publication, *words)

    def add(
        self, content: bytes, *, product: str = "app", version: str = "1", how: Sequence[str] = ()
    ) -> Release:
        """Add a release to what is to be signed; *how* is said of its installation, by default a file's."""
        package = self.directory / f"{product}-{version}"
        package.write_bytes(content)
        named = ("--product", product, "--version", version)
        self.sign("add", "stable", package, *named, *(how or ("--to", f"/opt/{product}")))
        return Release(product, version, content)

    def release(
        self, content: bytes, *, product: str = "app", version: str = "1", how: Sequence[str] = ()
    ) -> Release:
        """Sign and publish a release, as :meth:`add` makes it."""
        added = self.add(content, product=product, version=version, how=how)
        self.publish()
        return added

    def deploy(self, release: Release, group: str = "/") -> None:
        """Order a release onto a group."""
        self.console.post("/deployments", target=release.name, group=group)

    # Nodes -------------------------------------------------------------------------------------------

    def bundle(self, *addresses: str) -> Path:
        """Return the enrolment bundle, with other addresses than the admin server's if any are given."""
        path = self._operator / "-".join(("bundle", *addresses))
        if not path.exists():
            named = [word for address in addresses for word in ("--address", address)]
            self.operate("p2pdist", "enrolment", "--to", path, *named)
        return path

    def token(self, group: str) -> Path:
        """Return a token for a group; make the group before."""
        path = self._operator / f"token{group.replace('/', '-')}"
        if not path.exists():
            self.add_group(group)
            path.touch(mode=0o600)
            path.write_text(self.console.post("/tokens", group=group, uses=50)["token"])
        return path

    def add_group(self, group: str) -> None:
        """Make a group."""
        self.console.post("/groups", path=group)

    def enrol(self, name: str, host: Host, group: str, *addresses: str) -> None:
        """Make a node a member, a distribution point in :data:`POINTS`; addresses as of :meth:`bundle`."""
        self.nodes[name] = self.command(
            host, "p2pdist-seed" if group == POINTS else "p2pdist-agent", "enrol",
            "--bundle", self.bundle(*addresses), "--token-file", self.token(group),
            "--data", self.data(name), "--name", name, "--machine", name,
        ).split()[0]  # fmt: skip

    def start(self, name: str, host: Host, template: str, *, more: str = "", **settings: str) -> None:
        """Start a node with a configuration file of ``seeds``, as it stands there, in its own directory.

        *more* is written below it. *settings* are variables of its environment that change its configuration.
        """
        (self.directory / name / "root").mkdir(parents=True, exist_ok=True)
        own = {
            "P2PDIST_NODE_DATA": str(self.data(name)),
            "P2PDIST_NODE_NAME": name,
            "P2PDIST_INSTALL_ROOT": str(self.directory / name / "root"),
        }
        program = "seed" if template.startswith("points/") else "agent"
        config = SEEDS / template
        if more:
            config = self.directory / name / "config.toml"
            config.write_text((SEEDS / template).read_text() + more)
        words = (f"p2pdist-{program}", "run", "--config", config)
        self._start(name, _Started(host, words, {**own, **settings}, f"{program}.running"))

    def restart(self, name: str) -> None:
        """Kill a program, and start it again."""
        self._programs.kill(name)
        self._start(name, self._started[name])

    def data(self, name: str) -> Path:
        """Return the directory of a node's program."""
        return self.directory / name / "data"

    def log(self, name: str) -> Log:
        """Return what a program has logged."""
        return Log(self.directory / f"{name}.log")

    def logged(self, name: str, event: str) -> list[Mapping[str, Any]]:
        """Return what a program has logged of an event, oldest first."""
        return [fields for _, fields in self.log(name).events(event)]

    # What they say -----------------------------------------------------------------------------------

    def states(self) -> dict[str, tuple[str, str]]:
        """Return the state of each node, and by whom it is carried, by name."""
        devices = self.console.get("/devices")["devices"]
        return {device["name"]: (device["state"], device["via"]) for device in devices}

    def explain(self, name: str, release: Release) -> Any:
        """Return where a device gets a release from, and how far it is."""
        return self.console.get("/explain", device=name, target=release.name)

    def sources(self, name: str, release: Release) -> Sources:
        """Return what a device says of the sources of a release."""
        return {source["name"]: source for source in self.explain(name, release)["sources"]}

    def task(self, task: str) -> Any:
        """Return how the newest run of a task goes; the task itself before the first."""
        known = self.console.get(f"/tasks/{task}")
        return self.console.get(f"/tasks/{task}/runs/{known['run']}", items="100") if known["run"] else known

    def inventory(self) -> Any:
        """Return the devices that were discovered."""
        return self.console.get("/inventory")["devices"]

    def has_installed(self, name: str, release: Release) -> bool:
        """Whether a device has a release's content in its place."""
        place = self.directory / name / "root" / "opt" / release.product
        return place.exists() and place.read_bytes() == release.content

    def linked_to(self, name: str) -> str:
        """Return the kind of neighbour that a node's link leads to; empty while it has none."""
        log = self.log(name)
        ends = [(at, str(fields["kind"])) for at, fields in log.events("link.up")]
        ends += [(at, "") for at, _ in log.events("link.down")]
        return max(ends, key=lambda end: end[0])[1] if ends else ""

    # Waiting -----------------------------------------------------------------------------------------

    def until(self, condition: Callable[[], object], what: str, *, every_s: float = _LOOK_EVERY_S) -> None:
        """Wait until *condition* holds."""
        self._programs.until(condition, what, patience_s=_PATIENCE_S, every_s=every_s)

    def until_asked(self, condition: Callable[[], object], what: str) -> None:
        """The same for a condition that asks the admin server."""
        self.until(condition, what, every_s=_ASK_EVERY_S)

    def until_linked(self, name: str, kind: str) -> None:
        """Wait until a node's link leads to the admin server, or to a point."""
        self.until(lambda: self.linked_to(name) == kind, f"{name} is linked to a {kind}")

    def until_carried(self, *names: str, by: str) -> None:
        """Wait until the admin server reaches nodes through a point."""
        carried = ("online", self.nodes[by])

        def reached() -> bool:
            states = self.states()
            return all(states[name] == carried for name in names)

        self.until_asked(reached, f"{by} carries {', '.join(names)}")

    def until_installed(self, release: Release, *names: str) -> None:
        """Wait until devices have a release's content in its place."""
        for name in names:
            self.until(lambda name=name: self.has_installed(name, release), f"{name} has {release.name}")

    def until_reported(self, release: Release, *names: str) -> None:
        """Wait until the admin server knows that devices have installed a release."""
        for name in names:
            self.until_asked(
                lambda name=name: self.explain(name, release)["stage"] == "installed",
                f"{name} reports {release.name}",
            )

    def until_told(self, release: Release, *names: str) -> dict[str, Sources]:
        """Wait until devices have told where all of a release came from; return what each says of it."""
        found: dict[str, Sources] = {}

        def told(name: str) -> bool:
            found[name] = self.sources(name, release)
            received = sum(source["received"] for source in found[name].values())
            return bool(received >= BYTES_TOLD * len(release.content))

        for name in names:
            self.until_asked(lambda name=name: told(name), f"{name} tells its sources")
        return found

    # Parts -------------------------------------------------------------------------------------------

    def _start(self, name: str, started: _Started) -> None:
        self._started[name] = started
        log = self.log(name)
        mark = log.mark() if log.path.exists() else 0
        settings = {**started.settings, "P2PDIST_LOG_JSON": "true"}
        self._programs.start(name, started.host, *started.words, environment=settings)
        self.until(lambda: any(log.events(started.ready, mark)), f"{name} is ready")

    def sign(self, *words: str | Path, keys: tuple[str, ...] = ()) -> None:
        """Run a command of the signing tool, with the passphrases of these keys."""
        files = [word for key in keys for word in ("--passphrase-file", f"{key}={self._passphrase(key)}")]
        self.operate("p2pdist-sign", *words, *files)

    def _passphrase(self, key: str) -> Path:
        return self._operator / f"passphrase-{key}"
