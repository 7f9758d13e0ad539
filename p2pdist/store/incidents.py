"""Refusals and the audit log. Both are bounded: the oldest rows make room."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import sqlalchemy as sa

from p2pdist import limits
from p2pdist.ids import NodeId
from p2pdist.store.records import AuditRecord, RefusalRecord, record_of
from p2pdist.store.sql import clean, in_chunks
from p2pdist.store.tables import audit, refusals
from p2pdist.wire.messages import Refusal


def record_refusals(connection: sa.Connection, items: Sequence[tuple[NodeId, Refusal]]) -> None:
    """Store refusals. One with the same node and id is stored once; a later time counts as a repetition."""
    if not items:
        return
    counted = _counted(connection, {node for node, _ in items}, {clean(refusal.id) for _, refusal in items})
    new: dict[tuple[NodeId, str], dict[str, Any]] = {}
    again: dict[tuple[NodeId, str], dict[str, Any]] = {}
    for node, refusal in items:
        key = (node, clean(refusal.id))
        if key not in counted:
            new[key] = {
                "node": node,
                "id": key[1],
                "kind": refusal.kind,
                "subject": clean(refusal.subject),
                "reason": clean(refusal.reason),
            }
            counted[key] = (refusal.at, 1)
        elif counted[key][0] < refusal.at:
            counted[key] = (refusal.at, counted[key][1] + 1)
            if key not in new:
                again[key] = {"of_node": node, "of_id": key[1]}
    for key, row in (*new.items(), *again.items()):
        row["at"], row["times"] = counted[key]
    if new:
        connection.execute(refusals.insert(), list(new.values()))
    if again:
        same = sa.and_(refusals.c.node == sa.bindparam("of_node"), refusals.c.id == sa.bindparam("of_id"))
        connection.execute(sa.update(refusals).where(same), list(again.values()))
    _prune(connection, refusals, limits.REFUSALS_KEPT_MAX)


def list_refusals(
    connection: sa.Connection, *, rows_max: int, after: int = 0, node: NodeId | None = None
) -> list[RefusalRecord]:
    """Return refusals, newest first, at most *rows_max*, only those numbered above *after*, of *node*."""
    query = sa.select(refusals).where(refusals.c.number > after)
    if node is not None:
        query = query.where(refusals.c.node == node)
    query = query.order_by(refusals.c.number.desc()).limit(rows_max)
    return [record_of(row, RefusalRecord) for row in connection.execute(query).mappings()]


def count_refusals(connection: sa.Connection) -> int:
    """Return how many refusals are kept."""
    return connection.execute(sa.select(sa.func.count()).select_from(refusals)).scalar_one()


def add_audit(
    connection: sa.Connection, *, at: int, actor: str, action: str, subject: str, detail: str = ""
) -> None:
    """Write down who did what, in the transaction that does it."""
    connection.execute(
        audit.insert().values(
            at=at, actor=clean(actor), action=action, subject=clean(subject), detail=clean(detail)
        )
    )
    _prune(connection, audit, limits.AUDIT_KEPT_MAX)


def list_audit(connection: sa.Connection, *, rows_max: int) -> list[AuditRecord]:
    """Return the newest entries of the audit log, newest first."""
    query = sa.select(audit).order_by(audit.c.number.desc()).limit(rows_max)
    return [record_of(row, AuditRecord) for row in connection.execute(query).mappings()]


def _counted(
    connection: sa.Connection, nodes: Set[NodeId], ids: Set[str]
) -> dict[tuple[NodeId, str], tuple[int, int]]:
    """When these refusals were last, and how often they have been."""
    table, found = refusals, {}
    for some_nodes in in_chunks(sorted(nodes)):
        for some_ids in in_chunks(sorted(ids)):
            query = sa.select(table.c.node, table.c.id, table.c.at, table.c.times).where(
                table.c.node.in_(some_nodes), table.c.id.in_(some_ids)
            )
            for node, refusal_id, at, times in connection.execute(query):
                found[NodeId(node), str(refusal_id)] = (int(at), int(times))
    return found


def _prune(connection: sa.Connection, table: sa.Table, rows_max: int) -> None:
    """Drop what is older than the newest *rows_max* rows; numbers grow by one with each row."""
    newest = connection.execute(sa.select(sa.func.max(table.c.number))).scalar()
    if newest is not None and newest > rows_max:
        connection.execute(sa.delete(table).where(table.c.number <= newest - rows_max))
