"""One device's way from a deployment to an installed release. A state machine without I/O.

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

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from p2pdist import limits
from p2pdist.core.assessment import (
    AlreadyInstalled,
    Proceed,
    Refuse,
    Verdict,
    Wait,
    assess,
    product_key,
    supersedes,
)
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
from p2pdist.core.fetches import Fetches
from p2pdist.core.progress import ProgressTeller
from p2pdist.core.unconfirmed import Unconfirmed
from p2pdist.errors import UsageError
from p2pdist.ids import ChannelName, InfoHash, SwarmName, TargetPath, swarm_of
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.contents import channel_role
from p2pdist.wire import codec
from p2pdist.wire.messages import Deployment, DesiredState, Progress, Refusal, Report, Stage

_TASK, _PRODUCT, _COUNTER = "task/", "product/", "counter"
_RENEW_AGAIN_S = 60.0
_AGAIN_FIRST_S, _AGAIN_MAX_S = 5.0, 900.0


class _Product(msgspec.Struct, frozen=True, kw_only=True):
    installed: int
    floor: int


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
        self._tasks: dict[str, Task] = {}
        self._products: dict[str, _Product] = {}
        self._counter = 0
        for key, data in records.items():
            if key.startswith(_TASK):
                task: Task = codec.decode(data, Task)
                self._tasks[task.deployment] = task
            elif key.startswith(_PRODUCT):
                self._products[key.removeprefix(_PRODUCT)] = codec.decode(data, _Product)
            elif key == _COUNTER:
                self._counter = codec.decode(data, int)
        self._unconfirmed = Unconfirmed(records)
        self._fetches = Fetches()
        self._catalog: Catalog | None = None
        self._swarms: frozenset[str] = frozenset()
        self._revision = 0
        self._hand: str | None = None
        self._retry_at: dict[str, float] = {}
        self._deferrals: dict[str, int] = {}
        self._renewal_at: dict[SwarmName, float] = {}
        self._progress = ProgressTeller(every_s=settings.progress_every_s)
        self._commands: list[Command] = []
        self._changes: dict[str, bytes | None] = {}
        for task in list(self._tasks.values()):
            if not task.ended and not task.begun and task.stage != "failed":
                self._keep(task, stage="waiting", reason="")
        self._advance(now)

    # What the machine knows ------------------------------------------------------------------------

    @property
    def installed(self) -> Mapping[str, int]:
        """``channel/product`` to the sequence that is installed."""
        return {key: product.installed for key, product in self._products.items()}

    def floor(self, product: str) -> int:
        """The highest sequence of ``channel/product`` that was ever installed here; 0 for none."""
        known = self._products.get(product)
        return known.floor if known is not None else 0

    def tasks(self) -> tuple[Task, ...]:
        """Every deployment, most urgent first."""
        return tuple(sorted(self._tasks.values(), key=lambda t: (t.order, t.learned, t.deployment)))

    def unconfirmed(self) -> tuple[Report | Refusal, ...]:
        """Reports and refusals that the admin server has not confirmed."""
        return self._unconfirmed.messages()

    # Events ----------------------------------------------------------------------------------------

    def handle_desired_state(self, desired: DesiredState, now: Moment) -> None:
        """The admin server says what it wants. An older revision than the last one changes nothing."""
        if desired.revision < self._revision:
            return
        self._revision = desired.revision
        wanted = {d.id: d for d in desired.deployments}
        for task in list(self._tasks.values()):
            same = task.deployment in wanted and wanted[task.deployment].target == task.target
            if not same and task.listed:
                self._unlist(task)
        for deployment in wanted.values():
            self._list(deployment, now)
        self._advance(now)

    def handle_catalog(self, catalog: Catalog | None, now: Moment) -> None:
        """There is newly verified metadata; None: what there was is not valid any more."""
        self._catalog = catalog
        self._advance(now)

    def handle_certificate(self, swarms: Collection[str], now: Moment) -> None:
        """The device's certificate names these swarms."""
        self._swarms = frozenset(swarms)
        self._renewal_at.clear()
        self._advance(now)

    def handle_content_progressed(
        self, info_hash: InfoHash, *, fraction: float, rate_bytes_per_s: int, sources: int, now: Moment
    ) -> None:
        """So much of an artifact is there, verified piece by piece."""
        self._fetches.progressed(info_hash, fraction, rate_bytes_per_s, sources)
        for task in self._tasks.values():
            if task.stage == "fetching" and task.release is not None and task.release.info_hash == info_hash:
                self._tell(task)
        self._tell_due(now)

    def handle_content_finished(self, info_hash: InfoHash, now: Moment) -> None:
        """An artifact is complete on the disk."""
        self._fetches.finished(info_hash)
        self._advance(now)

    def handle_content_refused(self, info_hash: InfoHash, source: str, reason: str, now: Moment) -> None:
        """Bytes from *source* (a node, or what is known of it) did not match the signed hashes."""
        transfer = self._fetches.get(info_hash)
        if transfer is not None and self._fetches.refused(info_hash, source, reason, now_s=now.monotonic_s):
            subject = f"{transfer.release.target} from {source}"
            self._refuse("content", subject, reason, now)
        self._advance(now)

    def handle_storage_failed(self, info_hash: InfoHash, reason: str, now: Moment) -> None:
        """The disk does not take an artifact, or does not give it back."""
        self._fetches.storage_failed(info_hash, reason, now_s=now.monotonic_s)
        self._advance(now)

    def handle_artifact_verified(self, attempt: str, now: Moment) -> None:
        """The file in hand is, right now, exactly what was signed."""
        task = self._in_hand(attempt, "verifying")
        if task.begun or self._may_install(task):
            task = self._keep(task, stage="installing", reason="", begun=True)
            assert task.release is not None
            self._commands.append(Install(attempt=attempt, release=task.release))
        else:
            self._hand = None
            self._keep(task, stage="waiting")
        self._advance(now)

    def handle_artifact_mismatched(self, attempt: str, reason: str, now: Moment) -> None:
        """The file in hand is not what was signed. It is fetched afresh, a bounded number of times."""
        task = self._in_hand(attempt, "verifying")
        self._refuse("content", task.target, reason, now)
        self._refetch(task, reason, now)

    def handle_artifact_unreadable(self, attempt: str, reason: str, now: Moment) -> None:
        """The file in hand is gone or cannot be read: the same, without blaming anybody's bytes."""
        self._refetch(self._in_hand(attempt, "verifying"), reason, now)

    def handle_installed(self, attempt: str, *, exit_code: int | None, output: bytes, now: Moment) -> None:
        """The installer says that the release is installed."""
        task = self._in_hand(attempt, "installing")
        assert task.release is not None
        self._hand = None
        key = product_key(task.release)
        sequence = task.release.sequence
        product = _Product(installed=sequence, floor=max(sequence, self.floor(key)))
        self._products[key] = product
        self._changes[_PRODUCT + key] = codec.encode(product)
        self._end(self._keep(task, serves=True), "installed", "", now, exit_code=exit_code, output=output)
        self._advance(now)

    def handle_install_failed(
        self, attempt: str, reason: str, *, exit_code: int | None, output: bytes, now: Moment
    ) -> None:
        """The installer tried and took it back. It is not tried again by itself."""
        task = self._in_hand(attempt, "installing")
        self._hand = None
        self._end(task, "failed", reason, now, exit_code=exit_code, output=output)
        self._advance(now)

    def handle_install_deferred(self, attempt: str, reason: str, now: Moment) -> None:
        """The installer could not start (a full disk, another installer at work): it is asked again later."""
        task = self._in_hand(attempt, "installing")
        self._hand = None
        deferrals = self._deferrals.get(task.deployment, 0)
        self._deferrals[task.deployment] = deferrals + 1
        delay = min(_AGAIN_MAX_S, _AGAIN_FIRST_S * 2.0 ** min(deferrals, 16))
        self._retry_at[task.deployment] = now.monotonic_s + delay
        self._keep(task, stage="waiting", reason=reason, begun=False)
        self._advance(now)

    def handle_linked(self, now: Moment) -> None:
        """There is a new way to the admin server: everything unconfirmed goes out again."""
        self._unconfirmed.resend(now_s=now.monotonic_s)
        self._progress.tell_again()
        self._advance(now)

    def handle_received(self, identifiers: Iterable[str], now: Moment) -> None:
        """The admin server has these reports and refusals on its disk."""
        self._unconfirmed.confirm(identifiers)
        self._advance(now)

    def handle_refused(self, kind: RefusalKind, subject: str, reason: str, now: Moment) -> None:
        """Another part of the device refused something for want of trust; it is reported from here."""
        self._refuse(kind, subject, reason, now)
        self._advance(now)

    def handle_retry(self, deployment: str, now: Moment) -> None:
        """Somebody asks explicitly for another try of a deployment that failed or was refused.

        Raises:
            UsageError: there is no such deployment, or it has not failed.
        """
        task = self._tasks.get(deployment)
        if task is None or task.stage not in ("failed", "refused"):
            raise UsageError(f"deployment {deployment} has not failed here")
        self._keep(
            task,
            stage="waiting",
            reason="",
            attempt=task.attempt + 1,
            bad_artifacts=0,
            starved=False,
            release=None,
        )
        self._advance(now)

    def handle_tick(self, now: Moment) -> None:
        """Time has passed."""
        self._advance(now)

    # Outputs ---------------------------------------------------------------------------------------

    def poll_command(self) -> Command | None:
        """Return what is to be done next; None when nothing is. Write the changes down before."""
        return self._commands.pop(0) if self._commands else None

    def take_changes(self) -> dict[str, bytes | None]:
        """Return the records that changed since the last call; None stands for a removed one."""
        changes, self._changes = self._changes, {}
        return changes | self._unconfirmed.take_changes()

    def next_deadline(self) -> float | None:
        """The monotonic time at which :meth:`handle_tick` has something to do; None: never."""
        deadlines = [
            self._unconfirmed.next_deadline(),
            self._fetches.next_deadline(patience_s=self._settings.content_patience_s),
            self._progress.next_deadline(),
            *self._retry_at.values(),
            *self._renewal_at.values(),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    # Tasks -----------------------------------------------------------------------------------------

    def _list(self, deployment: Deployment, now: Moment) -> None:
        task = self._tasks.get(deployment.id)
        if task is not None and task.target == deployment.target:
            if (task.order, task.listed) != (deployment.order, True):
                self._keep(task, order=deployment.order, listed=True)
            return
        if task is not None:
            return  # its other target is in hand; this one is taken up by the next desired state
        target = TargetPath(deployment.target)
        self._keep(Task(deployment=deployment.id, target=target, order=deployment.order, learned=now.unix_s))

    def _unlist(self, task: Task) -> None:
        task = self._keep(task, listed=False)
        if self._may_go(task):
            self._remove(task)

    def _remove(self, task: Task) -> None:
        del self._tasks[task.deployment]
        self._changes[_TASK + task.deployment] = None
        self._retry_at.pop(task.deployment, None)
        self._deferrals.pop(task.deployment, None)
        self._progress.forget(task.deployment)
        self._forget(task)

    def _forget(self, task: Task) -> None:
        """Free the artifact's space, unless another deployment still has a use for it."""
        if task.release is None:
            return
        info_hash = task.release.info_hash
        users = (
            t for t in self._tasks.values() if t.release is not None and t.release.info_hash == info_hash
        )
        if not any(t.deployment != task.deployment and t.stage != "refused" for t in users):
            self._fetches.forget(info_hash)

    def _keep(self, task: Task, **changes: object) -> Task:
        """Store a task with *changes*, here and for the journal."""
        changed = msgspec.structs.replace(task, **changes)
        if changed != self._tasks.get(task.deployment):
            self._tasks[task.deployment] = changed
            self._changes[_TASK + task.deployment] = codec.encode(changed)
        return changed

    def _end(
        self,
        task: Task,
        stage: Literal["installed", "failed", "refused"],
        reason: str,
        now: Moment,
        *,
        exit_code: int | None = None,
        output: bytes = b"",
        starved: bool = False,
    ) -> None:
        reason = reason[: limits.TEXT_CHARS_MAX]
        self._retry_at.pop(task.deployment, None)
        task = self._keep(task, stage=stage, reason=reason, begun=False, starved=starved)
        report = Report(
            id=self._identifier(now),
            deployment=task.deployment,
            target=task.target,
            stage=stage,
            reason=reason,
            exit_code=exit_code,
            output=output[-limits.OUTPUT_BYTES_MAX :],
            seconds=max(0.0, now.unix_s - task.learned),
            finished=max(0, int(now.unix_s)),
        )
        self._unconfirmed.add_report(report, now_s=now.monotonic_s)
        self._tell(task)

    def _refuse(self, kind: RefusalKind, subject: str, reason: str, now: Moment) -> None:
        refusal = Refusal(
            id=self._identifier(now),
            kind=kind,
            subject=subject[: limits.TEXT_CHARS_MAX],
            reason=reason[: limits.TEXT_CHARS_MAX],
            at=max(0, int(now.unix_s)),
        )
        self._unconfirmed.add_refusal(refusal, now_s=now.monotonic_s)

    def _identifier(self, now: Moment) -> str:
        self._counter += 1
        self._changes[_COUNTER] = codec.encode(self._counter)
        return f"{max(0, int(now.unix_s)):x}-{self._counter:x}"

    def _in_hand(self, attempt: str, stage: Stage) -> Task:
        task = self._tasks.get(self._hand) if self._hand is not None else None
        if task is None or task.attempt_name != attempt or task.stage != stage:
            raise UsageError(f"attempt {attempt} is not {stage} now")
        return task

    def _refetch(self, task: Task, reason: str, now: Moment) -> None:
        self._hand = None
        assert task.release is not None
        task = self._keep(task, bad_artifacts=task.bad_artifacts + 1, begun=False, stage="waiting")
        self._fetches.start_over(task.release.info_hash, reason, now_s=now.monotonic_s)
        if task.bad_artifacts >= self._settings.bad_artifacts_max:
            self._end(task, "failed", f"{reason}; given up after {task.bad_artifacts} attempts", now)
        self._advance(now)

    # Deciding --------------------------------------------------------------------------------------

    def _advance(self, now: Moment) -> None:
        """Bring everything to where the facts allow it to be."""
        for task in self.tasks():
            if not task.listed and self._may_go(task):
                self._remove(task)
        self._report_starved(now)
        going = self._judge_all(now)
        wanted = self._choose_fetches(going, now)
        self._take_in_hand([task for task in going if task in wanted])
        for task in wanted:
            self._follow_transfer(task)
        self._commands += self._fetches.take_commands()
        for task in self._tasks.values():
            if not task.ended:
                self._tell(task)
        self._tell_due(now)
        for message in self._unconfirmed.take_due(now_s=now.monotonic_s):
            if isinstance(message, Report):
                self._commands.append(SendReport(report=message))
            else:
                self._commands.append(SendRefusal(refusal=message))

    def _verdict(self, task: Task) -> Verdict:
        catalog = self._catalog
        if catalog is None:
            return Wait(reason="there is no valid signed metadata here yet")
        release = catalog.releases.get(task.target)
        if release is None:
            return self._absence(task, catalog)
        return assess(
            release,
            objection=self._settings.objection(release),
            floor=self.floor(product_key(release)),
            installed=self.installed,
            swarm=swarm_of(release.channel, self._settings.fleet),
            swarms=self._swarms,
        )

    def _absence(self, task: Task, catalog: Catalog) -> Verdict:
        """What it means that the verified metadata does not name a target."""
        why = catalog.left_out.get(task.target)
        if why is not None:
            return Refuse(kind="metadata", reason=f"{task.target} is signed, but not believed: {why}")
        channel = ChannelName(task.target.partition("/")[0])
        why = catalog.left_out.get(channel_role(channel))
        if why is not None:
            return Wait(reason=f"channel {channel} is not believed now: {why}")
        if task.release is not None:
            return Refuse(kind="metadata", reason=f"{task.target} is not signed any more: it was revoked")
        return Wait(reason="the signed metadata here does not name it yet")

    def _judge_all(self, now: Moment) -> list[Task]:
        """Apply the rules to whatever can still change; return what may be fetched and installed."""
        self._retry_at = {d: at for d, at in self._retry_at.items() if at > now.monotonic_s}
        lacking: set[SwarmName] = set()
        going: list[Task] = []
        for task in self.tasks():
            if task.ended or task.deployment == self._hand:
                continue
            if task.begun:
                going.append(task)
                continue
            verdict = self._verdict(task)
            task = self._refresh(task)
            match verdict:
                case Refuse(kind=kind, reason=reason):
                    self._refuse(kind, task.target, reason, now)
                    self._end(task, "refused", reason, now)
                    self._forget(task)
                case AlreadyInstalled():
                    self._end(task, "installed", "it was installed already", now)
                case Wait(reason=reason, swarm=swarm):
                    self._wait(task, reason)
                    if swarm is not None:
                        lacking.add(swarm)
                case Proceed():
                    going.append(task)
        self._renew_for(lacking, now)
        rivals = self._rivals()
        for task in list(going):
            newer = self._overtaker(task, rivals)
            if newer is not None:
                self._wait(task, f"superseded by {newer.target}, which is newer")
            if newer is not None or task.deployment in self._retry_at:
                going.remove(task)
        return going

    def _refresh(self, task: Task) -> Task:
        """Take over what the catalog now says of the task's target."""
        release = self._catalog.releases.get(task.target) if self._catalog is not None else None
        if release is None or release == task.release:
            return task
        if task.release is not None and task.release.info_hash != release.info_hash:
            self._forget(task)
        return self._keep(task, release=release)

    def _rivals(self) -> list[Task]:
        """Everything that may be installed, now or after a pause."""
        return [
            task
            for task in self._tasks.values()
            if not (task.ended or task.starved)
            and task.release is not None
            and (task.deployment == self._hand or task.begun or self._verdict(task) == Proceed())
        ]

    def _overtaker(self, task: Task, rivals: Sequence[Task]) -> Release | None:
        if task.begun or task.release is None:
            return None
        for rival in rivals:
            if rival.release is not None and supersedes(rival.release, task.release):
                return rival.release
        return None

    def _may_install(self, task: Task) -> bool:
        """Whether what was just verified is still what is wanted."""
        unchanged = self._catalog is not None and self._catalog.releases.get(task.target) == task.release
        overtaken = self._overtaker(task, self._rivals()) is not None
        return task.listed and unchanged and not overtaken and self._verdict(task) == Proceed()

    def _choose_fetches(self, going: Sequence[Task], now: Moment) -> list[Task]:
        """Say which artifacts are wanted; return the tasks among *going* whose artifact is."""
        wanted: dict[InfoHash, Release] = {}
        chosen: list[Task] = []
        active = 0
        hand = self._tasks.get(self._hand) if self._hand is not None else None
        if hand is not None and hand.release is not None:
            wanted[hand.release.info_hash] = hand.release
        for task in going:
            assert task.release is not None
            info_hash = task.release.info_hash
            transfer = self._fetches.get(info_hash)
            if info_hash not in wanted and not (transfer is not None and transfer.complete):
                if active >= limits.FETCHES_ACTIVE_MAX:
                    self._wait(task, "other artifacts are fetched first")
                    continue
                active += 1
            wanted[info_hash] = task.release
            chosen.append(task)
        for task in self._tasks.values():
            if task.serves and task.release is not None and self._still_signed(task):
                wanted.setdefault(task.release.info_hash, task.release)
        self._fetches.set_wanted(wanted, now_s=now.monotonic_s)
        return chosen

    def _still_signed(self, task: Task) -> bool:
        return self._catalog is not None and self._catalog.releases.get(task.target) == task.release

    def _take_in_hand(self, chosen: Sequence[Task]) -> None:
        """Begin to verify the most urgent complete artifact, unless one is in hand. What was begun is first."""
        if self._hand is not None:
            return
        for task in sorted(chosen, key=lambda t: not t.begun):
            assert task.release is not None
            transfer = self._fetches.get(task.release.info_hash)
            if task.begun or (transfer is not None and transfer.complete):
                self._hand = task.deployment
                self._keep(task, stage="verifying", reason="", starved=False)
                self._commands.append(VerifyArtifact(attempt=task.attempt_name, release=task.release))
                return

    def _follow_transfer(self, task: Task) -> None:
        """Set a task's stage by how far its artifact is."""
        assert task.release is not None
        transfer = self._fetches.get(task.release.info_hash)
        if task.deployment == self._hand or transfer is None:
            return
        if transfer.complete:
            self._wait(task, "fetched; another release is being installed")
        elif transfer.running and not task.starved:
            self._keep(task, stage="fetching", reason=transfer.trouble)
        else:
            self._wait(task, transfer.trouble)

    def _wait(self, task: Task, reason: str) -> None:
        if not task.starved:
            self._keep(task, stage="waiting", reason=reason[: limits.TEXT_CHARS_MAX])

    def _renew_for(self, lacking: set[SwarmName], now: Moment) -> None:
        self._renewal_at = {s: at for s, at in self._renewal_at.items() if s in lacking}
        for swarm in sorted(lacking):
            if now.monotonic_s >= self._renewal_at.get(swarm, now.monotonic_s):
                self._renewal_at[swarm] = now.monotonic_s + _RENEW_AGAIN_S
                self._commands.append(RenewCertificate(swarm=swarm))

    def _report_starved(self, now: Moment) -> None:
        patience = self._settings.content_patience_s
        for info_hash in self._fetches.take_starved(now_s=now.monotonic_s, patience_s=patience):
            transfer = self._fetches.get(info_hash)
            for task in self.tasks():
                if (
                    task.stage == "fetching"
                    and task.release is not None
                    and task.release.info_hash == info_hash
                    and transfer is not None
                ):
                    reason = f"no source serves what was signed: {transfer.trouble}"
                    self._end(task, "failed", reason, now, starved=True)

    def _may_go(self, task: Task) -> bool:
        """Whether a task that nobody wants can be dropped: what was begun is brought to its end."""
        return task.deployment != self._hand and not task.begun

    def _tell(self, task: Task) -> None:
        transfer = self._fetches.get(task.release.info_hash) if task.release is not None else None
        fetching = task.stage == "fetching" and transfer is not None
        fraction = transfer.fraction if transfer is not None else 0.0
        progress = Progress(
            deployment=task.deployment,
            target=task.target,
            stage=task.stage,
            fraction=1.0 if task.stage in ("verifying", "installing", "installed") else fraction,
            rate_bytes_per_s=transfer.rate_bytes_per_s if transfer is not None and fetching else 0,
            sources=transfer.sources if transfer is not None and fetching else 0,
            detail=task.reason,
        )
        self._progress.offer(progress)

    def _tell_due(self, now: Moment) -> None:
        due = self._progress.take_due(now_s=now.monotonic_s)
        self._commands += [SendProgress(progress=progress) for progress in due]
