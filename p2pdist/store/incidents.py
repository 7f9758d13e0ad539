"""Refusals and the audit log. Both are bounded: the oldest rows make room."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from p2pdist import limits
from p2pdist.ids import NodeId
from p2pdist.store.records import AuditRecord, RefusalRecord, record_of
from p2pdist.store.sql import clean
from p2pdist.store.tables import audit, refusals
from p2pdist.wire.messages import Refusal


def record_refusals(connection: sa.Connection, items: Sequence[tuple[NodeId, Refusal]]) -> None:
    """Store refusals. One with the same node and id is stored once; a later time counts as a repetition."""
    if not items:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    for node, refusal in items:
        statement = insert(refusals).values(
            node=node,
            id=clean(refusal.id),
            kind=refusal.kind,
            subject=clean(refusal.subject),
            reason=clean(refusal.reason),
            at=refusal.at,
        )
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["node", "id"],
                set_={"at": statement.excluded.at, "times": refusals.c.times + 1},
                where=refusals.c.at < statement.excluded.at,
            )
        )
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


def _prune(connection: sa.Connection, table: sa.Table, rows_max: int) -> None:
    """Drop what is older than the newest *rows_max* rows; numbers grow by one with each row."""
    newest = sa.select(sa.func.max(table.c.number)).scalar_subquery()
    connection.execute(sa.delete(table).where(table.c.number <= newest - rows_max))
