"""The fleet's programs as tasks of this process. Stopping one is a clean end; a kill needs a process."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
import structlog
import trio
from fleet_signing import Publication
from workshop import signer

from p2pdist.agent.agent import Agent, open_agent
from p2pdist.errors import P2PDistError
from p2pdist.files import write_atomic
from p2pdist.ids import GroupPath, InfoHash, NodeId, TargetPath
from p2pdist.node.config import AgentConfig, SeedConfig
from p2pdist.node.home import Home
from p2pdist.seed.seed import Seed, open_seed, serve_seed
from p2pdist.server.control.ports import PlaneSettings
from p2pdist.server.origin import OriginSettings
from p2pdist.server.serverhome import ServerHome
from p2pdist.server.service import Service, ServiceSettings, open_service
from p2pdist.store import deployments, devices, groups, tokens
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import EnrolmentTokenRecord
from p2pdist.wire.messages import RateLimits

DEVICES = GroupPath("/emea")
"""Every device of a test's fleet stands below this group."""
POINTS = GroupPath("/points")
"""Every distribution point stands in this group."""

Ready = Callable[[], None]


class Program(Protocol):
    """One program of the fleet, which can be started again and again."""

    @property
    def running(self) -> bool:
        """Whether it runs now."""

    @property
    def error(self) -> str:
        """Why it ended by itself the last time; empty if it did not."""

    async def start(self) -> None:
        """Start it, and wait until it is ready, or has ended by itself."""

    async def stop(self) -> None:
        """End it in an orderly way, and wait for that."""

    async def kill(self) -> None:
        """End it without giving it a chance to notice, as far as its form allows."""


class ServerProgram(Program, Protocol):
    """The admin server, and what an operator asks of it."""

    options: ServerOptions

    async def publish(self, publication: Publication) -> None:
        """Upload content, then publish. Raises what the server refuses it with."""

    async def upload(self, info_hash: InfoHash, data: bytes) -> None:
        """Upload an artifact's content again, to repair it."""

    async def add_group(self, group: GroupPath) -> None:
        """Make a group."""

    async def make_token(self, group: GroupPath, *, uses: int = 1, life_s: int = 3_600) -> str:
        """Make an enrolment token."""

    async def deploy(self, target: TargetPath, group: GroupPath) -> str:
        """Order a release onto a group; return the deployment's id."""

    async def stop_deployment(self, deployment: str) -> None:
        """Withdraw an order."""

    async def retry_deployment(self, deployment: str, nodes: Sequence[NodeId]) -> None:
        """Ask for another try on devices on which a deployment failed."""

    async def revoke(self, node: NodeId, reason: str) -> None:
        """Take a device out of the fleet."""


class ServerOptions(msgspec.Struct, kw_only=True):
    """What a test may change between two starts of the server."""

    certificate_life_s: int = 24 * 3_600
    timestamp_life_s: int = 24 * 3_600
    origin_up_bytes_per_s: int = 0
    device_down_bytes_per_s: int = 0
    """From the site; keeps a fetch going long enough to have something happen in the middle of it."""
    point_up_bytes_per_s: int = 0
    """To the site. Unlike the above, it leaves little on the way when the point stops."""


class TaskProgram:
    """Runs *main* in a nursery of the test. What it logs is put down to *who*."""

    def __init__(self, nursery: trio.Nursery, who: str, main: Callable[[Ready], Awaitable[None]]) -> None:
        self._nursery = nursery
        self._who = who
        self._main = main
        self._scope: trio.CancelScope | None = None
        self._ended = trio.Event()
        self._error = ""

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self._scope is not None

    @property
    def error(self) -> str:
        """Why it ended by itself the last time."""
        return self._error

    async def start(self) -> None:
        """Start it, and wait until it is ready, or has ended by itself."""
        assert self._scope is None, f"{self._who} runs already"
        self._scope, self._ended, self._error = trio.CancelScope(), trio.Event(), ""
        ready = trio.Event()
        self._nursery.start_soon(self._run, self._scope, ready)
        await ready.wait()

    async def stop(self) -> None:
        """End it, and wait for that."""
        if self._scope is not None:
            self._scope.cancel()
            await self._ended.wait()

    async def kill(self) -> None:
        """The same: a task cannot be killed."""
        await self.stop()

    async def _run(self, scope: trio.CancelScope, ready: trio.Event) -> None:
        structlog.contextvars.bind_contextvars(who=self._who)
        try:
            with scope:
                await self._main(ready.set)
        except P2PDistError as error:
            self._error = str(error)
        except BaseExceptionGroup as group:
            ours, others = group.split(P2PDistError)
            if others is not None:
                raise
            self._error = str(_first(ours))
        finally:
            self._scope = None
            self._ended.set()
            ready.set()


