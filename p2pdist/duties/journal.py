"""What a node remembers of its runs across a restart: one file, replaced as a whole.

It is small: a number for each task that is assigned, and what the admin server has not confirmed. Items are
written when their run ends; a run that did not end is begun again, and says them again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.files import make_directories, read_bounded, write_atomic
from p2pdist.logs import get_logger
from p2pdist.wire import codec
from p2pdist.wire.tasks import Assignment, Confirmed, Findings, Run, TaskResult

_log = get_logger()


class _Begun(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    times: Annotated[int, Meta(ge=1)]


class _Written(msgspec.Struct, frozen=True, kw_only=True):
    ended: dict[str, Run] = msgspec.field(default_factory=dict)
    begun: dict[str, _Begun] = msgspec.field(default_factory=dict)
    unconfirmed: list[Confirmed] = msgspec.field(default_factory=list)


class Journal:
    """The runs of one node. Everything but :meth:`save` is in memory.

    Args:
        path: The file. A damaged one costs what was not confirmed, and work that is done twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        written = _read(path)
        self.ended = dict(written.ended)
        self._begun = dict(written.begun)
        self.unconfirmed: dict[str, Confirmed] = {message.id: message for message in written.unconfirmed}
        self.lags = False
        """Whether what is written says something that is not true any more."""

    def has_begun(self, assignment: Assignment) -> bool:
        """Whether an earlier process has begun this run, and did not end it."""
        known = self._begun.get(assignment.task)
        return known is not None and known.run == assignment.run

    def begin(self, assignment: Assignment) -> int:
        """A run begins; return how often it has."""
        times = self._begun[assignment.task].times + 1 if self.has_begun(assignment) else 1
        self._begun[assignment.task] = _Begun(run=assignment.run, times=times)
        return times

    def add(self, items: Findings) -> None:
        """Items are to be said until they are confirmed."""
        self.unconfirmed[items.id] = items

    def end(self, items: Sequence[Findings], result: TaskResult) -> None:
        """A run has ended; it is not begun again."""
        self.ended[result.task] = max(result.run, self.ended.get(result.task, 0))
        self._begun.pop(result.task, None)
        for each in items:
            self.add(each)
        self.unconfirmed[result.id] = result

    def forget(self, ids: Iterable[str]) -> bool:
        """These are confirmed; return whether any of them was waited for."""
        known = [each for each in ids if self.unconfirmed.pop(each, None) is not None]
        self.lags = self.lags or bool(known)
        return bool(known)

    def keep(self, tasks: Collection[str]) -> None:
        """Forget what was done of other tasks: they will not be assigned again with the same run."""
        for known in (self.ended, self._begun):
            for task in [task for task in known if task not in tasks]:
                del known[task]

    def due(self, said: Collection[str]) -> Iterator[Confirmed]:
        """Yield what is to be said and is not among *said*: a result when its run's items are confirmed."""
        waiting = {(m.task, m.run) for m in self.unconfirmed.values() if isinstance(m, Findings)}
        for message in list(self.unconfirmed.values()):
            if isinstance(message, TaskResult) and (message.task, message.run) in waiting:
                continue
            if message.id not in said:
                yield message

    def save(self) -> None:
        """Write it down. Blocking.

        Raises:
            Unavailable: the disk is full or fails; what was written before is still there.
        """
        self.lags = False
        written = _Written(
            ended=dict(self.ended), begun=dict(self._begun), unconfirmed=list(self.unconfirmed.values())
        )
        make_directories(self._path.parent)
        write_atomic(self._path, codec.encode(written, bytes_max=limits.TASKS_JOURNAL_BYTES_MAX), mode=0o600)


def _read(path: Path) -> _Written:
    if not path.exists():
        return _Written()
    try:
        data = read_bounded(path, bytes_max=limits.TASKS_JOURNAL_BYTES_MAX)
        written: _Written = codec.decode(data, _Written, bytes_max=limits.TASKS_JOURNAL_BYTES_MAX)
    except P2PDistError as error:
        _log.error("task.journal_damaged", path=str(path), reason=str(error))
        return _Written()
    return written
