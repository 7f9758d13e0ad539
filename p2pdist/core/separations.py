"""Which devices could not reach each other lately, for whatever artifact. Pure; times are monotonic seconds.

Two devices behind one NAT that does not let them see each other find that out by waiting, once: with the next
artifact neither is told to wait for the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from p2pdist import limits
from p2pdist.ids import InfoHash, NodeId
from p2pdist.wire.frames import Presence


class Separations:
    """What the devices of one gateway have said of each other."""

    def __init__(self) -> None:
        self._said: dict[NodeId, dict[InfoHash, frozenset[NodeId]]] = {}
        self._until: dict[NodeId, dict[NodeId, float]] = {}

    def handle_announced(self, node: NodeId, presences: Sequence[Presence], now: float) -> None:
        """A device says which sources of what it still fetches it cannot reach: the whole list.

        Whom it has not reached is remembered for minutes, and forgotten once it has been reached after all.
        """
        before = self._said.get(node, {})
        said = {
            InfoHash(presence.info_hash): frozenset(map(NodeId, presence.unreached))
            for presence in presences
            if not presence.complete
        }
        for info_hash, unreached in said.items():
            for other in before.get(info_hash, frozenset()) - unreached:
                self._forget(node, other)
            for other in unreached:
                self._remember(node, other, now + limits.MEETING_GIVEN_UP_S)
        self._said[node] = said

    def handle_gone(self, node: NodeId) -> None:
        """The link of a device has ended: it may come back from elsewhere."""
        self._said.pop(node, None)
        for other in tuple(self._until.get(node, ())):
            self._forget(node, other)

    def of(self, node: NodeId, now: float) -> frozenset[NodeId]:
        """Return from whom a device is separated."""
        return frozenset(other for other, until in self._until.get(node, {}).items() if until > now)

    def _remember(self, one: NodeId, other: NodeId, until: float) -> None:
        for node, whom in ((one, other), (other, one)):
            known = self._until.setdefault(node, {})
            known.pop(whom, None)
            known[whom] = until
            if len(known) > limits.SEPARATIONS_MAX:
                self._forget(node, next(iter(known)))

    def _forget(self, one: NodeId, other: NodeId) -> None:
        for node, whom in ((one, other), (other, one)):
            known = self._until.get(node, {})
            known.pop(whom, None)
            if not known:
                self._until.pop(node, None)
