"""What keeps envelopes from repeating: the server's counter, and what was seen from each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from p2pdist.ids import NodeId
from p2pdist.store.sql import in_chunks, upsert
from p2pdist.store.tables import counters, replay_windows

_ENVELOPES = "envelopes"


def reserve_counters(connection: sa.Connection, count: int) -> range:
    """Reserve *count* numbers for envelopes; none of them is ever handed out again.

    One sequence serves all recipients: a counter only has to grow for each of them.
    """
    updated = connection.execute(
        sa.update(counters).where(counters.c.name == _ENVELOPES).values(value=counters.c.value + count)
    )
    if not updated.rowcount:
        connection.execute(counters.insert().values(name=_ENVELOPES, value=count))
    reserved = connection.execute(
        sa.select(counters.c.value).where(counters.c.name == _ENVELOPES)
    ).scalar_one()
    return range(reserved - count + 1, reserved + 1)


def load_windows(connection: sa.Connection, nodes: Sequence[NodeId]) -> dict[NodeId, bytes]:
    """Return the saved replay windows of *nodes*."""
    found: dict[NodeId, bytes] = {}
    for chunk in in_chunks(nodes):
        query = sa.select(replay_windows).where(replay_windows.c.node.in_(chunk))
        found.update((NodeId(row.node), bytes(row.window)) for row in connection.execute(query))
    return found


def save_windows(connection: sa.Connection, windows: Mapping[NodeId, bytes]) -> None:
    """Save replay windows, in the transaction that stores what came in the envelopes."""
    upsert(connection, replay_windows, [{"node": node, "window": data} for node, data in windows.items()])
