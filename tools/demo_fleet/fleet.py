"""The operator's steps: ceremony, server, points, devices, publication, deployment."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import trio
from rich.console import Console

from demo_fleet.api import Api, open_api
from demo_fleet.payload import Package, manifest_entry
from demo_fleet.plan import (
    API_PORT,
    CHANNEL,
    DEVICES_GROUP,
    FLEET,
    LINK_PORT,
    POINTS_GROUP,
    SWARM_PORT,
    DemoError,
    Node,
    Plan,
    site_group,
)
from demo_fleet.programs import Programs
from demo_fleet.vendor import Vendor
from p2pdist.ids import NodeId
from p2pdist.swarm.tuning import device_port
from p2pdist.wire import api as wire

T = TypeVar("T")

PEOPLE = ("alice", "bob", "carol")
THRESHOLD = 2
DUTIES = ("seed", "gateway", "discovery", "deploy", "push")
"""Of a distribution point, where networks are."""

_ENROL_AT_ONCE = 4
_POLL_S = 0.3
_DOOR = Path(__file__).with_name("door.py")
_USURPER = Path(__file__).with_name("usurper.py")


@dataclass(slots=True, kw_only=True)
class Fleet:
    """A fleet that comes to life step by step. Made by :func:`open_fleet`.

    Attributes:
        packages: What the main part distributes.
        baits: A package that is altered on the server's disk, and one that is altered at a point.
        policy_old: A release that is offered again after ``policy_new``.
        further: What else is signed and published: what distribution points are to work with.
        vendor: Whose mirror the points may read, if there is one.
        node_ids: The ids of the nodes by name, as they are enrolled.
        releases: What is published, by product and sequence.
    """

    plan: Plan
    programs: Programs
    console: Console
    uplink_mbit: int
    patience_s: float
    packages: list[Package]
    baits: tuple[Package, Package]
    policy_old: Package
    policy_new: Package
    further: list[Package]
    vendor: Vendor | None
    stack: AsyncExitStack
    node_ids: dict[str, str] = field(default_factory=dict)
    releases: dict[tuple[str, int], wire.ReleaseInfo] = field(default_factory=dict)
    _api: Api | None = None

    @property
    def operator(self) -> Path:
        """Where the operator works: passphrases, the signing repository, the publication."""
        return self.plan.directory / "operator"

    @property
    def publication(self) -> Path:
        return self.operator / "publication"

    @property
    def api(self) -> Api:
        assert self._api is not None, "the server is not there yet"
        return self._api

    def release(self, package: Package) -> wire.ReleaseInfo:
        """Return what the server says of a published package."""
        return self.releases[package.product, package.sequence]

    def swarm_port(self, node: Node) -> int:
        """Return where a node's swarm listens: the default of its program, or what its configuration says."""
        own = node.role == "device" and not node.machine.shared
        return device_port(NodeId(self.node_ids[node.name])) if own else SWARM_PORT

    def named(self, text: str) -> str:
        """Write the nodes in *text* by their names."""
        for name, node in self.node_ids.items():
            text = text.replace(node, name)
        return text

    async def deploy(self, target: str, group: str = DEVICES_GROUP) -> str:
        """Order a release onto a group, by default onto every device; return the deployment's id."""
        self.programs.say(f"p2pdist deploy {target} {group}")
        return await self.api.deploy(target, group)

    async def stock(self, point: Node, target: str) -> Path:
        """Let a point fetch a release that no device wants yet; return its copy of the content.

        Raises:
            DemoError: it has not in time.
        """
        group = f"{site_group(point.site)}/to-come"
        await self._add_group(group)
        await self.deploy(target, group)
        with trio.move_on_after(self.patience_s):
            while True:
                explained = await self.api.get(
                    "/explain", wire.Explanation, device=self.node_ids[point.name], target=target
                )
                if explained.stage == "held":
                    return point.data / "artifacts" / explained.info_hash
                await trio.sleep(_POLL_S)
        raise DemoError(f"{point.name} has not fetched {target} after {self.patience_s:.0f} s")

    # Steps -------------------------------------------------------------------------------------------

    async def hold_ceremony(self) -> None:
        """Make the keys and the trust root, and sign them."""
        self.operator.mkdir(mode=0o700)
        for name in (*PEOPLE, "online"):
            self._passphrase(name).touch(mode=0o600)
            self._passphrase(name).write_text(secrets.token_urlsafe(24) + "\n")
        people = [word for name in PEOPLE for word in ("--root", name)]
        await self._sign_tool(
            "init", "--fleet", FLEET, *people, "--threshold", str(THRESHOLD), "--kdf", "interactive",
            passphrases=(*PEOPLE, "online"), aloud=True,
        )  # fmt: skip
        await self._sign_tool("channel", "add", CHANNEL, "--key", "alice", "--key", "bob", aloud=True)
        await self._sign(PEOPLE[:THRESHOLD])
        await self._publish_locally()

    async def found_server(self) -> None:
        """Make the admin server, start it, and let the command line know it."""
        await self.programs.run(
            "p2pdist-server", "init", "--data", self.plan.server, "--fleet", FLEET,
            "--root", self.publication / "metadata" / "1.root.json",
            "--online-key", self.operator / "repository" / "keys" / "online.key",
            "--passphrase-file", self._passphrase("online"),
            "--address", self.plan.link, "--api", f"{self.plan.server_host}:{API_PORT}",
            "--origin-port", str(SWARM_PORT), at=self.plan.network.server, aloud=True,
        )  # fmt: skip
        await self.start_server()
        token, ca = self.plan.server / "operator.token", self.plan.server / "ca.pem"
        await self.programs.run(
            "p2pdist", "login", self.plan.api, "--token-file", token, "--ca", ca, aloud=True
        )
        door = await self._open_door()
        self._api = await self.stack.enter_async_context(
            open_api(self.plan.api, ca=ca, token=token, door=door)
        )
        groups = [POINTS_GROUP, *(site_group(point.site) for point in self.plan.points)]
        for group in groups:
            await self._add_group(group)

    async def start_server(self, *, usurped: bool = False) -> None:
        """Start the admin server, or the program of somebody who has taken it over."""
        program: tuple[str | Path, ...] = ("python", "-P", _USURPER) if usurped else ("p2pdist-server",)
        running = await self.programs.start(
            "server",
            self.plan.network.server,
            *program,
            "run",
            "--config",
            self.plan.server / "server.toml",
            environment={"P2PDIST_ORIGIN_UP_BYTES_PER_S": str(self.uplink_mbit * 125_000)},
        )
        await self.programs.wait_logged(running, "server.ready")

    async def restart_server(self, *, usurped: bool) -> None:
        """End the admin server, start it or its usurper, and wait until everybody has found it again."""
        await self.programs.end("server")
        await self.start_server(usurped=usurped)
        await self._wait_online(self.plan.nodes)

    async def enrol(self, nodes: Sequence[Node]) -> None:
        """Enrol nodes with a token for each of their groups."""
        groups = sorted({node.group for node in nodes})

        async def add_token(group: str) -> None:
            uses = str(sum(node.group == group for node in nodes))
            words = ("token", "add", group, "--uses", uses, "--to", self._token(group))
            await self.programs.run("p2pdist", *words, aloud=True)

        await each(groups, add_token, at_once=_ENROL_AT_ONCE)
        for node in nodes:
            await self._make_bundle(node)
        await each(nodes, self._enrol, at_once=_ENROL_AT_ONCE)

    async def sign_releases(self) -> None:
        """Sign the packages and the grants, and publish them."""
        for point in self.plan.points:
            duties = [word for duty in DUTIES for word in ("--duty", duty)] if point.kind else ()
            dialled = ("--dialled",) if point.dialled else ()
            await self._sign_tool(
                "grant", self.node_ids[point.name], "--scope", site_group(point.site), *duties,
                "--address", f"{point.host}:{LINK_PORT}", *dialled, aloud=True,
            )  # fmt: skip
        await self.add_releases(
            [*self.packages, *self.baits, self.policy_old, self.policy_new, *self.further]
        )
        mirrored = ("--mirrored",) if self.vendor else ()
        await self.programs.run(
            "p2pdist", "publish", self.publication, *mirrored, aloud=True, patience_s=self.patience_s
        )
        listed = (await self.api.get("/releases", wire.ReleaseList)).releases
        self.releases = {(release.product, release.sequence): release for release in listed}

    async def add_releases(self, packages: Sequence[Package], people: int = THRESHOLD) -> None:
        """Let so many people sign packages and whatever else waits for it, and write the publication."""
        manifest = self.operator / "releases.toml"
        manifest.write_text("".join(map(manifest_entry, packages)))
        await self._sign_tool("add", CHANNEL, "--manifest", manifest, aloud=True)
        await self._sign(PEOPLE[:people])
        await self._publish_locally()

    async def start(self, nodes: Sequence[Node]) -> None:
        """Start nodes, and wait until the server sees them, devices through the point of their site."""
        for node in nodes:
            await self.programs.start(node.name, node.machine, node.program, "run", "--config", node.config)
        await self._wait_online(nodes)

    async def restart(self, nodes: Sequence[Node]) -> None:
        """End nodes, and start them again."""
        await each([node.name for node in nodes], self.programs.end, at_once=len(nodes))
        await self.start(nodes)

    async def _wait_online(self, nodes: Sequence[Node]) -> None:
        waiting: list[str] = []
        with trio.move_on_after(self.patience_s):
            while waiting := await self._not_ready(nodes):
                await trio.sleep(_POLL_S)
            return
        raise DemoError(
            f"not online after {self.patience_s:.0f} s: {', '.join(waiting)}; see {self.plan.logs}"
        )

    async def _not_ready(self, nodes: Sequence[Node]) -> list[str]:
        listed = (await self.api.get("/devices", wire.DeviceList)).devices
        seen = {device.name: device for device in listed if device.state == "online"}
        points = {point.site: self.node_ids[point.name] for point in self.plan.points}
        waiting = []
        for node in nodes:
            via = points[node.site] if node.role == "device" else ""
            if node.name not in seen or seen[node.name].via != via:
                waiting.append(node.name)
        return waiting

    # Parts of steps ----------------------------------------------------------------------------------

    async def _open_door(self) -> Path | None:
        """Make the operator's network reachable for this program, where it is another one than ours."""
        operator = self.plan.network.operator
        if not operator.enter:
            return None
        door = self.plan.directory / "door"
        running = await self.programs.start(
            "door", operator, "python", "-P", _DOOR, door, self.plan.server_host, str(API_PORT)
        )
        await self.programs.wait_logged(running, "door.ready")
        return door

    async def _add_group(self, group: str) -> None:
        self.programs.say(f"p2pdist group add {group}")
        await self.api.add_group(group)

    async def _enrol(self, node: Node) -> None:
        """Enrol a node: by a link, or by files where it may dial nobody."""
        node.write_config(self.vendor.ca if self.vendor else None)
        bundle, token = self._bundle(node), self._token(node.group)
        asks = ("--bundle", bundle, "--token-file", token, "--name", node.name, "--machine", node.name)
        if node.role == "point" and node.dialled:
            request, answer = (self.operator / f"{node.name}.{word}" for word in ("request", "answer"))
            said = await self._enrol_tool(node, *asks, "--request", request)
            await self.programs.run("p2pdist", "enrolment", "answer", request, "--to", answer, aloud=True)
            await self._enrol_tool(node, "--bundle", bundle, "--answer", answer)
        else:
            local_host = ("--local-host", node.host) if node.machine.shared else ()
            said = await self._enrol_tool(node, *asks, *local_host)
        self.node_ids[node.name] = said.split()[0]

    async def _enrol_tool(self, node: Node, *arguments: str | Path) -> str:
        return await self.programs.run(
            node.program, "enrol", *arguments, "--data", node.data, at=node.machine
        )

    async def _make_bundle(self, node: Node) -> None:
        """Get an enrolment bundle with addresses that a node can reach: the server's, or its gateway's."""
        gateway = self._only_way(node)
        addresses = ("--address", f"{gateway.host}:{LINK_PORT}") if gateway else ()
        bundle = self._bundle(node)
        if not bundle.exists():
            await self.programs.run("p2pdist", "enrolment", "--to", bundle, *addresses, aloud=True)

    def _bundle(self, node: Node) -> Path:
        gateway = self._only_way(node)
        return self.operator / f"{gateway.name if gateway else FLEET}.enrolment"

    def _only_way(self, node: Node) -> Node | None:
        """Return the gateway in a DMZ without which a device reaches nobody."""
        if node.role == "point":
            return None
        return next((point for point in self.plan.points if point.dialled and point.site == node.site), None)

    async def _sign(self, people: Sequence[str]) -> None:
        """Let people look and sign, each with their own passphrase."""
        for name in people:
            await self._sign_tool("sign", "--key", name, "--yes", passphrases=(name,), aloud=True)

    async def _publish_locally(self) -> None:
        await self._sign_tool("publish", self.publication, passphrases=("online",), aloud=True)

    async def _sign_tool(
        self, *arguments: str | Path, passphrases: Sequence[str] = (), aloud: bool = False
    ) -> None:
        files = [w for name in passphrases for w in ("--passphrase-file", f"{name}={self._passphrase(name)}")]
        await self.programs.run(
            "p2pdist-sign", *arguments, *files, "-C", self.operator / "repository",
            aloud=aloud, patience_s=self.patience_s,
        )  # fmt: skip

    def _passphrase(self, name: str) -> Path:
        return self.operator / f"{name}.passphrase"

    def _token(self, group: str) -> Path:
        return self.operator / f"token{group.replace('/', '-')}"


@asynccontextmanager
async def open_fleet(
    plan: Plan,
    programs: Programs,
    console: Console,
    *,
    uplink_mbit: int,
    patience_s: float,
    packages: list[Package],
    baits: tuple[Package, Package],
    policies: tuple[Package, Package],
    further: Sequence[Package] = (),
    vendor: Vendor | None = None,
) -> AsyncIterator[Fleet]:
    """Open a fleet of which nothing exists yet; leaving the block closes the connection to its server."""
    async with AsyncExitStack() as stack:
        yield Fleet(
            plan=plan,
            programs=programs,
            console=console,
            uplink_mbit=uplink_mbit,
            patience_s=patience_s,
            packages=packages,
            baits=baits,
            policy_old=policies[0],
            policy_new=policies[1],
            further=list(further),
            vendor=vendor,
            stack=stack,
        )


async def each(things: Sequence[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do some work on each of *things*, on so many at once."""
    limiter = trio.CapacityLimiter(at_once)

    async def one(thing: T) -> None:
        async with limiter:
            await work(thing)

    async with trio.open_nursery() as nursery:
        for thing in things:
            nursery.start_soon(one, thing)
