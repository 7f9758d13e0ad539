"""Where devices can be woken while they rest, and what they had been told when they began to."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.ways import Tried, WayName, Ways
from p2pdist.ids import NodeId
from p2pdist.store.sql import in_chunks, upsert
from p2pdist.store.tables import devices, wake_places
from p2pdist.wire.wakes import WakePlace


class WakeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One device that can be woken.

    ``via`` is who carried it last; empty: its own link with the admin server. ``knows`` is a digest of the
    desired state that it has dealt with; empty while it has a link, and where that is not known. ``ways``
    is what was counted of the ways on which it was woken.
    """

    node: NodeId
    place: WakePlace
    via: str
    knows: bytes
    ways: Ways = msgspec.field(default_factory=dict)


def load_wake_places(connection: sa.Connection) -> list[WakeRecord]:
    """Return every device that can be woken and was not revoked."""
    query = (
        sa.select(wake_places)
        .join(devices, devices.c.node == wake_places.c.node)
        .where(devices.c.revoked.is_(None))
        .order_by(wake_places.c.node)
        .limit(limits.RESTING_KNOWN_MAX)
    )
    return [
        WakeRecord(
            node=NodeId(row.node),
            place=msgspec.convert(row.place, WakePlace),
            via=row.via,
            knows=bytes(row.knows),
            ways=msgspec.convert(row.ways, dict[WayName, Tried]),
        )
        for row in connection.execute(query)
    ]


def save_wake_places(
    connection: sa.Connection, changes: Mapping[NodeId, WakeRecord | None], now: int
) -> None:
    """Save what has changed; None: the device does not rest any more."""
    rows = [
        {
            "node": record.node,
            "place": msgspec.to_builtins(record.place),
            "via": record.via,
            "knows": record.knows,
            "ways": msgspec.to_builtins(record.ways),
            "updated": now,
        }
        for record in changes.values()
        if record is not None
    ]
    upsert(connection, wake_places, rows)
    for chunk in in_chunks([node for node, record in changes.items() if record is None]):
        connection.execute(sa.delete(wake_places).where(wake_places.c.node.in_(chunk)))
