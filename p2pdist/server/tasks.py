"""The admin server's part in tasks: it begins their runs when they are due, and does those that are its own.

A run whose node is the admin server itself goes through the same runner as on a distribution point; what it
says goes straight into the store, by the functions that messages of nodes go through.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from p2pdist.core.schedules import next_time
from p2pdist.core.tasks import signed_by_people, why_not
from p2pdist.duties.journal import Journal
from p2pdist.duties.kinds import duty_of, perform
from p2pdist.duties.runner import Perform, Runner, Said
from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.node.reports import Bell
from p2pdist.server.control.plane import ControlPlane
from p2pdist.server.planestore import StoredPlane
from p2pdist.server.readers import given_now
from p2pdist.store import tasks, triggers
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import TaskRecord
from p2pdist.store.tasks import Given
from p2pdist.trust.catalog import Catalog, Duty, SeedGrant
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.questions import TaskQuestion
from p2pdist.wire.tasks import TaskProgress, TaskResult
from p2pdist.wire.work import AnyWork, decode_work

_log = get_logger()

_LOOK_S = 30.0  # for runs that nobody has begun; the wall clock may be set, too


class Tasks:
    """Begins runs, and does the server's own. The caller runs :meth:`run` in its own nursery.

    Args:
        key: The admin server's own identity.
        journal: The file in which it remembers its own runs.
        store: Where tasks are.
        plane: Tells nodes what they have to do.
        catalog: Returns what is signed and published; None before the first publication.
        perform: Does the server's own work.
    """

    def __init__(
        self,
        key: IdentityKey,
        journal: Path,
        store: FleetStore,
        plane: ControlPlane,
        catalog: Callable[[], Catalog | None],
        *,
        perform: Perform = perform,
    ) -> None:
        self.key = key
        self.node = key.node
        self.vault = plane.answers.vault
        self._store = store
        self._plane = plane
        self._catalog = catalog
        self._runner = Runner(self, Journal(journal), perform)
        plane.answers.own = self._runner.answered
        self._record = StoredPlane(store).record
        self._threads = trio.CapacityLimiter(1)
        self._due = Bell()

    async def changed(self) -> None:
        """Runs were begun, stopped or removed, or a schedule is new: everybody whom it concerns is told."""
        assignments = await self._plane.tasks_changed()
        self._runner.assign(assignments.get(self.node, ()))
        self._due.ring()

    def look(self) -> None:
        """Something has happened that a task may begin after: a run has ended, or metadata was published."""
        self._due.ring()

    def published(self) -> dict[str, int]:
        """Return the version of each role of the published metadata that people have signed."""
        catalog = self._catalog()
        return signed_by_people(catalog.versions) if catalog is not None else {}

    def given(self, record: TaskRecord, now: int) -> Given | None:
        """Return what the next run of a task is about and who does it, if that is not as the task has it.

        Raises:
            UsageError: this version does not know such work, or there is nobody to do it now.
        """
        return given_now(work_of(record), record.nodes, server=self.node, grants=self._grants, now=now)

    def refusals(self, record: TaskRecord, given: Given | None, now: int) -> dict[NodeId, str]:
        """Return which nodes must not do the next run of a task, by their grants, and why not.

        Raises:
            UsageError: this version does not know such work.
        """
        duty = duty_of(work_of(record))
        nodes, grants = given.nodes if given is not None else record.nodes, self._grants
        found = {node: why_not(grants.get(node), duty, now) for node in nodes if node != self.node}
        return {node: reason for node, reason in found.items() if reason}

    @property
    def _grants(self) -> Mapping[NodeId, SeedGrant]:
        catalog = self._catalog()
        return catalog.grants if catalog is not None else {}

    # The server's own runs ---------------------------------------------------------------------------

    async def say(self, message: Said) -> bool:
        """Take in what the server's own run says; False when the store is not there now."""
        if isinstance(message, TaskQuestion):
            await self._plane.answers.give(self.node, message)
            return True
        try:
            await trio.to_thread.run_sync(
                lambda: self._record([(self.node, "point", "", message)], {}, now=int(time.time())),
                limiter=self._threads,
            )
        except Unavailable as error:
            _log.warning("task.not_stored", task=message.task, reason=str(error))
            return False
        if not isinstance(message, TaskProgress):
            self._runner.confirmed([message.id])
        if isinstance(message, TaskResult):
            self.vault.forget(message.task, node=self.node, run=message.run)
            await self.changed()
        return True

    async def objection(self, duty: Duty) -> str:
        """The server needs no grant: the word that assigns is its own."""
        return ""

    # What is due ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Begin what is due, and do what is the server's own, until cancelled."""
        await self.changed()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._runner.run)
            while True:
                self.vault.expire()
                try:
                    await self._begin_due()
                    due = await self._store.read(tasks.next_due)
                except Unavailable as error:
                    _log.warning("tasks.not_looked_at", reason=str(error))
                    due = None
                await self._due.wait(min(_LOOK_S, _LOOK_S if due is None else due - time.time()))

    async def _begin_due(self) -> None:
        now = int(time.time())
        changed = await self._store.write(tasks.close_late_runs, now)
        published = self.published()
        for record in await self._store.read(triggers.due_tasks, now, published):
            following, given = record.next_at, None
            try:
                if following is not None and following <= now:
                    following = None
                    following = next_time(record.schedule, record.zone, now)
                given = self.given(record, now)
                refused = self.refusals(record, given, now)
            except (
                UsageError
            ) as error:  # other time zones or grants, or another version, than when it was made
                refused = dict.fromkeys(record.nodes, str(error))
            try:
                begun = await self._store.write(
                    triggers.begin_due_run,
                    record.id,
                    now=now,
                    published=published,
                    refused=refused,
                    given=given,
                    next_at=following,
                )
            except UsageError:
                begun = False  # it was removed in this moment
            if begun:
                _log.info("task.due", task=record.id, following=following)
                changed += 1
        if changed:
            assignments = await self._plane.tasks_changed()
            self._runner.assign(assignments.get(self.node, ()))


def work_of(record: TaskRecord) -> AnyWork:
    """Return what a task is about. Raises UsageError when this version does not know such work."""
    try:
        return decode_work(record.work)
    except PeerError as error:
        raise UsageError(
            f"the work of task {record.id} is not known to this version ({error})",
            hint="run the newer version of p2pdist-server that made it, or remove the task",
        ) from None
