"""A node around a deployer: content that is on the disk or not, and an admin server that listens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pdist.agent.ports import ContentStatus
from p2pdist.errors import Unavailable
from p2pdist.ids import ChannelName, FleetName, InfoHash, ProductName, TargetPath, swarm_of
from p2pdist.install.installers import InstallLayout, InstallResult
from p2pdist.trust.catalog import AnyRecipe, Catalog, CommandRecipe, Release
from p2pdist.wire.messages import Deployment, DesiredState, Progress, Refusal, Report


@dataclass
class FakeContent:
    """A content plane whose artifacts arrive when the test says so."""

    directory: Path
    log: list[str]
    statuses: dict[InfoHash, ContentStatus] = field(default_factory=dict)
    unavailable: bool = False

    async def want(self, release: Release) -> None:
        if self.unavailable:
            raise Unavailable("the content plane rests")
        self.log.append(f"want {release.product}")

    async def unwant(self, info_hash: InfoHash, *, delete: bool) -> None:
        self.log.append("delete" if delete else "unwant")
        if delete:
            self.path(info_hash).unlink(missing_ok=True)
            self.statuses.pop(info_hash, None)

    def status(self, info_hash: InfoHash) -> ContentStatus | None:
        return self.statuses.get(info_hash)

    def path(self, info_hash: InfoHash) -> Path:
        return self.directory / info_hash

    def arrive(self, release: Release, data: bytes) -> None:
        self.path(release.info_hash).write_bytes(data)
        self.statuses[release.info_hash] = ContentStatus(
            fraction=1.0, complete=True, rate_bytes_per_s=0, sources=1
        )


@dataclass
class FakeOutbox:
    """An admin server that remembers what it was told."""

    log: list[str]
    sent: list[Any] = field(default_factory=list)
    renewals: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    async def send(self, message: Report | Refusal | Progress) -> bool:
        self.sent.append(message)
        if isinstance(message, Report):
            self.log.append(f"report {message.stage}")
        self.changed.set()
        return True

    def renew_certificate(self) -> None:
        self.renewals += 1
        self.changed.set()

    async def wait(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(20):
            while not condition():
                self.changed = trio.Event()
                await self.changed.wait()

    def reports(self) -> list[Report]:
        return [message for message in self.sent if isinstance(message, Report)]

    def refusals(self) -> list[Refusal]:
        return [message for message in self.sent if isinstance(message, Refusal)]

    async def report(self, stage: str) -> Report:
        await self.wait(lambda: any(report.stage == stage for report in self.reports()))
        return next(report for report in self.reports() if report.stage == stage)


@dataclass
class FakeInstaller:
    """Does what the test says, and remembers every call."""

    log: list[str]
    outcome: InstallResult | Exception = field(default_factory=lambda: InstallResult(exit_code=0))
    started: trio.Event = field(default_factory=trio.Event)
    may_end: trio.Event | None = None
    attempts: list[str] = field(default_factory=list)

    async def __call__(
        self, release: Release, artifact: Path, *, layout: InstallLayout, attempt: str
    ) -> InstallResult:
        self.log.append(f"install {release.product}")
        self.attempts.append(attempt)
        self.started.set()
        if self.may_end is not None:
            await self.may_end.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@dataclass
class Node:
    """Everything around one deployer."""

    base: Path

    def __post_init__(self) -> None:
        self.log: list[str] = []
        self.content = FakeContent(self.base, self.log)
        self.outbox = FakeOutbox(self.log)
        self.installer = FakeInstaller(self.log)
        self.fleet = FleetName("acme")
        self.swarm = swarm_of(ChannelName("stable"), self.fleet)
        self.layout = InstallLayout(root=self.base / "root", state=self.base / "installers")
        self.revision = 0

    def release(
        self, data: bytes, sequence: int = 1, *, product: str = "app", recipe: AnyRecipe | None = None
    ) -> Release:
        digest = hashlib.sha256(data).hexdigest()
        return Release(
            target=TargetPath(f"stable/{product}/{sequence}/{product}.bin"),
            channel=ChannelName("stable"),
            product=ProductName(product),
            version=str(sequence),
            sequence=sequence,
            platform="any",
            length=len(data),
            sha256=digest,
            info_hash=InfoHash(digest),
            recipe=recipe or CommandRecipe(arguments=["true"]),
        )

    def desired(self, *releases: Release, retry: int = 0) -> DesiredState:
        self.revision += 1
        deployments = [
            Deployment(id=f"d-{r.product}-{r.sequence}", target=r.target, retry=retry) for r in releases
        ]
        return DesiredState(revision=self.revision, group="/", swarms=[self.swarm], deployments=deployments)

    def catalog(self, *releases: Release) -> Catalog:
        return Catalog(
            releases={r.target: r for r in releases}, grants={}, channels=(), versions={"root": 1}, expires=0
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with nothing on it."""
    return Node(tmp_path)
