"""Does what is assigned to this node, and sees to it that the admin server hears what came of it.

One :class:`Runner` runs in a seed node, and one in the admin server for the tasks that it does itself. What
it does comes from :mod:`p2pdist.duties.kinds`; how its words reach the admin server, and whether it may, from
its :class:`Ports`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.core.tasks import decide
from p2pdist.duties.journal import Journal
from p2pdist.duties.kinds import duty_of, perform
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import P2PDistError, PeerError, Unavailable
from p2pdist.logs import get_logger
from p2pdist.node.reports import Bell
from p2pdist.trust.catalog import Duty
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.questions import TaskAnswer, TaskQuestion
from p2pdist.wire.tasks import Assignment, Confirmed, Findings, TaskProgress, TaskResult
from p2pdist.wire.work import AnyWork, decode_work

_log = get_logger()

_CLOCK_LOOK_S = 30.0  # the wall clock may be set while a run waits for its time

Said: TypeAlias = TaskProgress | TaskQuestion | Confirmed
Perform: TypeAlias = Callable[[AnyWork, RunPort], Awaitable[Ended]]


class Ports(Protocol):
    """What a runner needs of the program around it."""

    async def say(self, message: Said) -> bool:
        """Send a message to the admin server; False when there is no way now."""

    @property
    def key(self) -> IdentityKey:
        """This node's identity, for which secrets are sealed."""

    async def objection(self, duty: Duty) -> str:
        """Say why this node must not do what *duty* is for; empty when it may.

        What may allow it can be on its way: this waits for it for some seconds.
        """


class _Running:
    __slots__ = ("port", "run", "scope")

    def __init__(self, run: int, port: RunPort) -> None:
        self.run = run
        self.port = port
        self.scope = trio.CancelScope()


