"""A whole fleet for a test: admin server, distribution points, devices, and what the owner signs.

A fleet comes in two forms behind one interface. As *tasks* (:mod:`fleet_programs`) every node runs in
this process: fast, and used unless a node must die without a word. As *processes*
(:mod:`fleet_processes`) they are the real programs, and can be killed. Either way each node has its own
loopback address, its own directory, and real sockets; and starting a node again opens the same directory.

Nothing here sleeps for a time: tests wait for conditions (:meth:`Fleet.until`), under a deadline.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import trio
from fleet_addresses import AddressRange, free_port
from fleet_logs import LogBook
from fleet_programs import (
    DEVICES,
    POINTS,
    AgentTask,
    Program,
    SeedTask,
    ServerOptions,
    ServerProgram,
    ServerTask,
)
from fleet_signing import FLEET, PLACE, RELEASE_BYTES, SignedRelease, SigningDesk

from p2pdist.agent.agent import Agent
from p2pdist.ids import GroupPath, NodeId
from p2pdist.node.config import (
    AgentConfig,
    InstallTable,
    LinkTable,
    NodeTable,
    PointTable,
    RestingTable,
    SeedConfig,
    SessionsTable,
    SwarmTable,
)
from p2pdist.node.enrol import enrol
from p2pdist.server.serverhome import ServerHome
from p2pdist.store import content, deployments, devices, incidents
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import DeviceDeploymentRecord, DeviceRecord, RefusalRecord
from p2pdist.trust.enrolment import EnrolmentBundle

PATIENCE_S = 40.0
_LOOK_EVERY_S = 0.02

GROUP = GroupPath("/emea/berlin")


class Node:
    """A device or a distribution point: who it is, where it is, and its program.

    Attributes:
        program: What runs on its directory. A test may put another one in its place.
        address: ``host:port`` of a distribution point's links; empty for a device.
    """

    def __init__(self, name: str, node: NodeId, host: str, config: AgentConfig, program: Program) -> None:
        self.name = name
        self.node = node
        self.host = host
        self.config = config
        self.program = program
        self.address = f"{host}:{config.point.port}" if isinstance(config, SeedConfig) else ""

    @property
    def agent(self) -> Agent:
        """What runs; only where programs are tasks of this process."""
        assert isinstance(self.program, AgentTask | SeedTask)
        return self.program.agent

    @property
    def home(self) -> Path:
        """Its directory."""
        return self.config.node.data

    def held_bytes(self, release: SignedRelease) -> int:
        """How many bytes of a release's artifact its disk holds, roughly; holes do not count."""
        path = self.home / "artifacts" / release.info_hash
        return path.stat().st_blocks * 512 if path.exists() else 0

    def has_artifact(self, release: SignedRelease) -> bool:
        """Whether its disk holds a release's artifact, whole and right."""
        path = self.home / "artifacts" / release.info_hash
        return path.exists() and path.read_bytes() == release.content

    def installed(self, place: str = PLACE) -> bytes | None:
        """What stands in its root at *place*; None if nothing does."""
        path = self.config.install.root / place.lstrip("/")
        return path.read_bytes() if path.exists() else None


class Form(Protocol):
    """How the programs of a fleet run."""

    def server(
        self, home: ServerHome, store_url: str, host: str, port: int, options: ServerOptions
    ) -> ServerProgram:
        """The admin server."""

    def point(self, who: str, config: SeedConfig) -> Program:
        """A distribution point."""

    def device(self, who: str, config: AgentConfig) -> Program:
        """A device."""


