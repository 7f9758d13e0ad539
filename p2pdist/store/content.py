"""Artifacts at the server, and where every node's content bytes came from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from p2pdist.ids import InfoHash, NodeId
from p2pdist.store.records import (
    ArtifactRecord,
    Beside,
    ContentReportRecord,
    ContentSourceRecord,
    Receiver,
    record_of,
)
from p2pdist.store.sql import clean, in_chunks, upsert
from p2pdist.store.tables import artifacts, content_reports, content_sources
from p2pdist.wire.messages import ContentReport


def record_content(
    connection: sa.Connection, items: Sequence[tuple[NodeId, Receiver, ContentReport]], now: int
) -> None:
    """Store where bytes came from; the newest report of a node on an artifact replaces the one before."""
    newest = {(node, report.info_hash): (receiver, report) for node, receiver, report in items}
    reports, sources = [], []
    for (node, info_hash), (receiver, report) in newest.items():
        reports.append(
            {
                "node": node,
                "info_hash": info_hash,
                "target": clean(report.target),
                "receiver_role": receiver,
                "held": report.held,
                "unattributed": report.unattributed,
                "wasted": report.wasted,
                "candidates": msgspec.to_builtins(report.candidates),
                "updated": now,
            }
        )
        summed: dict[str, tuple[str, int, int]] = {}
        for source in report.sources:
            role, received, sent = summed.get(source.node, (source.role, 0, 0))
            summed[source.node] = (role, received + source.received, sent + source.sent)
        for source_node, (role, received, sent) in summed.items():
            sources.append(
                {
                    "node": node,
                    "info_hash": info_hash,
                    "source": source_node,
                    "role": role,
                    "receiver_role": receiver,
                    "received": received,
                    "sent": sent,
                }
            )
    upsert(connection, content_reports, reports)
    upsert(connection, content_sources, sources)


def find_content(
    connection: sa.Connection, node: NodeId, info_hash: InfoHash
) -> tuple[ContentReportRecord | None, list[ContentSourceRecord]]:
    """Return what a node said about its sources of an artifact."""
    report = connection.execute(
        sa.select(content_reports).where(
            content_reports.c.node == node, content_reports.c.info_hash == info_hash
        )
    )
    row = report.mappings().first()
    query = sa.select(content_sources).where(
        content_sources.c.node == node, content_sources.c.info_hash == info_hash
    )
    sources = [record_of(found, ContentSourceRecord) for found in connection.execute(query).mappings()]
    return (record_of(row, ContentReportRecord) if row is not None else None), sources


def bytes_by_source(
    connection: sa.Connection, info_hash: InfoHash | None = None
) -> dict[Receiver, dict[str, int]]:
    """Return how many bytes devices and distribution points have received from which kind of source."""
    table = content_sources
    query = sa.select(table.c.receiver_role, table.c.role, _total(table.c.received)).group_by(
        table.c.receiver_role, table.c.role
    )
    if info_hash is not None:
        query = query.where(table.c.info_hash == info_hash)
    summed: dict[Receiver, dict[str, int]] = {"point": {}, "device": {}}
    for receiver, role, received in connection.execute(query):
        summed.setdefault(receiver, {})[role] = int(received or 0)
    return summed


def bytes_beside(connection: sa.Connection) -> dict[Receiver, Beside]:
    """Return what devices and distribution points have received beside what :func:`bytes_by_source` names."""
    table = content_reports
    query = sa.select(
        table.c.receiver_role, _total(table.c.held), _total(table.c.unattributed), _total(table.c.wasted)
    ).group_by(table.c.receiver_role)
    summed: dict[Receiver, Beside] = {}
    for receiver, held, unattributed, wasted in connection.execute(query):
        summed[receiver] = Beside(held=int(held), unattributed=int(unattributed), wasted=int(wasted))
    return summed


def sources_by_target(connection: sa.Connection, target: str) -> dict[NodeId, dict[str, int]]:
    """Return, for each node that reported on *target*, its received bytes by kind of source."""
    query = (
        sa.select(content_sources.c.node, content_sources.c.role, _total(content_sources.c.received))
        .join(
            content_reports,
            sa.and_(
                content_reports.c.node == content_sources.c.node,
                content_reports.c.info_hash == content_sources.c.info_hash,
            ),
        )
        .where(content_reports.c.target == target)
        .group_by(content_sources.c.node, content_sources.c.role)
    )
    summed: dict[NodeId, dict[str, int]] = {}
    for node, role, received in connection.execute(query):
        summed.setdefault(NodeId(node), {})[role] = int(received or 0)
    return summed


def put_artifact(connection: sa.Connection, record: ArtifactRecord) -> None:
    """Remember a content file that is complete and verified; what it has sent is kept."""
    upsert(connection, artifacts, [msgspec.structs.asdict(record)], keep=("sent_bytes",))


def list_artifacts(connection: sa.Connection) -> dict[InfoHash, ArtifactRecord]:
    """Return every content file."""
    rows = connection.execute(sa.select(artifacts).order_by(artifacts.c.info_hash)).mappings()
    return {InfoHash(row["info_hash"]): record_of(row, ArtifactRecord) for row in rows}


def mark_published(connection: sa.Connection, info_hashes: Sequence[InfoHash]) -> None:
    """Remember that signed metadata names these artifacts, and no others."""
    was = sa.select(artifacts.c.info_hash).where(artifacts.c.published == sa.true())
    before, now = set(connection.execute(was).scalars()), set(info_hashes)
    for published, changed in ((False, before - now), (True, now - before)):
        for chunk in in_chunks(sorted(changed)):
            those = artifacts.c.info_hash.in_(chunk)
            connection.execute(sa.update(artifacts).where(those).values(published=published))


def note_named(
    connection: sa.Connection, named: Collection[InfoHash], *, now: int, before: int
) -> list[InfoHash]:
    """Remember which artifacts signed metadata names, and since when it does not name the others.

    Returns:
        Those that it has not named since *before* or earlier.
    """
    late = []
    for record in list_artifacts(connection).values():
        since = (
            None
            if record.info_hash in named
            else now
            if record.unnamed_since is None
            else record.unnamed_since
        )
        if since != record.unnamed_since:
            row = sa.update(artifacts).where(artifacts.c.info_hash == record.info_hash)
            connection.execute(row.values(unnamed_since=since))
        if since is not None and since <= before:
            late.append(record.info_hash)
    return late


def list_unnamed(connection: sa.Connection) -> list[InfoHash]:
    """Return the artifacts that no signed metadata names."""
    query = sa.select(artifacts.c.info_hash).where(artifacts.c.unnamed_since.is_not(None))
    return [InfoHash(info_hash) for info_hash in connection.execute(query).scalars()]


def keep_unnamed(connection: sa.Connection, info_hash: InfoHash) -> None:
    """Somebody may be about to publish an artifact again: count anew since when it is not named."""
    connection.execute(
        sa.update(artifacts).where(artifacts.c.info_hash == info_hash).values(unnamed_since=None)
    )


def mark_damaged(connection: sa.Connection, info_hash: InfoHash, reason: str) -> None:
    """Remember why an artifact is not served; an empty reason says that it is good again."""
    connection.execute(
        sa.update(artifacts).where(artifacts.c.info_hash == info_hash).values(damage=clean(reason))
    )


def add_sent_bytes(connection: sa.Connection, sent: Mapping[InfoHash, int]) -> None:
    """Add to what the origin has sent of each artifact."""
    rows = [{"key": info_hash, "more": count} for info_hash, count in sent.items() if count]
    if rows:
        connection.execute(
            sa.update(artifacts)
            .where(artifacts.c.info_hash == sa.bindparam("key"))
            .values(sent_bytes=artifacts.c.sent_bytes + sa.bindparam("more")),
            rows,
        )


def _total(column: sa.Column[int]) -> sa.ColumnElement[float]:
    """A sum that does not overflow, whatever devices claim."""
    return sa.func.sum(column * sa.literal_column("1.0"))
