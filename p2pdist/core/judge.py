"""The rules of :mod:`p2pdist.core.assessment`, applied to a device's deployments as they stand now."""

from __future__ import annotations

from collections.abc import Sequence

from p2pdist.core.assessment import Proceed, Refuse, Verdict, Wait, assess, product_key, supersedes
from p2pdist.core.deployment_model import DeploymentSettings, Task
from p2pdist.core.ledger import Ledger
from p2pdist.ids import ChannelName, swarm_of
from p2pdist.trust.catalog import Catalog, Release
from p2pdist.trust.contents import channel_role


class Judge:
    """Knows the facts that the rules need, and changes nothing.

    Attributes:
        catalog: The verified metadata; None while there is none that is valid.
        swarms: What the device's certificate names.
    """

    def __init__(self, settings: DeploymentSettings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self.catalog: Catalog | None = None
        self.swarms: frozenset[str] = frozenset()

    @property
    def fresh(self) -> bool:
        """Whether the verified metadata is recent enough to install by. What is stale may be fetched."""
        return self.catalog is not None and not self.catalog.stale

    def release(self, task: Task) -> Release | None:
        """What the verified metadata says of a task's target now."""
        return self.catalog.releases.get(task.target) if self.catalog is not None else None

    def verdict(self, task: Task) -> Verdict:
        """Whether a task's target may be installed, other tasks left aside."""
        if self.catalog is None:
            return Wait(reason="there is no valid signed metadata here yet")
        release = self.release(task)
        if release is None:
            return _absence(task, self.catalog)
        return assess(
            release,
            objection=self._settings.objection(release),
            floor=self._ledger.floor(product_key(release)),
            installed=self._ledger.installed,
            swarm=swarm_of(release.channel, self._settings.fleet),
            swarms=self.swarms,
        )

    def rivals(self, hand: str | None) -> list[Task]:
        """Every task that may be installed, now or after a pause. *hand* is the one in hand."""
        return [
            task
            for task in self._ledger.tasks()
            if not (task.ended or task.starved)
            and (task.deployment == hand or task.begun or self.verdict(task) == Proceed())
        ]

    def may_install(self, task: Task, hand: str | None) -> bool:
        """Whether what was just verified is still what is wanted."""
        unchanged = task.release is not None and self.release(task) == task.release
        overtaken = overtaker(task, self.rivals(hand)) is not None
        return self.fresh and task.listed and unchanged and not overtaken and self.verdict(task) == Proceed()


def overtaker(task: Task, rivals: Sequence[Task]) -> Release | None:
    """The newer release of the same product that makes *task* wait; None if it need not."""
    if task.begun or task.release is None:
        return None
    for rival in rivals:
        if rival.release is not None and supersedes(rival.release, task.release):
            return rival.release
    return None


def _absence(task: Task, catalog: Catalog) -> Verdict:
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
