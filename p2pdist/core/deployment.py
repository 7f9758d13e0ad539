r"""One device's way from a deployment to an installed release. A state machine without I/O.

Life of a deployment::

    waiting ──> fetching ──> verifying ──> installing ──> installed
       ^  \________/  \_________/  (bad bytes: fetched again, a few times)   └─> failed
       └─ refused, at any moment before installing

Shape: call ``handle_<event>(…, now)``; then write :meth:`Deployments.take_changes` to a journal that
survives a crash; then carry out what :meth:`Deployments.poll_command` gives until it gives None; and
come back with :meth:`Deployments.handle_tick` when :meth:`Deployments.next_deadline` has passed. An
event that cannot be (an installation that nobody asked for) raises and changes nothing; one that is
merely late (content that is not wanted any more) changes nothing.

Invariants:

- at most one artifact is being verified or installed: the one *in hand*;
- ``Install`` follows a successful fresh verification of the same artifact, also after a restart;
- nothing below a product's floor is installed without a signed permission;
- every deployment that ends makes a report, and every report is repeated until it is confirmed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from p2pdist import limits
from p2pdist.core.deployment_model import Command, DeploymentSettings, Install, Moment, RefusalKind, Task
from p2pdist.core.fetches import Fetches
from p2pdist.core.judge import Judge
from p2pdist.core.ledger import Ledger
from p2pdist.core.plan import Plan
from p2pdist.errors import UsageError
from p2pdist.ids import InfoHash, TargetPath
from p2pdist.trust.catalog import Catalog
from p2pdist.wire.messages import Deployment, DesiredState, Refusal, Report, Stage


class Deployments:
    """Everything that the admin server wants installed on one device, and how far it is.

    Args:
        settings: What does not change.
        records: What :meth:`take_changes` said in earlier runs, put together.
        now: The time of the start.

    Raises:
        PeerError: a record is damaged.
    """

    def __init__(self, settings: DeploymentSettings, records: Mapping[str, bytes], *, now: Moment) -> None:
        self._settings = settings
        self._ledger = Ledger(records)
        self._judge = Judge(settings, self._ledger)
        self._fetches = Fetches()
        self._plan = Plan(settings, self._ledger, self._judge, self._fetches)
        self._revision = 0
        for task in self._ledger.tasks():
            if not (task.ended or task.begun or task.starved):
                self._ledger.keep(task.deployment, stage="waiting", reason="")
        self._plan.advance(now)

    # What the machine knows ------------------------------------------------------------------------

    @property
    def installed(self) -> Mapping[str, int]:
        """``channel/product`` to the sequence that is installed."""
        return self._ledger.installed

    def floor(self, product: str) -> int:
        """The highest sequence of ``channel/product`` that was ever installed here; 0 for none."""
        return self._ledger.floor(product)

    def tasks(self) -> tuple[Task, ...]:
        """Every deployment, most urgent first."""
        return self._ledger.tasks()

    def bases(self) -> frozenset[InfoHash]:
        """The artifacts of installed releases that are kept, so that a delta can start from them."""
        return frozenset(self._ledger.bases())

    def unconfirmed(self) -> tuple[Report | Refusal, ...]:
        """Reports and refusals that the admin server has not confirmed."""
        return self._ledger.unconfirmed.messages()

    # Events ----------------------------------------------------------------------------------------

    def handle_desired_state(self, desired: DesiredState, now: Moment) -> None:
        """The admin server says what it wants. An older revision than the last one changes nothing."""
        if desired.revision < self._revision:
            return
        self._revision = desired.revision
        wanted = {deployment.id: deployment for deployment in desired.deployments}
        for task in self._ledger.tasks():
            if task.deployment in wanted and wanted[task.deployment].target != task.target:
                self._unlist(task)
        for deployment in wanted.values():
            self._list(deployment, now)
        for task in self._ledger.tasks():  # last, so that an artifact which a new deployment needs stays
            if task.deployment not in wanted:
                self._unlist(task)
        self._plan.advance(now)

    def handle_catalog(self, catalog: Catalog | None, now: Moment) -> None:
        """There is newly verified metadata; None: what there was is not valid any more."""
        self._judge.catalog = catalog
        self._plan.advance(now)

    def handle_certificate(self, swarms: Collection[str], now: Moment) -> None:
        """The device's certificate names these swarms."""
        if frozenset(swarms) != self._judge.swarms:
            self._judge.swarms = frozenset(swarms)
            self._plan.renewals.clear()
        self._plan.advance(now)

    def handle_content_progressed(
        self,
        info_hash: InfoHash,
        *,
        fraction: float,
        rate_bytes_per_s: int,
        sources: int,
        now: Moment,
        waits: str = "",
    ) -> None:
        """So much of an artifact is there, verified piece by piece; *waits* is why nobody serves it."""
        if self._fetches.progressed(info_hash, fraction, rate_bytes_per_s, sources, waits):
            self._plan.advance(now)
        for task in self._ledger.using(info_hash):
            if task.stage == "fetching":
                self._plan.tell(task)
        self._plan.tell_due(now)

    def handle_content_finished(self, info_hash: InfoHash, now: Moment, *, note: str = "") -> None:
        """An artifact is complete on the disk; *note* says how it was fetched, for the report."""
        if self._fetches.finished(info_hash) and note:
            for task in self._ledger.using(info_hash):
                self._ledger.keep(task.deployment, note=note[: limits.TEXT_CHARS_MAX])
        self._plan.advance(now)

    def handle_content_refused(self, info_hash: InfoHash, source: str, reason: str, now: Moment) -> None:
        """Bytes from *source* (a node, or what is known of it) did not match the signed hashes."""
        transfer = self._fetches.get(info_hash)
        if transfer is not None and self._fetches.refused(info_hash, source, reason, now_s=now.monotonic_s):
            subject = f"{transfer.release.target} from {source}"
            self._ledger.refuse("content", subject, reason, now)
        self._plan.advance(now)

    def handle_storage_failed(self, info_hash: InfoHash, reason: str, now: Moment) -> None:
        """The disk does not take an artifact, or does not give it back."""
        self._fetches.storage_failed(info_hash, reason, now_s=now.monotonic_s)
        self._plan.drop_bases()
        self._plan.advance(now)

    def handle_artifact_verified(self, attempt: str, now: Moment) -> None:
        """The file in hand is, right now, exactly what was signed."""
        task = self._in_hand(attempt, "verifying")
        if task.begun or self._judge.may_install(task, self._plan.hand):
            task = self._ledger.keep(task.deployment, stage="installing", reason="", begun=True)
            assert task.release is not None
            self._plan.commands.append(Install(attempt=attempt, release=task.release))
        else:
            self._plan.hand = None
            self._ledger.keep(task.deployment, stage="waiting")
        self._plan.advance(now)

    def handle_artifact_mismatched(self, attempt: str, reason: str, now: Moment) -> None:
        """The file in hand is not what was signed. It is fetched afresh, a bounded number of times."""
        task = self._in_hand(attempt, "verifying")
        self._ledger.refuse("content", task.target, reason, now)
        self._refetch(task, reason, now)

    def handle_artifact_unreadable(self, attempt: str, reason: str, now: Moment) -> None:
        """The file in hand is gone or cannot be read: the same, without blaming anybody's bytes."""
        self._refetch(self._in_hand(attempt, "verifying"), reason, now)

    def handle_installed(self, attempt: str, *, exit_code: int | None, output: bytes, now: Moment) -> None:
        """The installer says that the release is installed."""
        task = self._in_hand(attempt, "installing")
        assert task.release is not None
        self._plan.hand = None
        before = self._ledger.base(task.release)
        self._ledger.set_installed(task.release)
        if before is not None:
            self._plan.free(before)
        self._ledger.keep(task.deployment, serves=True)
        self._plan.end(task, "installed", task.note, now, exit_code=exit_code, output=output)
        self._plan.advance(now)

    def handle_install_failed(
        self, attempt: str, reason: str, *, exit_code: int | None, output: bytes, now: Moment
    ) -> None:
        """The installer tried and took it back. It is not tried again by itself."""
        task = self._in_hand(attempt, "installing")
        self._plan.hand = None
        self._plan.end(task, "failed", reason, now, exit_code=exit_code, output=output)
        self._plan.advance(now)

    def handle_install_deferred(self, attempt: str, reason: str, now: Moment) -> None:
        """The installer could not start (a full disk, another installer at work): it is asked again later."""
        task = self._in_hand(attempt, "installing")
        self._plan.hand = None
        self._plan.defer(task, now)
        self._ledger.keep(task.deployment, stage="waiting", reason=reason, begun=False)
        self._plan.advance(now)

    def handle_linked(self, now: Moment) -> None:
        """There is a new way to the admin server: everything unconfirmed goes out again."""
        self._ledger.unconfirmed.resend(now_s=now.monotonic_s)
        self._plan.progress.tell_again()
        self._plan.advance(now)

    def handle_received(self, identifiers: Iterable[str], now: Moment) -> None:
        """The admin server has these reports and refusals on its disk."""
        self._ledger.unconfirmed.confirm(identifiers)
        self._plan.advance(now)

    def handle_refused(self, kind: RefusalKind, subject: str, reason: str, now: Moment) -> None:
        """Another part of the device refused something for want of trust; it is reported from here."""
        self._ledger.refuse(kind, subject, reason, now)
        self._plan.advance(now)

    def handle_tick(self, now: Moment) -> None:
        """Time has passed."""
        self._plan.advance(now)

    # Outputs ---------------------------------------------------------------------------------------

    def poll_command(self) -> Command | None:
        """Return what is to be done next; None when nothing is. Write the changes down before."""
        return self._plan.commands.pop(0) if self._plan.commands else None

    def take_changes(self) -> dict[str, bytes | None]:
        """Return the records that changed since the last call; None stands for a removed one."""
        return self._ledger.take_changes()

    def next_deadline(self) -> float | None:
        """The monotonic time at which :meth:`handle_tick` has something to do; None: never."""
        return self._plan.next_deadline()

    # Tasks -----------------------------------------------------------------------------------------

    def _list(self, deployment: Deployment, now: Moment) -> None:
        task = self._ledger.get(deployment.id)
        if task is not None and task.target == deployment.target:
            if (task.order, task.listed) != (deployment.order, True):
                self._ledger.keep(task.deployment, order=deployment.order, listed=True)
            if deployment.retry > task.retry:
                self._retry(task, deployment.retry)
            return
        if task is not None:
            return  # its other target is in hand; this one is taken up by the next desired state
        fresh = Task(
            deployment=deployment.id,
            target=TargetPath(deployment.target),
            order=deployment.order,
            learned=now.unix_s,
            retry=deployment.retry,
        )
        self._ledger.add(msgspec.structs.replace(fresh, release=self._judge.release(fresh)))

    def _retry(self, task: Task, retry: int) -> None:
        """Somebody asks for another try. What has not failed goes on, and that is the try."""
        self._ledger.keep(task.deployment, retry=retry)
        if task.stage in ("failed", "refused"):
            self._ledger.keep(
                task.deployment,
                stage="waiting",
                reason="",
                attempt=task.attempt + 1,
                bad_artifacts=0,
                starved=False,
                release=None,
            )

    def _unlist(self, task: Task) -> None:
        if self._plan.may_go(self._ledger.keep(task.deployment, listed=False)):
            self._plan.remove(task)

    def _in_hand(self, attempt: str, stage: Stage) -> Task:
        task = self._ledger.get(self._plan.hand)
        if task is None or task.attempt_name != attempt or task.stage != stage:
            raise UsageError(f"attempt {attempt} is not {stage} now")
        return task

    def _refetch(self, task: Task, reason: str, now: Moment) -> None:
        self._plan.hand = None
        release = task.release
        assert release is not None
        task = self._ledger.keep(
            task.deployment, bad_artifacts=task.bad_artifacts + 1, begun=False, stage="waiting", note=""
        )
        self._fetches.start_over(release.info_hash, reason, now_s=now.monotonic_s)
        if task.bad_artifacts >= self._settings.bad_artifacts_max:
            self._plan.end(task, "failed", f"{reason}; given up after {task.bad_artifacts} attempts", now)
        self._plan.advance(now)
