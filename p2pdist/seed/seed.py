"""A seed node: an agent that also carries and serves the devices of its scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from p2pdist.agent.agent import Agent, open_agent
from p2pdist.duties.journal import Journal
from p2pdist.duties.kinds import perform
from p2pdist.duties.runner import Runner
from p2pdist.ids import InfoHash
from p2pdist.logs import get_logger
from p2pdist.net.link import Link, OfferedStream
from p2pdist.net.mailbox import open_mailbox
from p2pdist.node.config import SeedConfig
from p2pdist.node.home import Home
from p2pdist.node.supervisor import notify_ready
from p2pdist.seed.callees import Callees
from p2pdist.seed.members import Members
from p2pdist.seed.post import GatewayPost
from p2pdist.seed.repository import StockRepository
from p2pdist.seed.stock import Situation, Stock
from p2pdist.seed.tasks import RunnerPorts
from p2pdist.seed.waking import PointWaker
from p2pdist.swarm.session import ArtifactFinished, StorageFailed, SwarmEvent
from p2pdist.trust.catalog import Catalog
from p2pdist.wire.frames import Announce, AnyFrame, ContentRefused
from p2pdist.wire.messages import DesiredState, SendWakes
from p2pdist.wire.paths import PathOpening
from p2pdist.wire.questions import TaskAnswer

_log = get_logger()


class Seed(Agent):
    """An agent's hooks, and what a distribution point adds to them."""

    def __init__(self) -> None:
        super().__init__()
        self.members: Members
        self.stock: Stock
        self.callees: Callees
        self.waker = PointWaker(lambda: self.members.grant("push"), lambda node: self.members.carries(node))
        self.runner: Runner

    async def linked(self) -> None:
        """A new uplink stands: tell it whom we carry."""
        await super().linked()
        await self.members.linked()
        self.runner.linked()

    def unlinked(self) -> None:
        """The gateways below should know that there is no way now."""
        self.members.unlinked()

    async def state_changed(self, desired: DesiredState, catalog: Catalog | None) -> None:
        """Bring the stock to what the scope needs now."""
        await super().state_changed(desired, catalog)
        await self.members.cut_revoked()
        await self.members.grants_changed()
        self.callees.look()
        self.stock.look()
        self.runner.assign(desired.assignments)

    async def received(self, ids: list[str]) -> None:
        """The admin server has stored these: reports and refusals, or what runs have said."""
        await super().received(ids)
        self.runner.confirmed(ids)

    async def wakes(self, message: SendWakes) -> None:
        """Wake devices on this point's network."""
        self.waker.take(message)

    def task_answer(self, message: TaskAnswer) -> None:
        """The answer to what a run has asked."""
        self.runner.answered(message)

    async def content_event(self, event: SwarmEvent) -> None:
        """What is complete is good, whatever was said against its sources; a disk that fails may be full."""
        await super().content_event(event)
        if isinstance(event, ArtifactFinished):
            self.members.accepted(event.info_hash)
        if isinstance(event, StorageFailed):
            self.stock.look()

    async def content_refused(self, frame: ContentRefused) -> None:
        """A source of ours serves bad bytes: the devices that wait for them should know why."""
        await super().content_refused(frame)
        self.members.refused(frame)

    async def passing_frame(self, frame: AnyFrame) -> None:
        """Pass on what is for the devices that this point carries."""
        await self.members.passing(frame)

    async def session_path(self, link: Link, opening: PathOpening, offered: OfferedStream) -> None:
        """A path of a session, with this point itself or with a device that it carries."""
        if opening.to == self.member.node:
            await super().session_path(link, opening, offered)
        else:
            with self.member.reception.visitors.one():
                await self.members.session_path(opening, offered)

    def announced(self, announce: Announce) -> None:
        """The devices of this point hear at once what it has to offer."""
        self.members.announce_self(announce)

    def situation(self) -> Situation | None:
        """Return what decides on the stock now; None while nothing is known."""
        desired, catalog = self.member.desired, self.member.metadata.catalog
        if desired is None or catalog is None:
            return None
        return Situation(
            desired=desired, catalog=catalog, grant=self.members.grant(), own=self.deployer.needed()
        )

    def keeps(self, info_hash: InfoHash) -> bool:
        """Whether the stock needs an artifact that the point itself no longer does."""
        return self.stock.needs(info_hash)

    async def _piece_refused(self, info_hash: InfoHash, piece: int, source: str) -> None:
        await super()._piece_refused(info_hash, piece, source)
        reason = f"piece {piece} from {source} does not match its signed hash"
        known = source if len(source) == len(self.member.node) else self.member.node
        self.members.refused(
            ContentRefused(info_hash=info_hash, source=known, by=self.member.node, reason=reason)
        )


@asynccontextmanager
async def open_seed(home: Home, config: SeedConfig) -> AsyncIterator[Seed]:
    """Open a seed node; the caller runs :func:`serve_seed` in its nursery.

    Raises:
        UsageError, Unavailable: see :func:`~p2pdist.agent.agent.open_agent`.
    """
    seed = Seed()
    post = GatewayPost(home.node, home.enrolment.server_node)
    async with (
        open_agent(seed, home, config, role="point", post=post, keeps=seed.keeps),
        open_mailbox(home.state / "mailbox.db", way=lambda node: seed.members.way(node)) as post.mailbox,
    ):
        seed.stock = Stock(home, seed.deltas, quota_bytes=config.point.quota_bytes, situation=seed.situation)
        seed.members = Members(
            seed.member,
            post,
            stun=config.stun.settings(listen=config.point.host),
            on_wanted=seed.stock.used,
        )
        seed.callees = Callees(seed.member, seed.members)
        repository = StockRepository(seed.member, seed.stock, config.mirrors)
        work = partial(perform, repository=repository, directories=config.directories)
        seed.runner = Runner(RunnerPorts(seed.member), Journal(home.state / "tasks"), work)
        yield seed


async def serve_seed(
    seed: Seed,
    config: SeedConfig,
    *,
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run everything of a seed node until cancelled; reports the address at which devices reach it."""
    async with trio.open_nursery() as nursery:
        address = await nursery.start(
            partial(seed.members.serve, host=config.point.host, port=config.point.port)
        )
        nursery.start_soon(partial(seed.members.run, port=address[1]))
        nursery.start_soon(seed.callees.run)
        nursery.start_soon(seed.waker.run)
        nursery.start_soon(seed.deployer.run)
        nursery.start_soon(seed.deltas.run)
        nursery.start_soon(seed.stock.run)
        nursery.start_soon(seed.runner.run)
        nursery.start_soon(seed.member.run)
        task_status.started(address)


async def run_seed(config: SeedConfig) -> None:
    """Run the seed node in the directory that *config* names, until cancelled.

    Raises:
        UsageError: nothing is enrolled there, or an address cannot be listened on.
        TrustError: the admin server has revoked this node.
    """
    home = await trio.to_thread.run_sync(Home.open, config.node.data)
    async with open_seed(home, config) as seed, trio.open_nursery() as nursery:
        address = await nursery.start(serve_seed, seed, config)
        _log.info("seed.running", node=home.node, host=address[0], port=address[1])
        notify_ready(f"node {home.node}, devices at {address[0]}:{address[1]}")
