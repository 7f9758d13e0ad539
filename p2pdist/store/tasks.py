"""What nodes are given to do, and how far they are with it. A task's runs are numbered from 1."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.tasks import starts_at
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.store.records import TaskItemRecord, TaskRecord, TaskRunRecord, record_of
from p2pdist.store.sql import clean, upsert
from p2pdist.store.tables import task_items, task_runs, tasks
from p2pdist.store.tokens import remove_unused_of_task
from p2pdist.wire.tasks import Assignment, Confirmed, TaskItems, TaskProgress, TaskResult

OPEN_STATES = ("waiting", "running")
"""A run that has not ended on a node is in one of these."""


class Given(NamedTuple):
    """What a run is about, packed, and who does it."""

    work: bytes
    nodes: Sequence[NodeId]


_LATE_S = 60  # after the end of the window in which a node should have begun


def add_task(
    connection: sa.Connection,
    *,
    task_id: str,
    work: bytes,
    nodes: Sequence[NodeId],
    by: str,
    now: int,
    window_s: int,
    spread_s: int,
    schedule: str = "",
    zone: str = "",
    next_at: int | None = None,
    after: str = "",
    on_metadata: bool = False,
    published: Mapping[str, int] | None = None,
) -> TaskRecord:
    """Make a task; it does nothing before its first run.

    Args:
        after: The task whose runs begin one of this: those that end after this moment.
        on_metadata: Whether metadata that is newer than what is *published* now begins a run.

    Raises:
        UsageError: there are too many, or there is no task *after* which it could begin.
    """
    followed = find_task(connection, after).id if after else ""
    count = connection.execute(sa.select(sa.func.count()).select_from(tasks)).scalar_one()
    if count >= limits.TASKS_MAX:
        raise UsageError(f"there are {count} tasks", hint="remove old ones: p2pdist task remove ID")
    values = {
        "id": task_id,
        "work": work,
        "nodes": list(nodes),
        "created": now,
        "created_by": by,
        "window_s": window_s,
        "spread_s": spread_s,
        "schedule": schedule,
        "zone": zone,
        "next_at": next_at,
        "after": followed,
        "after_run": newest_done(connection, followed) if followed else 0,
        "on_metadata": on_metadata,
        "metadata_seen": dict(published or {}),
    }
    connection.execute(tasks.insert().values(**values))
    return find_task(connection, task_id)


def find_task(connection: sa.Connection, task_id: str) -> TaskRecord:
    """Return one task. Raises UsageError if there is none with this id."""
    row = connection.execute(sa.select(tasks).where(tasks.c.id == clean(task_id))).mappings().first()
    if row is None:
        raise UsageError(f"there is no task {task_id[:64]}", hint="p2pdist task list shows them")
    return record_of(row, TaskRecord)


def list_tasks(connection: sa.Connection) -> list[TaskRecord]:
    """Return every task, newest first."""
    query = sa.select(tasks).order_by(tasks.c.number.desc())
    return [record_of(row, TaskRecord) for row in connection.execute(query).mappings()]


def remove_task(connection: sa.Connection, task_id: str) -> TaskRecord:
    """Remove a task with everything that is known of its runs.

    Raises:
        UsageError: it is not there, or another task begins after it.
    """
    record = find_task(connection, task_id)
    follower = connection.execute(sa.select(tasks.c.id).where(tasks.c.after == record.id).limit(1)).scalar()
    if follower is not None:
        raise UsageError(
            f"task {follower} begins after {record.id}",
            hint=f"remove that first: p2pdist task remove {follower}",
        )
    remove_unused_of_task(connection, record.id, record.run)
    connection.execute(sa.delete(tasks).where(tasks.c.id == record.id))
    return record


def begin_run(
    connection: sa.Connection,
    task_id: str,
    *,
    now: int,
    refused: Mapping[NodeId, str],
    given: Given | None = None,
    next_at: int | None = None,
    published: Mapping[str, int] | None = None,
) -> TaskRecord:
    """Begin the next run of a task on all of its nodes; what is left of the one before ends.

    It takes in everything that would have begun one until now.

    Args:
        published: The version of each role of the metadata that is published.
        refused: Nodes that are known not to do it, and why.
        given: The task's work and nodes from now on, where they are others than so far.
        next_at: When the run after this one begins.

    Raises:
        UsageError: there is no such task.
    """
    record = find_task(connection, task_id)
    _close(connection, record.id, "another run was begun", now)
    remove_unused_of_task(connection, record.id, record.run)
    run = record.run + 1
    taken_in = {
        "after_run": newest_done(connection, record.after) if record.after else 0,
        "metadata_seen": {**(record.metadata_seen or {}), **(published or {})},
    }
    connection.execute(
        sa.update(tasks).where(tasks.c.id == record.id).values(run=run, next_at=next_at, **taken_in)
    )
    if given is not None:
        now_given = {"work": given.work, "nodes": list(given.nodes)}
        connection.execute(sa.update(tasks).where(tasks.c.id == record.id).values(**now_given))
    rows = []
    for node in given.nodes if given is not None else record.nodes:
        begins = starts_at(now, record.spread_s, task=record.id, node=node)
        reason = refused.get(node, "")
        rows.append(
            {
                "task": record.id,
                "run": run,
                "node": node,
                # its clock may be behind ours: what is to begin at once does not wait for it
                "not_before": begins if begins > now else 0,
                "not_after": begins + record.window_s,
                "state": "refused" if reason else "waiting",
                "reason": clean(reason),
                "figures": {},
                "created": now,
                "updated": now,
                "finished": now if reason else None,
            }
        )
    connection.execute(task_runs.insert(), rows)
    for table in (task_runs, task_items):
        too_old = sa.and_(table.c.task == record.id, table.c.run <= run - limits.TASK_RUNS_KEPT)
        connection.execute(sa.delete(table).where(too_old))
    return find_task(connection, record.id)


def stop_task(connection: sa.Connection, task_id: str, by: str, now: int) -> TaskRecord:
    """End the present run of a task where it has not ended. A node's own word on it still counts later."""
    record = find_task(connection, task_id)
    _close(connection, record.id, f"stopped by {by}", now)
    remove_unused_of_task(connection, record.id, record.run)
    return record


