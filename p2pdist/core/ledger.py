"""What a device must not forget: its deployments, what is installed, what is not confirmed.

Every change is also a record for a journal. Records are small, and independent of each other except
that all changes of one event belong together.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from p2pdist import limits
from p2pdist.core.assessment import product_key
from p2pdist.core.deployment_model import Moment, RefusalKind, Task
from p2pdist.core.unconfirmed import Unconfirmed
from p2pdist.ids import InfoHash
from p2pdist.trust.catalog import Release
from p2pdist.wire import codec
from p2pdist.wire.messages import Refusal, Report

_TASK, _PRODUCT, _COUNTER = "task/", "product/", "counter"


class _Product(msgspec.Struct, frozen=True, kw_only=True):
    """``base`` is the installed release as long as its artifact is kept, from which deltas start."""

    installed: int
    floor: int
    base: Release | None = None


class Ledger:
    """The records of one device.

    Args:
        records: What :meth:`take_changes` said in earlier runs, put together.

    Raises:
        PeerError: a record is damaged.

    Attributes:
        unconfirmed: Reports and refusals on their way to the admin server.
        installed: ``channel/product`` to the sequence that is installed.
    """

    def __init__(self, records: Mapping[str, bytes]) -> None:
        self._tasks: dict[str, Task] = {}
        self._products: dict[str, _Product] = {}
        self._counter = 0
        self._changes: dict[str, bytes | None] = {}
        self.unconfirmed = Unconfirmed(records)
        for key, data in records.items():
            if key.startswith(_TASK):
                task: Task = codec.decode(data, Task)
                self._tasks[task.deployment] = task
            elif key.startswith(_PRODUCT):
                self._products[key.removeprefix(_PRODUCT)] = codec.decode(data, _Product)
            elif key == _COUNTER:
                self._counter = codec.decode(data, int)
        self.installed = {key: product.installed for key, product in self._products.items()}

    def tasks(self) -> tuple[Task, ...]:
        """Every deployment, most urgent first."""
        return tuple(sorted(self._tasks.values(), key=lambda t: (t.order, t.learned, t.deployment)))

    def get(self, deployment: str | None) -> Task | None:
        """Return one deployment, if it is there."""
        return self._tasks.get(deployment) if deployment is not None else None

    def using(self, info_hash: InfoHash) -> list[Task]:
        """Return every deployment, ended or not, whose release is this artifact."""
        return [t for t in self.tasks() if t.release is not None and t.release.info_hash == info_hash]

    def add(self, task: Task) -> None:
        """Take in a new deployment."""
        self._tasks[task.deployment] = task
        self._changes[_TASK + task.deployment] = codec.encode(task)

    def keep(self, deployment: str, **changes: object) -> Task:
        """Change a deployment's task; return it as it is now."""
        before = self._tasks[deployment]
        after = msgspec.structs.replace(before, **changes)
        if after != before:
            self.add(after)
        return after

    def remove(self, deployment: str) -> None:
        """Forget a deployment. Its report, if there is one, stays until it is confirmed."""
        del self._tasks[deployment]
        self._changes[_TASK + deployment] = None

    def floor(self, product: str) -> int:
        """The highest sequence of ``channel/product`` that was ever installed; 0 for none."""
        known = self._products.get(product)
        return known.floor if known is not None else 0

    def set_installed(self, release: Release) -> None:
        """The release is what is installed of its product now."""
        key = product_key(release)
        floor = max(release.sequence, self.floor(key))
        self._set(key, _Product(installed=release.sequence, floor=floor, base=release))
        self.installed[key] = release.sequence

    def base(self, release: Release) -> Release | None:
        """The installed release of the same product, as long as its artifact is kept."""
        known = self._products.get(product_key(release))
        return known.base if known is not None else None

    def bases(self) -> dict[InfoHash, Release]:
        """Every installed release whose artifact is kept."""
        kept = [product.base for product in self._products.values() if product.base is not None]
        return {release.info_hash: release for release in kept}

    def drop_bases(self) -> None:
        """Keep no artifact only because it is installed."""
        for key, product in list(self._products.items()):
            if product.base is not None:
                self._set(key, msgspec.structs.replace(product, base=None))

    def _set(self, key: str, product: _Product) -> None:
        self._products[key] = product
        self._changes[_PRODUCT + key] = codec.encode(product)

    def report(self, task: Task, now: Moment, *, exit_code: int | None, output: bytes) -> None:
        """Make the report of a deployment that has just ended."""
        assert task.stage in ("installed", "failed", "refused")
        report = Report(
            id=self._identifier(now),
            deployment=task.deployment,
            target=task.target,
            stage=task.stage,
            reason=task.reason,
            exit_code=exit_code,
            output=output[-limits.OUTPUT_BYTES_MAX :],
            seconds=max(0.0, now.unix_s - task.learned),
            finished=max(0, int(now.unix_s)),
            retry=task.retry,
        )
        self.unconfirmed.add_report(report, now_s=now.monotonic_s)

    def refuse(self, kind: RefusalKind, subject: str, reason: str, now: Moment) -> None:
        """Make a refusal, unless the same one waits already."""
        refusal = Refusal(
            id=self._identifier(now),
            kind=kind,
            subject=subject[: limits.TEXT_CHARS_MAX],
            reason=reason[: limits.TEXT_CHARS_MAX],
            at=max(0, int(now.unix_s)),
        )
        self.unconfirmed.add_refusal(refusal, now_s=now.monotonic_s)

    def take_changes(self) -> dict[str, bytes | None]:
        """Return the records that changed since the last call; None stands for a removed one."""
        changes, self._changes = self._changes, {}
        return changes | self.unconfirmed.take_changes()

    def _identifier(self, now: Moment) -> str:
        self._counter += 1
        self._changes[_COUNTER] = codec.encode(self._counter)
        return f"{max(0, int(now.unix_s)):x}-{self._counter:x}"
