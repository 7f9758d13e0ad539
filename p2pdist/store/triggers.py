"""Which tasks are due: by their schedule, after another task, on new metadata.

Nothing fires and is forgotten. A task remembers up to where its newest run has taken in what begins it, and
is due while there is more: so a restart loses nothing, and what happens several times during a run begins
one more.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from p2pdist.core.tasks import is_news
from p2pdist.ids import NodeId
from p2pdist.store.records import TaskRecord, record_of
from p2pdist.store.tables import task_runs, tasks
from p2pdist.store.tasks import OPEN_STATES, Given, begin_run, find_task, newest_done


def due_tasks(connection: sa.Connection, now: int, published: Mapping[str, int]) -> list[TaskRecord]:
    """Return the tasks whose next run is due, those that have waited for their moment longest first.

    Args:
        published: The version of each role of the metadata that people have signed and published.
    """
    may_be = sa.or_(tasks.c.next_at <= now, tasks.c.after != "", tasks.c.on_metadata == sa.true())
    query = sa.select(tasks).where(may_be).order_by(tasks.c.next_at, tasks.c.number)
    found = [record_of(row, TaskRecord) for row in connection.execute(query).mappings()]
    return [record for record in found if is_due(connection, record, now, published)]


def is_due(connection: sa.Connection, record: TaskRecord, now: int, published: Mapping[str, int]) -> bool:
    """Whether a run of a task is to begin. Only its schedule begins one while another is under way."""
    if record.next_at is not None and record.next_at <= now:
        return True
    triggered = (record.on_metadata and is_news(published, record.metadata_seen)) or (
        record.after != "" and newest_done(connection, record.after) > record.after_run
    )
    return triggered and not _is_open(connection, record)


def begin_due_run(
    connection: sa.Connection,
    task_id: str,
    *,
    now: int,
    published: Mapping[str, int],
    refused: Mapping[NodeId, str],
    next_at: int | None,
    given: Given | None = None,
) -> bool:
    """Begin the next run of a task if it is due, and say whether it was: another server may have been first.

    Raises:
        UsageError: there is no such task.
    """
    record = find_task(connection, task_id)
    if not is_due(connection, record, now, published):
        return False
    begin_run(
        connection, task_id, now=now, published=published, refused=refused, next_at=next_at, given=given
    )
    return True


def _is_open(connection: sa.Connection, record: TaskRecord) -> bool:
    still_open = sa.select(task_runs.c.node).where(
        task_runs.c.task == record.id, task_runs.c.run == record.run, task_runs.c.state.in_(OPEN_STATES)
    )
    return connection.execute(still_open.limit(1)).first() is not None