def close_late_runs(connection: sa.Connection, now: int) -> int:
    """End the runs that nodes have not begun in their window: they were away. Returns how many."""
    late = sa.and_(task_runs.c.state == "waiting", task_runs.c.not_after < now - _LATE_S)
    ended = {"state": "failed", "reason": "it was not begun in time: the node was away", "finished": now}
    return connection.execute(sa.update(task_runs).where(late).values(updated=now, **ended)).rowcount


def newest_done(connection: sa.Connection, task_id: str) -> int:
    """Return the newest run of a task that every one of its nodes has done, 0 if there is none."""
    runs = sa.select(task_runs.c.run).where(task_runs.c.task == task_id)
    undone = connection.execute(runs.where(task_runs.c.state != "done").distinct()).scalars().all()
    return max(set(connection.execute(runs.distinct()).scalars()) - set(undone), default=0)


def next_due(connection: sa.Connection) -> int | None:
    """Return when the next run of any task is due by its schedule, Unix seconds."""
    return connection.execute(sa.select(sa.func.min(tasks.c.next_at))).scalar()


def active_assignments(connection: sa.Connection) -> dict[NodeId, tuple[Assignment, ...]]:
    """Return what each node has to do, oldest first, as much of it as one may have at once."""
    query = (
        sa.select(task_runs, tasks.c.work)
        .join(tasks, tasks.c.id == task_runs.c.task)
        .where(task_runs.c.state.in_(OPEN_STATES))
        .order_by(task_runs.c.created, tasks.c.number)
    )
    found: dict[NodeId, list[Assignment]] = {}
    for row in connection.execute(query).mappings():
        had = found.setdefault(NodeId(row["node"]), [])
        size = len(row["work"]) + sum(len(each.work) for each in had)
        if len(had) < limits.ASSIGNMENTS_MAX and size <= limits.ASSIGNMENTS_BYTES_MAX:
            had.append(record_of(row, Assignment))
    return {node: tuple(assigned) for node, assigned in found.items()}


def run_nodes(connection: sa.Connection, task_id: str, run: int) -> list[TaskRunRecord]:
    """Return how far each node is with a run."""
    query = (
        sa.select(task_runs)
        .where(task_runs.c.task == task_id, task_runs.c.run == run)
        .order_by(task_runs.c.node)
    )
    return [record_of(row, TaskRunRecord) for row in connection.execute(query).mappings()]


