"""Carries out what the deployment machine decides, and writes it down before.

Events come in as plain method calls from the agent's other tasks; they only touch the machine, so they
never wait. One task, :meth:`Deployer.run`, then does three things in this order, for ever: it takes the
machine's changes and commands together, writes the changes to the journal, and carries the commands out.
A command is therefore never carried out before what led to it is on the disk.

Verifying and installing take long and run beside that task; the machine has at most one of them in hand.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import assert_never

import trio

from p2pdist import limits
from p2pdist.agent.journal import Journal
from p2pdist.agent.ports import ContentSource, Installer, Outbox
from p2pdist.core.deployment import Deployments
from p2pdist.core.deployment_model import (
    Command,
    DeploymentSettings,
    Install,
    Moment,
    RefusalKind,
    RenewCertificate,
    SendProgress,
    SendRefusal,
    SendReport,
    Task,
    VerifyArtifact,
)
from p2pdist.core.fetches import Fetch, ForgetArtifact, StopFetching
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.files import storage_error
from p2pdist.ids import FleetName, InfoHash
from p2pdist.install.installers import InstallLayout, InstallResult, check_installable, install
from p2pdist.install.platform import Machine, detect_machine
from p2pdist.logs import get_logger
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.wire.messages import DesiredState, Refusal, Report

_log = get_logger()

_JOURNAL_AGAIN_S = 5.0
_CHUNK_BYTES = 1 * limits.MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployerSettings:
    """What a deployer is told once.

    ``status_every_s`` is how often the content source is asked how far it is while something is fetched.
    ``machine`` is detected if it is not given. For the others see
    :class:`~p2pdist.core.deployment_model.DeploymentSettings`.
    """

    fleet: FleetName
    layout: InstallLayout
    machine: Machine | None = None
    content_patience_s: float = 120.0
    progress_every_s: float = 5.0
    status_every_s: float = 1.0
    unix_clock: Callable[[], float] = field(default=time.time)


class Deployer:
    """A running deployer. Made by :func:`open_deployer` only.

    The event methods may be called at any time from the trio thread, also before :meth:`run`.
    """

    def __init__(
        self,
        settings: DeployerSettings,
        machine: Machine,
        journal: Journal,
        records: Mapping[str, bytes],
        *,
        content: ContentSource,
        outbox: Outbox,
        installer: Installer,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._content = content
        self._outbox = outbox
        self._installer = installer
        self._journal_limiter = trio.CapacityLimiter(1)
        self._wake = trio.Event()
        self._just_installed: list[Release] = []
        self._fetching: set[InfoHash] = set()
        self._fetches_changed = trio.Event()
        deployments = DeploymentSettings(
            fleet=settings.fleet,
            objection=lambda release: _objection(release, machine),
            content_patience_s=settings.content_patience_s,
            progress_every_s=settings.progress_every_s,
        )
        self._machine = Deployments(deployments, records, now=self._now())

    # What others ask ---------------------------------------------------------------------------------

    @property
    def installed(self) -> Mapping[str, int]:
        """``channel/product`` to the sequence number that is installed."""
        return self._machine.installed

    def tasks(self) -> tuple[Task, ...]:
        """Every deployment, and how far it is."""
        return self._machine.tasks()

    def unconfirmed(self) -> tuple[Report | Refusal, ...]:
        """Reports and refusals that the admin server has not confirmed."""
        return self._machine.unconfirmed()

    def needed(self) -> frozenset[InfoHash]:
        """The artifacts that deployments on this device still need or serve, and what deltas start from."""
        using = frozenset(
            task.release.info_hash
            for task in self._machine.tasks()
            if task.release is not None and (task.serves or not task.ended)
        )
        return using | self._machine.bases()

    # Events ------------------------------------------------------------------------------------------

    def state_changed(self, desired: DesiredState, catalog: Catalog | None) -> None:
        """The desired state or the catalog is new."""
        self._machine.handle_catalog(catalog, self._now())
        self._machine.handle_desired_state(desired, self._now())
        self._wake.set()

    def certificate_changed(self, swarms: Collection[str]) -> None:
        """This node's certificate names these swarms; to be called at the start too."""
        self._machine.handle_certificate(swarms, self._now())
        self._wake.set()

    def linked(self) -> None:
        """A link to a neighbour stands."""
        self._machine.handle_linked(self._now())
        self._wake.set()

    def received(self, identifiers: Iterable[str]) -> None:
        """The admin server has stored these reports and refusals."""
        self._machine.handle_received(identifiers, self._now())
        self._wake.set()

    def content_finished(self, info_hash: InfoHash) -> None:
        """An artifact is complete on the disk."""
        status = self._content.status(info_hash)
        self._machine.handle_content_finished(info_hash, self._now(), note=status.note if status else "")
        self._wake.set()

    def content_refused(self, info_hash: InfoHash, source: str, reason: str) -> None:
        """Bytes from *source* did not match the signed hashes."""
        self._machine.handle_content_refused(info_hash, source, reason, self._now())
        self._wake.set()

    def storage_failed(self, info_hash: InfoHash, reason: str) -> None:
        """An artifact's file cannot be written or read."""
        self._machine.handle_storage_failed(info_hash, reason, self._now())
        self._wake.set()

    def refuse(self, kind: RefusalKind, subject: str, reason: str) -> None:
        """Something was refused for want of trust; it is reported until the admin server has it."""
        self._machine.handle_refused(kind, subject, reason, self._now())
        self._wake.set()

    # The driver --------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carry out commands until cancelled.

        A full disk under the journal holds everything up until it has space again; it ends nothing.
        Cancellation leaves what a crash would leave, and the next start resumes it.

        Raises:
            UsageError: the journal is damaged.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_content)
            task_status.started()
            while True:
                self._wake = trio.Event()
                changes = self._machine.take_changes()
                commands = self._take_commands()
                installed, self._just_installed = self._just_installed, []
                await self._write_down(changes)
                for release in installed:  # said once no kill can take it back
                    _log.info("release.installed", target=release.target, sequence=release.sequence)
                for command in commands:
                    await self._carry_out(command, nursery)
                deadline = self._machine.next_deadline()
                with trio.move_on_at(math.inf if deadline is None else deadline) as scope:
                    await self._wake.wait()
                if scope.cancelled_caught:
                    self._machine.handle_tick(self._now())

    def _take_commands(self) -> list[Command]:
        commands = []
        while (command := self._machine.poll_command()) is not None:
            commands.append(command)
        return commands

    async def _write_down(self, changes: Mapping[str, bytes | None]) -> None:
        while changes:
            try:
                await trio.to_thread.run_sync(self._journal.apply, changes, limiter=self._journal_limiter)
            except Unavailable as error:
                _log.error("journal.not_written", reason=str(error))
                await trio.sleep(_JOURNAL_AGAIN_S)  # nothing says when a disk has space again
            else:
                return

    async def _carry_out(self, command: Command, nursery: trio.Nursery) -> None:
        match command:
            case Fetch(release=release):
                await self._fetch(release)
            case StopFetching(info_hash=info_hash) | ForgetArtifact(info_hash=info_hash):
                self._fetching.discard(info_hash)
                await self._unwant(info_hash, delete=isinstance(command, ForgetArtifact))
            case VerifyArtifact(attempt=attempt, release=release):
                nursery.start_soon(self._verify, attempt, release)
            case Install(attempt=attempt, release=release):
                nursery.start_soon(self._install, attempt, release)
            case SendReport(report=report):
                await self._outbox.send(report)
            case SendRefusal(refusal=refusal):
                await self._outbox.send(refusal)
            case SendProgress(progress=progress):
                await self._outbox.send(progress)
            case RenewCertificate(swarm=swarm):
                _log.info("certificate.lacks_swarm", swarm=swarm)
                self._outbox.renew_certificate()
            case _ as unreachable:
                assert_never(unreachable)

    async def _fetch(self, release: Release) -> None:
        _log.info("artifact.fetching", target=release.target)
        try:
            await self._content.want(release)
        except P2PDistError as error:
            self.storage_failed(release.info_hash, str(error))
        else:
            self._fetching.add(release.info_hash)
            self._fetches_changed.set()

    async def _unwant(self, info_hash: InfoHash, *, delete: bool) -> None:
        try:
            await self._content.unwant(info_hash, delete=delete)
        except Unavailable as error:  # it costs space, and nothing else: an artifact is checked before use
            _log.warning("artifact.not_deleted", info_hash=info_hash, reason=str(error))

    async def _follow_content(self) -> None:
        """Ask how far everything is, for as long as anything is being fetched."""
        while True:
            self._fetches_changed = trio.Event()
            for info_hash in sorted(self._fetching):
                self._look_at(info_hash)
            with trio.move_on_after(self._settings.status_every_s if self._fetching else math.inf):
                await self._fetches_changed.wait()

    def _look_at(self, info_hash: InfoHash) -> None:
        status = self._content.status(info_hash)
        if status is None:
            return
        if status.complete:
            self._fetching.discard(info_hash)
            self.content_finished(info_hash)
        else:
            self._machine.handle_content_progressed(
                info_hash,
                fraction=status.fraction,
                rate_bytes_per_s=status.rate_bytes_per_s,
                sources=status.sources,
                waits=status.waits,
                now=self._now(),
            )
            self._wake.set()

    async def _verify(self, attempt: str, release: Release) -> None:
        path = self._content.path(release.info_hash)
        try:
            await trio.to_thread.run_sync(verify_artifact, path, release)
        except TrustError as error:
            _log.warning("artifact.mismatched", target=release.target, reason=str(error))
            self._machine.handle_artifact_mismatched(attempt, str(error), self._now())
        except Unavailable as error:
            _log.warning("artifact.unreadable", target=release.target, reason=str(error))
            self._machine.handle_artifact_unreadable(attempt, str(error), self._now())
        else:
            self._machine.handle_artifact_verified(attempt, self._now())
        self._wake.set()

    async def _install(self, attempt: str, release: Release) -> None:
        path = self._content.path(release.info_hash)
        _log.info("release.installing", target=release.target, attempt=attempt)
        try:
            result = await self._installer(release, path, layout=self._settings.layout, attempt=attempt)
        except Unavailable as error:
            _log.warning("release.deferred", target=release.target, reason=str(error))
            self._machine.handle_install_deferred(attempt, str(error), self._now())
        except P2PDistError as error:
            _log.error("release.failed", target=release.target, reason=str(error))
            self._machine.handle_install_failed(
                attempt, str(error), exit_code=None, output=b"", now=self._now()
            )
        else:
            self._take_result(attempt, release, result)
        self._wake.set()

    def _take_result(self, attempt: str, release: Release, result: InstallResult) -> None:
        if result.installed:
            self._just_installed.append(release)
            self._machine.handle_installed(
                attempt, exit_code=result.exit_code, output=result.output, now=self._now()
            )
        else:
            _log.error("release.failed", target=release.target, reason=result.failure)
            self._machine.handle_install_failed(
                attempt, result.failure, exit_code=result.exit_code, output=result.output, now=self._now()
            )

    def _now(self) -> Moment:
        return Moment(unix_s=self._settings.unix_clock(), monotonic_s=trio.current_time())


