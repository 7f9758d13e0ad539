"""From what a device knows to what it does next: the decisions behind :mod:`p2pdist.core.deployment`.

:meth:`Plan.advance` looks at everything afresh and may be called at any time; when nothing has changed
it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from p2pdist import limits
from p2pdist.core.assessment import AlreadyInstalled, Proceed, Refuse, Wait
from p2pdist.core.deployment_model import (
    Command,
    DeploymentSettings,
    Moment,
    RenewCertificate,
    SendProgress,
    SendRefusal,
    SendReport,
    Task,
    VerifyArtifact,
)
from p2pdist.core.fetches import Fetches
from p2pdist.core.judge import Judge, overtaker
from p2pdist.core.ledger import Ledger
from p2pdist.core.progress import ProgressTeller, progress_of
from p2pdist.ids import InfoHash, SwarmName
from p2pdist.trust.catalog import Release
from p2pdist.wire.messages import Report

_RENEW_AGAIN_S = 60.0
_AGAIN_FIRST_S, _AGAIN_MAX_S = 5.0, 900.0
_STALE = "fetched; the signed metadata here has expired, and nothing is installed until it is renewed"


class Plan:
    """What is to be done, in order.

    Attributes:
        hand: The deployment whose artifact is being verified or installed; None if none is.
        commands: What nobody has taken yet.
        progress: What is to be told, and when.
        renewals: The swarms that a certificate was asked for, and when to ask again.
    """

    def __init__(self, settings: DeploymentSettings, ledger: Ledger, judge: Judge, fetches: Fetches) -> None:
        self._settings = settings
        self._ledger = ledger
        self._judge = judge
        self._fetches = fetches
        self._retry_at: dict[str, float] = {}
        self._deferrals: dict[str, int] = {}
        self.hand: str | None = None
        self.commands: list[Command] = []
        self.progress = ProgressTeller(every_s=settings.progress_every_s)
        self.renewals: dict[SwarmName, float] = {}

    def advance(self, now: Moment) -> None:
        """Bring everything to where the facts allow it to be."""
        for task in self._ledger.tasks():
            if not task.listed and self.may_go(task):
                self.remove(task)
        self._report_starved(now)
        going = self._judge_all(now)
        chosen = self._choose_fetches(going, now)
        self._take_in_hand(chosen)
        for task in chosen:
            self._follow_transfer(task)
        self.commands += self._fetches.take_commands()
        for task in self._ledger.tasks():
            if not task.ended:
                self.tell(task)
        self.tell_due(now)
        for message in self._ledger.unconfirmed.take_due(now_s=now.monotonic_s):
            if isinstance(message, Report):
                self.commands.append(SendReport(report=message))
            else:
                self.commands.append(SendRefusal(refusal=message))

    def next_deadline(self) -> float | None:
        """The monotonic time at which :meth:`advance` has something to do; None: never."""
        deadlines = [
            self._ledger.unconfirmed.next_deadline(),
            self._fetches.next_deadline(patience_s=self._settings.content_patience_s),
            self.progress.next_deadline(),
            *self._retry_at.values(),
            *self.renewals.values(),
        ]
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def end(
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
        """End a deployment for now, and make its report."""
        reason = reason[: limits.TEXT_CHARS_MAX]
        self._retry_at.pop(task.deployment, None)
        task = self._ledger.keep(task.deployment, stage=stage, reason=reason, begun=False, starved=starved)
        self._ledger.report(task, now, exit_code=exit_code, output=output)
        self.tell(task)

    def defer(self, task: Task, now: Moment) -> None:
        """Leave a task alone for a while, each time for longer."""
        tries = self._deferrals.get(task.deployment, 0)
        self._deferrals[task.deployment] = tries + 1
        self._retry_at[task.deployment] = now.monotonic_s + min(
            _AGAIN_MAX_S, _AGAIN_FIRST_S * 2.0 ** min(tries, 16)
        )

    def remove(self, task: Task) -> None:
        """Forget a deployment, and its artifact if nothing else here needs it."""
        self._ledger.remove(task.deployment)
        self._retry_at.pop(task.deployment, None)
        self._deferrals.pop(task.deployment, None)
        self.progress.forget(task.deployment)
        self._forget(task)

    def may_go(self, task: Task) -> bool:
        """Whether a task that nobody wants can be dropped: what was begun is brought to its end."""
        return task.deployment != self.hand and not task.begun

    def tell(self, task: Task) -> None:
        """Have a deployment's progress told: a change soon, a number in its time."""
        transfer = self._fetches.get(task.release.info_hash) if task.release is not None else None
        self.progress.offer(progress_of(task, transfer))

    def tell_due(self, now: Moment) -> None:
        """Tell the progress whose time has come."""
        due = self.progress.take_due(now_s=now.monotonic_s)
        self.commands += [SendProgress(progress=progress) for progress in due]

    def drop_bases(self) -> None:
        """Free the space of what is only kept for deltas."""
        kept = self._ledger.bases().values()
        self._ledger.drop_bases()
        for release in kept:
            self.free(release)

    def free(self, release: Release, *, task: Task | None = None) -> None:
        """Free an artifact's space and its deltas', unless a deployment still has a use for it, *task* left
        aside. The artifact of what is installed stays: the next delta starts from it."""
        without = task.deployment if task is not None else ""
        using = [t for t in self._ledger.using(release.info_hash) if t.deployment != without]
        if any(other.stage != "refused" for other in using):
            return
        if release.info_hash not in self._ledger.bases():
            self._fetches.forget(release.info_hash)
        for delta in release.deltas:
            self._fetches.forget(InfoHash(delta.info_hash))

    def _forget(self, task: Task) -> None:
        if task.release is not None:
            self.free(task.release, task=task)

    def _judge_all(self, now: Moment) -> list[Task]:
        """Apply the rules to whatever can still change; return what may be fetched and installed."""
        self._retry_at = {d: at for d, at in self._retry_at.items() if at > now.monotonic_s}
        lacking: set[SwarmName] = set()
        going: list[Task] = []
        for task in map(self._reconsider, self._ledger.tasks()):
            if task.ended or task.deployment == self.hand:
                continue
            if task.begun:
                going.append(task)
                continue
            verdict = self._judge.verdict(task)
            task = self._refresh(task)
            match verdict:
                case Refuse():
                    self._refuse(task, verdict, now)
                case AlreadyInstalled():
                    task = self._ledger.keep(task.deployment, serves=self._is_complete(task))
                    self.end(task, "installed", "it was installed already", now)
                case Wait(reason=reason, swarm=swarm):
                    self._wait(task, reason)
                    if swarm is not None:
                        lacking.add(swarm)
                case Proceed():
                    going.append(task)
        self._renew_for(lacking, now)
        rivals = self._judge.rivals(self.hand)
        for task in list(going):
            newer = overtaker(task, rivals)
            if newer is not None:
                self._wait(task, f"superseded by {newer.target}, which is newer")
                self._ledger.keep(task.deployment, superseded=True)
                going.remove(task)
        return going

    def _reconsider(self, task: Task) -> Task:
        """Judge a refused deployment anew when what is signed of its target has changed.

        An order may arrive before the metadata that permits it.
        """
        release = self._judge.release(task) if task.stage == "refused" and task.listed else None
        if release is None or release == task.release:
            return task
        return self._ledger.keep(
            task.deployment, stage="waiting", reason="", attempt=task.attempt + 1, bad_artifacts=0
        )

    def _refuse(self, task: Task, verdict: Refuse, now: Moment) -> None:
        reason = verdict.reason
        if verdict.kind == "rollback" and task.superseded:
            reason = f"superseded: {reason}"  # it came in time; nobody offered an old release as a new one
        else:
            self._ledger.refuse(verdict.kind, task.target, reason, now)
        self.end(task, "refused", reason, now)
        self._forget(task)

    def _refresh(self, task: Task) -> Task:
        """Take over what the catalog now says of the task's target."""
        release = self._judge.release(task)
        if release is None or release == task.release:
            return task
        if task.release is not None and task.release.info_hash != release.info_hash:
            self._forget(task)
        return self._ledger.keep(task.deployment, release=release)

    def _choose_fetches(self, going: Sequence[Task], now: Moment) -> list[Task]:
        """Say which artifacts are wanted; return the tasks among *going* whose artifact is."""
        wanted: dict[InfoHash, Release] = {}
        chosen: list[Task] = []
        active = 0
        hand = self._ledger.get(self.hand)
        if hand is not None and hand.release is not None:
            wanted[hand.release.info_hash] = hand.release
        for task in going:
            assert task.release is not None
            info_hash = task.release.info_hash
            transfer = self._fetches.get(info_hash)
            idle = transfer is not None and (transfer.complete or transfer.pauses(now.monotonic_s))
            if info_hash not in wanted and not idle and not task.starved:
                if active >= limits.FETCHES_ACTIVE_MAX:
                    self._wait(task, "other artifacts are fetched first")
                    continue
                active += 1
            wanted[info_hash] = task.release
            chosen.append(task)
        for task in self._ledger.tasks():
            if task.serves and task.release is not None and self._judge.release(task) == task.release:
                wanted.setdefault(task.release.info_hash, task.release)
        self._fetches.set_wanted(wanted, now_s=now.monotonic_s)
        return chosen

    def _take_in_hand(self, chosen: Sequence[Task]) -> None:
        """Begin to verify the most urgent complete artifact, unless one is in hand.

        By metadata that is stale nothing is begun: what it permits may have been revoked since.
        """
        if self.hand is not None:
            return
        for task in sorted(chosen, key=lambda t: not t.begun):
            assert task.release is not None
            ready = self._is_complete(task) and task.deployment not in self._retry_at
            if task.begun or (ready and self._judge.fresh):
                self.hand = task.deployment
                self._ledger.keep(task.deployment, stage="verifying", reason="", starved=False)
                self.commands.append(VerifyArtifact(attempt=task.attempt_name, release=task.release))
                return

    def _follow_transfer(self, task: Task) -> None:
        """Set a task's stage by how far its artifact is."""
        assert task.release is not None
        transfer = self._fetches.get(task.release.info_hash)
        if task.deployment == self.hand or transfer is None or task.deployment in self._retry_at:
            return
        if transfer.complete:
            self._wait(task, "fetched; another release is being installed" if self._judge.fresh else _STALE)
        elif transfer.running and not task.starved:
            self._ledger.keep(task.deployment, stage="fetching", reason=transfer.trouble or transfer.waits)
        else:
            self._wait(task, transfer.trouble)

    def _wait(self, task: Task, reason: str) -> None:
        if not task.starved:
            self._ledger.keep(task.deployment, stage="waiting", reason=reason[: limits.TEXT_CHARS_MAX])

    def _is_complete(self, task: Task) -> bool:
        transfer = self._fetches.get(task.release.info_hash) if task.release is not None else None
        return transfer is not None and transfer.complete

    def _renew_for(self, lacking: set[SwarmName], now: Moment) -> None:
        for swarm in [swarm for swarm in self.renewals if swarm not in lacking]:
            del self.renewals[swarm]
        for swarm in sorted(lacking):
            if now.monotonic_s >= self.renewals.get(swarm, now.monotonic_s):
                self.renewals[swarm] = now.monotonic_s + _RENEW_AGAIN_S
                self.commands.append(RenewCertificate(swarm=swarm))

    def _report_starved(self, now: Moment) -> None:
        patience = self._settings.content_patience_s
        for info_hash in self._fetches.take_starved(now_s=now.monotonic_s, patience_s=patience):
            transfer = self._fetches.get(info_hash)
            for task in self._ledger.using(info_hash):
                if task.stage == "fetching" and transfer is not None:
                    reason = f"no source serves what was signed: {transfer.trouble}"
                    self.end(task, "failed", reason, now, starved=True)