class Runner:
    """The runs of one node. The caller runs :meth:`run` in its own nursery.

    Args:
        ports: The way to the admin server, and the node's grant.
        journal: What an earlier process of this node knew.
        perform: Does a piece of work.
    """

    def __init__(self, ports: Ports, journal: Journal, perform: Perform = perform) -> None:
        self._ports = ports
        self._journal = journal
        self._perform = perform
        self._assignments: tuple[Assignment, ...] | None = None
        self._running: dict[str, _Running] = {}
        self._said: set[str] = set()  # over the present link
        self._changed = Bell()
        self._unsaid = Bell()
        self._room = trio.Event()
        self._places = trio.CapacityLimiter(limits.TASK_RUNS_ACTIVE_MAX)

    # What the program around it says ----------------------------------------------------------------

    def assign(self, assignments: Sequence[Assignment]) -> None:
        """This is everything that is assigned now."""
        self._assignments = tuple(assignments)
        self._changed.ring()

    def linked(self) -> None:
        """There is a new way to the admin server: what is not confirmed is said again."""
        self._said.clear()
        self._unsaid.ring()

    def confirmed(self, ids: Iterable[str]) -> None:
        """The admin server has these on its disk. Unknown ids are fine."""
        if self._journal.forget(ids):
            self._room.set()
            self._unsaid.ring()

    def answered(self, answer: TaskAnswer) -> None:
        """The admin server's answer to what a run has asked; one that nobody waits for is fine."""
        running = self._running.get(answer.task)
        if running is not None and running.run == answer.run:
            running.port.answered(answer)

    @property
    def busy(self) -> bool:
        """Whether anything is under way or not confirmed."""
        return bool(self._running or self._journal.unconfirmed)

    # Running -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Begin, end and report runs until cancelled. What was under way then is begun again next time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._speak)
            while True:
                await self._changed.wait()
                self._look(nursery)

    def _look(self, nursery: trio.Nursery) -> None:
        if self._assignments is None:
            return
        running = {task: each.run for task, each in self._running.items()}
        decision = decide(self._assignments, running=running, ended=self._journal.ended)
        for task in decision.cancel:
            self._running[task].scope.cancel()
        for assignment in decision.begin:
            port = RunPort(
                assignment, say=self._ports.say, room=self._wait_room, add=self._add, key=self._ports.key
            )
            self._running[assignment.task] = running_now = _Running(assignment.run, port)
            nursery.start_soon(self._do, assignment, running_now)
        self._journal.keep({assignment.task for assignment in self._assignments} | set(self._running))

    async def _do(self, assignment: Assignment, running: _Running) -> None:
        began = trio.current_time()
        _log.info("task.begun", task=assignment.task, run=assignment.run)
        with running.scope:
            ended = await self._when_it_is_time(assignment, running.port)
        if running.scope.cancelled_caught:
            ended = Ended(outcome="cancelled")
        _log.info("task.ended", task=assignment.task, run=assignment.run, outcome=ended.outcome)
        result = TaskResult(
            id=nacl.utils.random(12).hex(),
            task=assignment.task,
            run=assignment.run,
            outcome=ended.outcome,
            reason=ended.reason[: limits.TEXT_CHARS_MAX],
            figures=dict(ended.figures),
            seconds=trio.current_time() - began,
            finished=int(time.time()),
        )
        self._journal.end(running.port.last_findings(), result)
        await self._save()
        del self._running[assignment.task]
        self._unsaid.ring()
        self._changed.ring()

    async def _when_it_is_time(self, assignment: Assignment, port: RunPort) -> Ended:
        while (wait := assignment.not_before - time.time()) > 0:
            await trio.sleep(min(wait, _CLOCK_LOOK_S))
        async with self._places:
            if time.time() > assignment.not_after and not self._journal.has_begun(assignment):
                return Ended(outcome="refused", reason="it came too late, by the clock of this node")
            with trio.move_on_after(limits.TASK_RUN_S_MAX):
                return await self._checked(assignment, port)
        return Ended(outcome="failed", reason=f"it has not ended in {limits.TASK_RUN_S_MAX} seconds")

    async def _checked(self, assignment: Assignment, port: RunPort) -> Ended:
        try:
            work = decode_work(assignment.work)
        except PeerError as error:
            return Ended(outcome="refused", reason=f"this version does not know such work: {error}")
        if objection := await self._ports.objection(duty_of(work)):
            return Ended(outcome="refused", reason=objection)
        if self._journal.begin(assignment) > limits.TASK_BEGUN_MAX:
            return Ended(outcome="failed", reason="this node was ended each time that it was begun")
        await self._save()
        port.progress("begun")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(port.tell)
            try:
                ended = await self._perform(work, port)
            except* P2PDistError as errors:
                ended = Ended(outcome="failed", reason="; ".join(map(str, _each(errors))))
            nursery.cancel_scope.cancel()
        return ended

    async def _wait_room(self) -> None:
        while len(self._journal.unconfirmed) >= limits.TASK_UNCONFIRMED_MAX:
            self._room = trio.Event() if self._room.is_set() else self._room
            await self._room.wait()

    def _add(self, items: Findings) -> None:
        self._journal.add(items)
        self._unsaid.ring()

    async def _save(self) -> None:
        """A full disk costs a repeated run after a restart, and nothing else."""
        try:
            await trio.to_thread.run_sync(self._journal.save)
        except Unavailable as error:
            _log.warning("task.journal_not_written", reason=str(error))

    # Speaking ----------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        """Say what is not confirmed, and again; the result of a run after all of its items."""
        while True:
            for message in self._journal.due(self._said):
                if not await self._ports.say(message):
                    break  # the next link rings
                self._said.add(message.id)
            if self._journal.lags:
                await self._save()
            if not await self._unsaid.wait(limits.TASK_UNCONFIRMED_AGAIN_S):
                self._said.clear()


def _each(group: BaseExceptionGroup[P2PDistError]) -> Iterator[P2PDistError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error
