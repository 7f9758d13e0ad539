"""The words of the deployment machine: its clock, its settings, its commands, and what it remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from p2pdist.core.fetches import Fetch, ForgetArtifact, StopFetching
from p2pdist.ids import FleetName, SwarmName, TargetPath
from p2pdist.trust.catalog import Release
from p2pdist.wire.messages import Progress, Refusal, Report, Stage

RefusalKind: TypeAlias = Literal[
    "metadata", "content", "rollback", "platform", "grant", "stranger", "envelope"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, on two clocks: Unix seconds for what people read, monotonic seconds for deadlines."""

    unix_s: float
    monotonic_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentSettings:
    """What does not change while the machine runs.

    Attributes:
        fleet: The device's fleet; swarms are named after it.
        objection: Why this machine cannot install a release; an empty string if it can. Must be pure.
        content_patience_s: How long sources may serve nothing but bad bytes before that is reported as
            a failure. Fetching goes on, and good bytes make the deployment succeed after all.
        bad_artifacts_max: How often a complete artifact may turn out to be bad before it is given up.
        progress_every_s: How often a running fetch is told of.
    """

    fleet: FleetName
    objection: Callable[[Release], str]
    content_patience_s: float = 120.0
    bad_artifacts_max: int = 3
    progress_every_s: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyArtifact:
    """Hash the artifact's file afresh and compare with the signed target. One at a time."""

    attempt: str
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Install:
    """Install the artifact that has just been verified. One at a time.

    The same ``attempt`` comes again after a crash: what it began is to be finished, not repeated.
    """

    attempt: str
    release: Release


@dataclass(frozen=True, slots=True, kw_only=True)
class SendReport:
    """Send it; it comes again until it is confirmed."""

    report: Report


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRefusal:
    """Send it; it comes again until it is confirmed."""

    refusal: Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class SendProgress:
    """Send it if there is a way; the next one says more."""

    progress: Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewCertificate:
    """Ask for a certificate that names this swarm."""

    swarm: SwarmName


Command: TypeAlias = (
    Fetch
    | StopFetching
    | ForgetArtifact
    | VerifyArtifact
    | Install
    | SendReport
    | SendRefusal
    | SendProgress
    | RenewCertificate
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment on this device, as the journal keeps it.

    ``learned`` is Unix seconds. ``retry`` is the newest try that an operator asked for, while ``attempt``
    counts those that the device makes of itself, too. ``release`` is what the catalog last said of the
    target. ``begun`` is true from the moment before an installer may have changed the machine until it has
    ended. ``starved`` marks a failure that good content can still turn around; ``superseded`` that it
    waited for a newer release of its product. ``serves`` is true for what was fetched and installed: others
    can have it from here. ``listed`` says that the admin server still wants it. ``note`` says, for
    the report, how the artifact was fetched.
    """

    deployment: str
    target: TargetPath
    order: int
    learned: float
    stage: Stage = "waiting"
    reason: str = ""
    release: Release | None = None
    attempt: int = 1
    retry: int = 0
    begun: bool = False
    bad_artifacts: int = 0
    starved: bool = False
    superseded: bool = False
    serves: bool = False
    listed: bool = True
    note: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing will happen any more unless it is tried again."""
        return self.stage in ("installed", "failed", "refused") and not self.starved

    @property
    def attempt_name(self) -> str:
        """What installers know this try by."""
        return f"{self.deployment}.{self.attempt}"
