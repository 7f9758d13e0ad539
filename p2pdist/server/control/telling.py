"""Tells nodes what is wanted of them: their desired states, when something in them has changed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from p2pdist.ids import NodeId
from p2pdist.server.control.desk import Desk
from p2pdist.server.control.devices import Directory
from p2pdist.server.control.ports import PlaneStore
from p2pdist.wire.tasks import Assignment


class Teller:
    """Sends each attached node the state that it should be in, if it does not know it yet.

    Args:
        directory: Who is attached, and what each should know.
        desk: What seals and sends.
        store: What the directory is filled from.
        threads: Limits how many threads use the store at once.
        assigning: Called when what nodes have to do is another, before anybody is told.

    Attributes:
        told_everybody: Called when every attached node knows: others may have to be called.
    """

    def __init__(
        self,
        directory: Directory,
        desk: Desk,
        store: PlaneStore,
        threads: trio.CapacityLimiter,
        assigning: Callable[[], Awaitable[None]],
    ) -> None:
        self._directory = directory
        self._desk = desk
        self._store = store
        self._threads = threads
        self.told_everybody: Callable[[], None] = lambda: None
        self._before = assigning
        self._assigning = trio.Lock()

    async def one(self, node: NodeId, *, known: int | None) -> None:
        """Tell one node; *known* is the revision that it says it has, None if something changed here."""
        device, now = self._directory.get(node), time.time()
        state = self._directory.state_for(node, known=known, now=int(now), now_ms=int(now * 1000))
        if device is not None and state is not None:
            await self._desk.send(device, state)

    async def everybody(self) -> None:
        """Something has changed that may concern every node."""
        for number, node in enumerate(self._directory.nodes()):
            if number % 64 == 0:  # 5 ms: most of them have it, and telling them waits for nothing
                await trio.lowlevel.checkpoint()
            await self.one(node, known=None)
        self.told_everybody()

    async def assigned(self) -> Mapping[NodeId, Sequence[Assignment]]:
        """What nodes have to do has changed: tell those; return what everybody has to do.

        One look at a time: what an older one saw must not come after what a newer one did.
        """
        async with self._assigning:
            assignments = await trio.to_thread.run_sync(self._store.assignments, limiter=self._threads)
            changed = self._directory.set_assignments(assignments)
            await self._before()
            for node in changed:
                await self.one(node, known=None)
            return assignments

    async def points_of_revoked(self) -> None:
        """A node has left the fleet: distribution points should not let it in any more."""
        now = int(time.time())
        revoked = await trio.to_thread.run_sync(self._store.revoked, now, limiter=self._threads)
        self._directory.set_revoked(revoked)
        for node in self._directory.nodes():
            if self._directory.role(node, now) == "point":
                await self.one(node, known=None)