class AgentTask(TaskProgram):
    """An agent, as :func:`p2pdist.agent.agent.run_agent` runs it."""

    def __init__(self, nursery: trio.Nursery, who: str, config: AgentConfig) -> None:
        super().__init__(nursery, who, self._serve)
        self._config = config
        self.agent: Agent

    async def _serve(self, ready: Ready) -> None:
        home = await trio.to_thread.run_sync(Home.open, self._config.node.data)
        async with open_agent(Agent(), home, self._config) as agent, trio.open_nursery() as inner:
            self.agent = agent
            inner.start_soon(agent.deployer.run)
            inner.start_soon(agent.deltas.run)
            inner.start_soon(agent.member.run)
            if agent.resting is not None:
                inner.start_soon(agent.resting.run)
            ready()


class SeedTask(TaskProgram):
    """A seed node, as :func:`p2pdist.seed.seed.run_seed` runs it."""

    def __init__(self, nursery: trio.Nursery, who: str, config: SeedConfig) -> None:
        super().__init__(nursery, who, self._serve)
        self._config = config
        self.agent: Seed

    async def _serve(self, ready: Ready) -> None:
        home = await trio.to_thread.run_sync(Home.open, self._config.node.data)
        async with open_seed(home, self._config) as seed, trio.open_nursery() as inner:
            self.agent = seed
            await inner.start(serve_seed, seed, self._config)
            ready()


class ServerTask(TaskProgram):
    """The admin server without its HTTP API, asked directly."""

    def __init__(
        self,
        nursery: trio.Nursery,
        home: ServerHome,
        store_url: str,
        host: str,
        port: int,
        options: ServerOptions,
    ) -> None:
        super().__init__(nursery, "server", self._serve)
        self.options = options
        self._home = home
        self._store_url = store_url
        self._host = host
        self._port = port
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """The running server."""
        assert self._service is not None, "the server does not run"
        return self._service

    async def publish(self, publication: Publication) -> None:
        """Upload content, then publish."""
        for info_hash, data in publication.content.items():
            path = self._home.artifact(info_hash)
            if not path.exists() or path.read_bytes() != data:
                await trio.to_thread.run_sync(write_atomic, path, data)
        await self.service.publish(publication.metadata, publication.torrents)

    async def upload(self, info_hash: InfoHash, data: bytes) -> None:
        """Upload an artifact's content again, to repair it."""
        await trio.to_thread.run_sync(write_atomic, self._home.artifact(info_hash), data)
        await self.service.content_arrived(info_hash)

    async def announce(self, versions: Mapping[str, int]) -> None:
        """Tell the fleet that there is metadata of these versions, whatever there is."""
        assert self.service.catalog is not None
        await self.service.plane.catalog_changed(self.service.catalog, versions)

    async def add_group(self, group: GroupPath) -> None:
        """Make a group."""
        await self.service.store.write(groups.add_group, group, int(time.time()))

    async def make_token(self, group: GroupPath, *, uses: int = 1, life_s: int = 3_600) -> str:
        """Make an enrolment token; a negative life makes one that is late already."""
        token, now = secrets.token_urlsafe(24), int(time.time())
        record = EnrolmentTokenRecord(
            id=secrets.token_hex(6),
            group_path=group,
            uses=uses,
            uses_left=uses,
            expires=now + life_s,
            created=now,
            created_by="test",
            note="",
        )
        await self.service.store.write(tokens.add_enrolment_token, token, record)
        return token

    async def deploy(self, target: TargetPath, group: GroupPath) -> str:
        """Order a release onto a group."""
        record = await self.service.store.write(
            deployments.add_deployment, secrets.token_hex(6), target, group, "test", int(time.time())
        )
        await self.service.plane.orders_changed()
        return record.id

    async def stop_deployment(self, deployment: str) -> None:
        """Withdraw an order."""
        await self.service.store.write(deployments.stop_deployment, deployment, int(time.time()))
        await self.service.plane.orders_changed()

    async def retry_deployment(self, deployment: str, nodes: Sequence[NodeId]) -> None:
        """Ask for another try on devices on which a deployment failed."""
        await self.service.store.write(deployments.retry_deployment, deployment, nodes)
        await self.service.plane.orders_changed()

    async def revoke(self, node: NodeId, reason: str) -> None:
        """Take a device out of the fleet."""
        await self.service.store.write(devices.revoke_device, node, reason, int(time.time()))
        await self.service.plane.device_changed(node)

    async def _serve(self, ready: Ready) -> None:
        options = self.options
        settings = ServiceSettings(
            plane=PlaneSettings(
                host=self._host,
                port=self._port,
                certificate_life_s=options.certificate_life_s,
                rates={
                    DEVICES: RateLimits(site_down=options.device_down_bytes_per_s),
                    POINTS: RateLimits(site_up=options.point_up_bytes_per_s),
                },
            ),
            origin=OriginSettings(host=self._host, port=0, up_bytes_per_s=options.origin_up_bytes_per_s),
            timestamp_life_s=options.timestamp_life_s,
        )
        store = await trio.to_thread.run_sync(FleetStore.open, self._store_url)
        try:
            async with open_service(self._home, settings, store, signer("online")) as service:
                self._service = service
                async with trio.open_nursery() as inner:
                    await inner.start(service.run)
                    ready()
        finally:
            self._service = None
            store.close()


def _first(group: BaseExceptionGroup[P2PDistError] | None) -> P2PDistError:
    error: BaseException | None = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, P2PDistError)
    return error