class Tasks:
    """Every program is a task of this process."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def server(
        self, home: ServerHome, store_url: str, host: str, port: int, options: ServerOptions
    ) -> ServerProgram:
        """The admin server."""
        return ServerTask(self._nursery, home, store_url, host, port, options)

    def point(self, who: str, config: SeedConfig) -> Program:
        """A distribution point."""
        return SeedTask(self._nursery, who, config)

    def device(self, who: str, config: AgentConfig) -> Program:
        """A device."""
        return AgentTask(self._nursery, who, config)


class Fleet:
    """One fleet. Made by :func:`open_fleet`."""

    def __init__(
        self, directory: Path, form: Form, addresses: AddressRange, log: LogBook, options: ServerOptions
    ) -> None:
        self.directory = directory
        self.log = log
        self.signing = SigningDesk(directory)
        self.points: list[Node] = []
        self.devices: list[Node] = []
        self.addresses = addresses
        self.tunnel_ports: list[int] = []
        self._form = form
        self._hosts = iter(range(2, 250))
        host = addresses.host(1)
        port = free_port(host)
        data = directory / "server"
        root = self.signing.workshop.roots[0]
        self.server_home = ServerHome.create(data, FLEET, root, datetime.now(UTC))
        store_url = f"sqlite:///{data / 'fleet.db'}"
        self.options = options
        self.server = form.server(self.server_home, store_url, host, port, self.options)
        self.store = FleetStore.open(store_url)
        self.bundle = EnrolmentBundle(
            fleet=FLEET,
            ca_pem=self.server_home.authority.certificate_pem,
            root=root,
            server_node=self.server_home.key.node,
            server_public=self.server_home.key.public,
            addresses=(f"{host}:{port}",),
        )

    @property
    def nodes(self) -> list[Node]:
        """Points and devices."""
        return [*self.points, *self.devices]

    # Making nodes ----------------------------------------------------------------------------------

    async def add_point(
        self,
        *,
        scope: str = "/emea",
        duties: Sequence[str] = ("seed",),
        start: bool = True,
        dialled: bool = False,
    ) -> Node:
        """Enrol a distribution point and sign its grant (the next publication carries it)."""
        name = f"point{len(self.points)}"
        host = self.next_host()
        base = self._agent_config(name, host)
        config = SeedConfig(
            node=base.node,
            link=base.link,
            swarm=base.swarm,
            install=base.install,
            point=PointTable(host=host, port=free_port(host), dialled=dialled),
        )
        node = await self._enrolled(name, host, config, self._form.point(name, config), POINTS)
        self.signing.grant(node.node, [node.address], scope=scope, duties=list(duties), dialled=dialled)
        self.points.append(node)
        if start:
            await node.program.start()
        return node

    async def add_device(
        self, *, group: GroupPath = GROUP, start: bool = True, resting: RestingTable | None = None
    ) -> Node:
        """Enrol a device; one that rests listens for wakes at its own address."""
        name = f"device{len(self.devices)}"
        host = self.next_host()
        config = self._agent_config(name, host)
        if resting is not None:
            listening = msgspec.structs.replace(resting, host=host, port=0)
            config = msgspec.structs.replace(config, resting=listening)
        node = await self._enrolled(name, host, config, self._form.device(name, config), group)
        self.devices.append(node)
        if start:
            await node.program.start()
        return node

    def next_host(self) -> str:
        """Return an address that no node of this fleet has."""
        return self.addresses.host(next(self._hosts))

    # What the operator does ------------------------------------------------------------------------

    async def publish(self) -> None:
        """Publish everything that is signed."""
        await self.server.publish(self.signing.publication())

    async def release(
        self,
        version: str = "1.0",
        *,
        sequence: int = 1,
        group: GroupPath = DEVICES,
        size: int = RELEASE_BYTES,
    ) -> SignedRelease:
        """Sign, publish and deploy a release to every device below *group*."""
        release = self.signing.release(version, sequence=sequence, size=size)
        await self.publish()
        await self.server.deploy(release.target, group)
        return release

    # What the admin server has stored --------------------------------------------------------------

    async def progress(self, release: SignedRelease) -> dict[str, DeviceDeploymentRecord]:
        """Return how far each node is with the newest deployment of a release, by name."""
        found = await self.store.read(deployments.list_deployments)
        ids = [record.id for record in found if record.target == release.target]
        if not ids:
            return {}
        names = {node.node: node.name for node in self.nodes}
        records = await self.store.read(deployments.deployment_devices, ids[0])
        return {names.get(record.node, record.node): record for record in records}

    async def refusals(self, *, who: Node | None = None, kind: str | None = None) -> list[RefusalRecord]:
        """Return the refusals that nodes have reported."""
        records = await self.store.read(incidents.list_refusals, rows_max=1_000)
        return [
            record
            for record in records
            if (who is None or record.node == who.node) and (kind is None or record.kind == kind)
        ]

    async def received(self, release: SignedRelease) -> Counter[tuple[str, str]]:
        """Return the content bytes that nodes say to have received, by receiver's and source's role."""
        summed = await self.store.read(content.bytes_by_source, release.info_hash)
        return Counter(
            {(receiver, role): n for receiver, roles in summed.items() for role, n in roles.items()}
        )

    async def device(self, node: Node) -> DeviceRecord:
        """Return what the admin server has stored of a node."""
        return await self.store.read(devices.require_device, node.node)

    def carrier(self, device: Node) -> Node | None:
        """Return the distribution point that carries a device, as the device's log has it."""
        lines = [line for line in self.log.find("link.up", who=device.name) if line["kind"] == "point"]
        return next((point for point in self.points if lines and point.node == lines[-1]["upstream"]), None)

    # Waiting ---------------------------------------------------------------------------------------

    async def until(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        patience_s: float = PATIENCE_S,
    ) -> Any:
        """Wait until *condition*, which may be asynchronous, holds; return what it returned.

        Fails with the end of the log.
        """
        with trio.move_on_after(patience_s):
            while True:
                answer = condition()
                found = await answer if inspect.isawaitable(answer) else answer
                if found:
                    return found
                await trio.sleep(_LOOK_EVERY_S)
        raise AssertionError(f"{what}: not within {patience_s:g} s. The log ends with:\n{self.log.tail()}")

    async def until_logged(self, event: str, *, who: Node | None = None, **fields: object) -> None:
        """Wait until a node has logged an event."""
        name = who.name if who is not None else None
        await self.until(lambda: self.log.find(event, who=name, **fields), f"{event} of {name or 'anybody'}")

    async def until_installed(self, release: SignedRelease, nodes: Iterable[Node] | None = None) -> None:
        """Wait until nodes (by default all devices) have a release's content in its place."""
        for node in list(self.devices if nodes is None else nodes):
            await self.until(partial(_has_installed, node, release), f"{node.name} installs {release.target}")

    async def until_reported(
        self, release: SignedRelease, stage: str = "installed", nodes: Iterable[Node] | None = None
    ) -> None:
        """Wait until the admin server has stored the reports of nodes (by default all devices)."""
        for node in list(self.devices if nodes is None else nodes):
            await self.until(
                partial(self._has_reported, node, release, stage),
                f"the report of {node.name} on {release.target}, {stage}",
            )

    async def until_linked(self, node: Node, kind: str) -> None:
        """Wait until the newest link of *node* that stands is to the admin server or to a point."""

        def linked() -> bool:
            lines = [
                line
                for line in self.log.lines
                if line.get("who") == node.name and line["event"] in ("link.up", "link.down", "test.started")
            ]
            return bool(lines) and lines[-1]["event"] == "link.up" and lines[-1]["kind"] == kind

        await self.until(linked, f"{node.name} is linked to a {kind}")

    async def _has_reported(self, node: Node, release: SignedRelease, stage: str) -> bool:
        found = (await self.progress(release)).get(node.name)
        return found is not None and found.stage == stage and found.report != ""

    # Making nodes, in parts ------------------------------------------------------------------------

    def _agent_config(self, name: str, host: str) -> AgentConfig:
        root = self.directory / name / "root"
        root.mkdir(parents=True)
        return AgentConfig(
            node=NodeTable(data=self.directory / name / "data", name=name),
            link=LinkTable(local_host=host),
            swarm=SwarmTable(host=host, port=0),
            install=InstallTable(root=root),
            sessions=SessionsTable(tunnel_ports=self.tunnel_ports),
        )

    async def _enrolled(
        self, name: str, host: str, config: AgentConfig, program: Program, group: GroupPath
    ) -> Node:
        token = await self.server.make_token(group)
        home = await enrol(
            config.node.data,
            self.bundle,
            token,
            name=name,
            machine=f"machine {name}",
            local_host=host,
        )
        return Node(name, home.node, host, config, program)


