"""What the admin server itself refused, on its way into the database beside what devices report."""

from __future__ import annotations

import hashlib
import time
from typing import Literal

import trio

from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.store import incidents
from p2pdist.store.fleetstore import FleetStore
from p2pdist.wire.messages import Refusal

_log = get_logger()

_WAITING_MAX = 256  # a flood of strangers is one row with a count; more than this at once is dropped


class IncidentBook:
    """Refusals of the server itself. Noting one never waits; :meth:`run` stores them."""

    def __init__(self, node: NodeId, store: FleetStore) -> None:
        self._node = node
        self._store = store
        self._noted, self._waiting = trio.open_memory_channel[Refusal](_WAITING_MAX)

    def note(self, kind: Literal["content", "stranger", "envelope"], subject: str, reason: str) -> None:
        """Note a refusal; the same one again counts as a repetition."""
        digest = hashlib.sha256(f"{kind}\0{subject}\0{reason}".encode()).hexdigest()[:32]
        refusal = Refusal(
            id=digest, kind=kind, subject=subject[:1_000], reason=reason[:4_000], at=int(time.time())
        )
        try:
            self._noted.send_nowait(refusal)
        except trio.WouldBlock:
            _log.warning("refusal.not_kept", kind=kind, subject=subject)

    async def run(self) -> None:
        """Store what was noted, until cancelled."""
        async for refusal in self._waiting:
            try:
                await self._store.write(incidents.record_refusals, [(self._node, refusal)])
            except P2PDistError as error:
                _log.warning("refusal.not_stored", subject=refusal.subject, reason=str(error))
