"""An agent: a fleet member with a deployer, wired. A seed node builds on it."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from p2pdist.agent.deployer import Deployer, DeployerSettings, open_deployer
from p2pdist.agent.guarded import GuardedProgram, guarded_program
from p2pdist.agent.ports import ContentStatus
from p2pdist.core.deployment_model import RefusalKind
from p2pdist.core.sources import waits_for_mirrors
from p2pdist.errors import Unavailable, UsageError
from p2pdist.files import locked
from p2pdist.ids import InfoHash
from p2pdist.install.installers import InstallLayout, install
from p2pdist.install.platform import detect_machine
from p2pdist.logs import get_logger
from p2pdist.net.link import Link, OfferedStream
from p2pdist.node.config import AgentConfig, SeedConfig
from p2pdist.node.deltas import Deltas
from p2pdist.node.home import Home
from p2pdist.node.member import Member, open_member
from p2pdist.node.post import OwnPost, Post
from p2pdist.node.settings import MemberSettings
from p2pdist.node.supervisor import notify_ready
from p2pdist.swarm.session import (
    ArtifactFinished,
    PieceRefused,
    StorageFailed,
    StrangerRefused,
    SwarmEvent,
)
from p2pdist.swarm.tuning import POINT_PORT, device_port
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.wire.frames import Announce, AnyFrame, ContentRefused, Role
from p2pdist.wire.messages import DesiredState, Progress, Refusal, Report, SendWakes
from p2pdist.wire.paths import PathOpening
from p2pdist.wire.questions import TaskAnswer

if TYPE_CHECKING:
    from p2pdist.agent.resting import RestingDevice

_log = get_logger()


class Agent:
    """What an agent does with what its runtime tells it: the runtime's hooks.

    A seed node overrides the few that concern the devices it carries.
    """

    def __init__(self) -> None:
        self.member: Member
        self.deployer: Deployer
        self.deltas: Deltas
        self.resting: RestingDevice | None = None

    async def linked(self) -> None:
        """A link to a neighbour stands: what is not confirmed yet is sent again."""
        self.deployer.linked()

    def unlinked(self) -> None:
        """An agent carries nobody who would want to know."""

    async def state_changed(self, desired: DesiredState, catalog: Catalog | None) -> None:
        """The desired state, the catalog or the certificate is new."""
        self.deployer.certificate_changed(self.member.home.certificate.swarms)
        self.deployer.state_changed(desired, catalog)

    async def received(self, ids: list[str]) -> None:
        """The admin server has stored these reports and refusals, and opened these heartbeats."""
        self.member.heart.received(ids)
        self.deployer.received(ids)

    async def content_event(self, event: SwarmEvent) -> None:
        """Something happened in the swarm."""
        match event:
            case ArtifactFinished(info_hash=info_hash):
                _log.info("artifact.complete", info_hash=info_hash)
                self.deltas.finished()
                self.deployer.content_finished(info_hash)
            case PieceRefused(info_hash=info_hash, piece=piece, source=source):
                await self._piece_refused(info_hash, piece, str(source or "an unknown source"))
            case StorageFailed(info_hash=info_hash, reason=reason):
                _log.warning("content.storage_failed", info_hash=info_hash, reason=reason)
                if not await self.deltas.storage_failed(info_hash, reason):
                    self.deployer.storage_failed(info_hash, reason)
            case StrangerRefused(address=address, reason=reason):
                self.deployer.refuse("stranger", address, reason)
            case _:
                _log.warning("swarm.event", swarm_event=type(event).__name__)

    async def content_refused(self, frame: ContentRefused) -> None:
        """A neighbour found that a source serves bad bytes."""
        artifact = self.deltas.whole(InfoHash(frame.info_hash))
        self.deployer.content_refused(artifact, frame.source, frame.reason)

    async def passing_frame(self, frame: AnyFrame) -> None:
        """An agent carries nobody."""

    async def session_path(self, link: Link, opening: PathOpening, offered: OfferedStream) -> None:
        """A path of a session: an agent takes its own."""
        if opening.to != self.member.node:
            raise UsageError(f"{opening.to} is not reached through this node")
        await self.member.reception.carry(opening.session, offered.accept)

    def announced(self, announce: Announce) -> None:
        """An agent carries nobody who would want to know."""

    def installed(self) -> Mapping[str, int]:
        """``channel/product`` to the sequence number that is installed."""
        return self.deployer.installed

    async def wakes(self, message: SendWakes) -> None:
        """An agent has nobody to wake."""

    def task_answer(self, message: TaskAnswer) -> None:
        """An agent does no tasks."""

    async def refuse(self, kind: RefusalKind, subject: str, reason: str) -> None:
        """Report something that was refused for want of trust."""
        self.deployer.refuse(kind, subject, reason)

    async def _piece_refused(self, info_hash: InfoHash, piece: int, source: str) -> None:
        reason = f"piece {piece} from {source} does not match its signed hash"
        _log.warning("content.refused", info_hash=info_hash, source=source, reason=reason)
        self.deployer.content_refused(self.deltas.whole(info_hash), source, reason)


class DeployerContent:
    """The node's content as the deployer sees it.

    Args:
        keeps: Whether somebody else on this node (a distribution point's stock) needs an artifact.
    """

    def __init__(self, home: Home, content: Deltas, keeps: Callable[[InfoHash], bool]) -> None:
        self._home = home
        self._content = content
        self._keeps = keeps

    async def want(self, release: Release) -> None:
        """Fetch an artifact, or go on serving it."""
        self._content.want(release)

    async def unwant(self, info_hash: InfoHash, *, delete: bool) -> None:
        """The deployer does not need it; with *delete*, its bytes are not to be believed any more."""
        if not self._keeps(info_hash):
            await self._content.drop(info_hash, delete=delete)
        elif delete:
            await self._content.restart(info_hash)

    def status(self, info_hash: InfoHash) -> ContentStatus | None:
        """How far an artifact is."""
        found = self._content.statistics(info_hash)
        if found is None:
            return None
        report = self._content.report(info_hash)
        return ContentStatus(
            fraction=found.have / found.pieces if found.pieces else 0.0,
            complete=found.complete,
            rate_bytes_per_s=found.rate_down,
            sources=found.peers if found.rate_down else 0,
            waits=waits_for_mirrors(report.candidates) if report is not None else "",
            note=self._content.note(info_hash),
        )

    def path(self, info_hash: InfoHash) -> Path:
        """The content file."""
        return self._home.artifact(info_hash)


class DeployerOutbox:
    """The node's way to the admin server as the deployer sees it."""

    def __init__(self, member: Member) -> None:
        self._member = member

    async def send(self, message: Report | Refusal | Progress) -> bool:
        """Send a message if there is a way now."""
        try:
            return await self._member.send(message)
        except Unavailable as error:
            _log.warning("message.not_sent", message=type(message).__name__, reason=str(error))
            return False

    def renew_certificate(self) -> None:
        """Ask for a new certificate soon."""
        self._member.renew_certificate()


@asynccontextmanager
async def open_agent(
    agent: Agent,
    home: Home,
    config: AgentConfig,
    *,
    role: Role = "device",
    post: Post | None = None,
    keeps: Callable[[InfoHash], bool] = lambda info_hash: False,
    own: GuardedProgram | None = None,
) -> AsyncIterator[Agent]:
    """Open the runtime and the deployer of *agent*; the caller runs both in its nursery.

    Args:
        agent: The hooks.
        home: The node's directory.
        config: Its configuration.
        role: What it is.
        post: Who keeps its envelopes on their way; in memory, if it is not given.
        keeps: Whether somebody else needs an artifact that the deployer does not.
        own: This process, if a guard can replace it by a newer version.

    Raises:
        UsageError: the journal or the configuration is wrong.
        Unavailable: another program runs on the same directory, or the disk or an address cannot be used.
    """
    usual = POINT_PORT if role == "point" else device_port(home.node)
    settings = MemberSettings(
        role=role,
        name=config.node.name or socket.gethostname(),
        link_host=config.link.local_host or None,
        swarm_host=config.swarm.host,
        swarm_port=config.swarm.port if config.swarm.port is not None else usual,
        swarm_requests=config.swarm.requests,
        rates=config.rates.limits(),
        policy=config.sessions.policy(),
        session_ports=config.sessions.ports(),
        dialled=isinstance(config, SeedConfig) and config.point.dialled,
    )
    layout = InstallLayout(root=config.install.root, state=home.state / "install")
    with locked(home.lock, what=f"the node in {home.root}"):
        async with open_member(home, settings, agent, post or OwnPost()) as member:
            agent.member = member
            if own is not None:
                own.ask = member.heart.confirm
            machine = await trio.to_thread.run_sync(detect_machine)
            agent.deltas = Deltas(home, member.content, keeps=keeps, point=role == "point")
            async with open_deployer(
                DeployerSettings(
                    fleet=home.fleet, layout=layout, machine=replace(machine, guarded=own is not None)
                ),
                home.state / "journal.db",
                content=DeployerContent(home, agent.deltas, keeps),
                outbox=DeployerOutbox(member),
                installer=partial(install, own=own),
            ) as deployer:
                agent.deployer = deployer
                agent.resting = _resting_device(agent, config)
                deployer.certificate_changed(home.certificate.swarms)
                yield agent


def _resting_device(agent: Agent, config: AgentConfig) -> RestingDevice | None:
    if not config.resting.enabled:
        return None
    if agent.member.settings.role == "point":
        raise UsageError("a distribution point cannot rest", hint="take [resting] out of its configuration")
    from p2pdist.agent.resting import RestingDevice  # what only such a device needs

    return RestingDevice(agent.member, config.resting, busy=lambda: _has_work(agent))


def _has_work(agent: Agent) -> bool:
    """Whether something is under way on this device, or not confirmed yet."""
    at_work = any(task.stage in ("fetching", "verifying", "installing") for task in agent.deployer.tasks())
    return at_work or bool(agent.deployer.unconfirmed()) or agent.member.reception.visitors.count > 0


async def run_agent(config: AgentConfig) -> None:
    """Run the agent in the directory that *config* names, until cancelled.

    Raises:
        UsageError: nothing is enrolled there.
        TrustError: the admin server has revoked this device.
        Unavailable: see :func:`open_agent`.
    """
    home = await trio.to_thread.run_sync(Home.open, config.node.data)
    own = guarded_program(os.environ)
    async with open_agent(Agent(), home, config, own=own) as agent, trio.open_nursery() as nursery:
        nursery.start_soon(agent.deployer.run)
        nursery.start_soon(agent.deltas.run)
        nursery.start_soon(agent.member.run)
        if agent.resting is not None:
            nursery.start_soon(agent.resting.run)
        _log.info("agent.running", node=home.node, group=home.certificate.group, port=agent.member.swarm.port)
        notify_ready(f"node {home.node}")
        if own is not None:
            await own.wait_leaving()
            _log.info("agent.leaves", reason="another version is in use")
            nursery.cancel_scope.cancel()