def run_items(
    connection: sa.Connection, task_id: str, run: int, *, limit: int, offset: int
) -> tuple[int, list[TaskItemRecord]]:
    """Return how many items a run has, and some of them, in the order of their nodes and subjects."""
    where = sa.and_(task_items.c.task == task_id, task_items.c.run == run)
    count = connection.execute(sa.select(sa.func.count()).select_from(task_items).where(where)).scalar_one()
    order = (task_items.c.node, task_items.c.subject)
    query = sa.select(task_items).where(where).order_by(*order).limit(limit).offset(offset)
    return count, [record_of(row, TaskItemRecord) for row in connection.execute(query).mappings()]


def states_by_run(connection: sa.Connection) -> dict[tuple[str, int], dict[str, int]]:
    """Return, for the newest run of each task, on how many nodes it is in which state, by task and run."""
    query = (
        sa.select(task_runs.c.task, task_runs.c.run, task_runs.c.state, sa.func.count())
        .join(tasks, sa.and_(tasks.c.id == task_runs.c.task, tasks.c.run == task_runs.c.run))
        .group_by(task_runs.c.task, task_runs.c.run, task_runs.c.state)
    )
    counted: dict[tuple[str, int], dict[str, int]] = {}
    for task, run, state, count in connection.execute(query):
        counted.setdefault((task, run), {})[state] = count
    return counted


# What nodes say ------------------------------------------------------------------------------------


def record_task_progress(
    connection: sa.Connection, said: Sequence[tuple[NodeId, TaskProgress]], now: int
) -> None:
    """Store how far nodes are. What has ended stays as it is, and so does what is not known."""
    for node, progress in said:
        values = {
            "state": "running",
            "step": clean(progress.step),
            "done": progress.done,
            "total": progress.total,
            "rate_bytes_per_s": progress.rate_bytes_per_s,
            "updated": now,
        }
        open_run = sa.and_(_of(task_runs, node, progress), task_runs.c.state.in_(OPEN_STATES))
        connection.execute(sa.update(task_runs).where(open_run).values(**values))


def record_task_items(connection: sa.Connection, said: Iterable[tuple[NodeId, TaskItems]], now: int) -> None:
    """Store what came of things that runs are about; the newest word on each counts.

    Of runs that are not known nothing is stored, of one on one node no more than there may be.
    """
    for node, items in said:
        if not is_known(connection, node, items):
            continue
        count = sa.select(sa.func.count()).select_from(task_items).where(_of(task_items, node, items))
        if connection.execute(count).scalar_one() + len(items.items) > limits.TASK_ITEMS_KEPT_MAX:
            continue
        rows: dict[str, dict[str, Any]] = {
            clean(item.subject): {
                "task": items.task,
                "run": items.run,
                "node": node,
                "subject": clean(item.subject),
                "state": item.state,
                "step": clean(item.step),
                "detail": clean(item.detail),
                "size_bytes": item.size_bytes,
                "updated": now,
            }
            for item in items.items
        }
        upsert(connection, task_items, list(rows.values()))


def record_task_results(
    connection: sa.Connection, said: Iterable[tuple[NodeId, TaskResult]], now: int
) -> None:
    """Store how runs ended on nodes. The first result of a run on a node counts."""
    for node, result in said:
        values: dict[str, Any] = {
            "state": result.outcome,
            "step": "",
            "rate_bytes_per_s": 0,
            "figures": {clean(name): count for name, count in result.figures.items()},
            "report": clean(result.id),
            "seconds": min(result.seconds, float(2**31)),
            "updated": now,
            "finished": now,
        }
        if result.outcome != "cancelled":  # else the server said why, before the node
            values["reason"] = clean(result.reason)
        unsaid = sa.and_(_of(task_runs, node, result), task_runs.c.report == "")
        if connection.execute(sa.update(task_runs).where(unsaid).values(**values)).rowcount:
            remove_unused_of_task(connection, clean(result.task), result.run)


def _of(table: sa.Table, node: NodeId, said: TaskProgress | Confirmed) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.task == clean(said.task), table.c.run == said.run, table.c.node == node)


def is_known(connection: sa.Connection, node: NodeId, said: Confirmed) -> bool:
    """Whether what a node says is of a run that it was given."""
    return (
        connection.execute(sa.select(task_runs.c.run).where(_of(task_runs, node, said))).first() is not None
    )


def _close(connection: sa.Connection, task_id: str, reason: str, now: int) -> None:
    still_open = sa.and_(task_runs.c.task == task_id, task_runs.c.state.in_(OPEN_STATES))
    ended = {"state": "cancelled", "reason": clean(reason), "rate_bytes_per_s": 0, "finished": now}
    connection.execute(sa.update(task_runs).where(still_open).values(updated=now, **ended))
