"""Noticing that two machines use one identity key.

A node has one link. A newer link of the same node takes over from the older one, because a device whose
connection died unnoticed must be able to come back. Two machines with the same key take over from each
other again and again, within seconds; that is how a clone shows itself. Then the link that stands is
kept, and the other machine is refused for a while. Behind two points they do not meet; there they are
recorded, because two neighbours say for longer than a dead link stands that they carry the same node.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

import trio

from p2pdist import limits
from p2pdist.core.throttle import Throttle
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.server.control.devices import Device

_log = get_logger()

TAKEOVERS_MAX = 3  # an honest device whose link died unnoticed needs its own time limits to notice
WITHIN_S = 60.0
LOOK_EVERY_S = limits.LINK_DEAD_AFTER_S + limits.LINK_KEEPALIVE_S


class CloneStore(Protocol):
    """What the guard needs of the store. Blocking; called in a worker thread."""

    def clone_seen(self, node: NodeId, *, host: str, reason: str, now: int) -> None:
        """Record that another machine uses a device's key."""


class CloneGuard:
    """Lets a newer link take over from an older one, unless two machines do so in turn."""

    def __init__(self, store: CloneStore, threads: trio.CapacityLimiter) -> None:
        self._store = store
        self._threads = threads
        self._takeovers = Throttle(TAKEOVERS_MAX, WITHIN_S)

    async def watch(self, claimed: Callable[[], Iterable[NodeId]]) -> None:
        """Record devices that are attached in two places at two looks in a row, until cancelled.

        An honest device whose link died unnoticed is, too, but not for longer than links need to notice.

        Args:
            claimed: Returns who is attached; once for each neighbour that says so.
        """
        before: frozenset[NodeId] = frozenset()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            twice = frozenset(node for node, places in Counter(claimed()).items() if places > 1)
            for node in sorted(twice & before):
                reason = f"{node} is attached in two places at the same time: its disk was cloned"
                _log.warning("clone.seen", node=node, reason=reason)
                try:
                    await self._record(node, "two places at once", reason)
                except Unavailable as error:
                    _log.warning("clone.not_stored", node=node, reason=str(error))
            before = twice

    async def _record(self, node: NodeId, host: str, reason: str) -> None:
        await trio.to_thread.run_sync(
            lambda: self._store.clone_seen(node, host=host, reason=reason, now=int(time.time())),
            limiter=self._threads,
        )

    async def check(self, device: Device, link: Link) -> None:
        """Check that *link* may take over from the one that *device* has.

        Raises:
            TrustError: it may not: two machines use one key. It has been recorded.
            Unavailable: it could not be recorded.
        """
        if self._takeovers.allows(device.node, trio.current_time()):
            return
        reason = f"two machines use the identity key of {device.name} ({device.node}) at the same time"
        await self._record(device.node, link.remote_host, reason)
        raise TrustError(
            f"{reason}: a disk was cloned", hint="delete identity.key on the copy and enrol it anew"
        )
