"""When to tell the admin server how far a deployment is: changes at once, mere numbers now and then."""

from __future__ import annotations

from p2pdist.core.deployment_model import Task
from p2pdist.core.fetches import Transfer
from p2pdist.wire.messages import Progress


def progress_of(task: Task, transfer: Transfer | None) -> Progress:
    """Say how far a deployment is."""
    fetching = task.stage == "fetching" and transfer is not None
    fraction = transfer.fraction if transfer is not None else 0.0
    return Progress(
        deployment=task.deployment,
        target=task.target,
        stage=task.stage,
        fraction=1.0 if task.stage in ("verifying", "installing", "installed") else fraction,
        rate_bytes_per_s=transfer.rate_bytes_per_s if transfer is not None and fetching else 0,
        sources=transfer.sources if transfer is not None and fetching else 0,
        detail=task.reason,
        retry=task.retry,
    )


class ProgressTeller:
    """The newest progress of each deployment, and what was told of it last. Times are monotonic.

    Args:
        every_s: How long numbers (fraction, rate, sources) may be old.
    """

    def __init__(self, *, every_s: float) -> None:
        self._every_s = every_s
        self._newest: dict[str, Progress] = {}
        self._told: dict[str, tuple[float, Progress]] = {}

    def offer(self, progress: Progress) -> None:
        """This is how far a deployment is now."""
        self._newest[progress.deployment] = progress

    def forget(self, deployment: str) -> None:
        """The deployment is gone."""
        self._newest.pop(deployment, None)
        self._told.pop(deployment, None)

    def tell_again(self) -> None:
        """Whoever was told is not there any more."""
        self._told.clear()

    def take_due(self, *, now_s: float) -> list[Progress]:
        """Return what is to be told now."""
        due = [progress for progress in self._newest.values() if self._due_s(progress) <= now_s]
        for progress in due:
            self._told[progress.deployment] = (now_s, progress)
            del self._newest[progress.deployment]
        return due

    def next_deadline(self) -> float | None:
        """When :meth:`take_due` has something next."""
        return min((self._due_s(progress) for progress in self._newest.values()), default=None)

    def _due_s(self, progress: Progress) -> float:
        told = self._told.get(progress.deployment)
        if told is None or (told[1].stage, told[1].detail) != (progress.stage, progress.detail):
            return 0.0
        return told[0] + self._every_s