@asynccontextmanager
async def open_fleet(
    directory: Path,
    log: LogBook,
    *,
    points: int = 1,
    devices: int = 3,
    form: Callable[[trio.Nursery], Form] = Tasks,
    options: ServerOptions | None = None,
    tunnel_ports: Sequence[int] = (),
) -> AsyncIterator[Fleet]:
    """Found a fleet, start everything, and end it with the block.

    The devices stand in :data:`GROUP`, in the scope of every point, and are attached to one.
    """
    with AddressRange() as addresses:
        async with trio.open_nursery() as nursery:
            fleet = Fleet(directory, form(nursery), addresses, log, options or ServerOptions())
            fleet.tunnel_ports = list(tunnel_ports)
            async with running(fleet):
                for _ in range(points):
                    await fleet.add_point()
                await fleet.publish()
                for point in fleet.points:  # until it has its grant it carries nobody, and says so
                    await fleet.until_logged("metadata.verified", who=point, grants=points)
                for _ in range(devices):
                    await fleet.add_device()
                for device in fleet.devices:
                    await fleet.until_linked(device, "point" if points else "server")
                yield fleet
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[None]:
    """Start the admin server and make the groups; at the end, stop everything."""
    try:
        await fleet.server.start()
        for group in (GROUP, POINTS):
            await fleet.server.add_group(group)
        yield
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(20):
            await _stop_all(fleet)
        fleet.store.close()


async def _stop_all(fleet: Fleet) -> None:
    async with trio.open_nursery() as nursery:
        for program in [*(node.program for node in fleet.nodes), fleet.server]:
            nursery.start_soon(program.stop)


def _has_installed(node: Node, release: SignedRelease) -> bool:
    return node.installed() == release.content