@asynccontextmanager
async def open_deployer(
    settings: DeployerSettings,
    journal_path: Path,
    *,
    content: ContentSource,
    outbox: Outbox,
    installer: Installer = install,
) -> AsyncIterator[Deployer]:
    """Open the journal and the machine over it; the caller starts :meth:`Deployer.run` in its nursery.

    Raises:
        UsageError: the journal is damaged.
        Unavailable: another process has it, or the disk fails.
    """
    machine = settings.machine
    if machine is None:
        machine = await trio.to_thread.run_sync(detect_machine)
    journal = await trio.to_thread.run_sync(Journal, journal_path)
    try:
        records = await trio.to_thread.run_sync(journal.records)
        try:
            deployer = Deployer(
                settings, machine, journal, records, content=content, outbox=outbox, installer=installer
            )
        except PeerError as error:
            raise journal.damaged(f"a record is not valid: {error.what}") from error
        yield deployer
    finally:
        journal.close()


def verify_artifact(path: Path, release: Release) -> None:
    """Compare a file with its signed length and SHA-256, reading all of it. Blocking, in a trio thread.

    Raises:
        TrustError: it is another file.
        Unavailable: it cannot be read.
    """
    digest = hashlib.sha256()
    length = 0
    try:
        with path.open("rb") as file:
            while data := file.read(_CHUNK_BYTES):
                trio.from_thread.check_cancelled()
                digest.update(data)
                length += len(data)
    except OSError as error:
        raise storage_error(f"the artifact of {release.target} could not be read", error) from error
    if length != release.length:
        raise TrustError(f"{release.target}: {length} bytes are here, {release.length} were signed")
    if digest.hexdigest() != release.sha256:
        raise TrustError(f"{release.target}: the SHA-256 here is {digest.hexdigest()}, not the signed one")


def _objection(release: Release, machine: Machine) -> str:
    try:
        check_installable(release, machine=machine)
    except UsageError as error:
        return str(error)
    return ""
