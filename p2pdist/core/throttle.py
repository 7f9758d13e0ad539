"""How often a node may do something: a few times in a while, and no more."""

from __future__ import annotations

from collections import deque

from p2pdist.ids import NodeId

_NODES_MAX = 10_000  # the oldest are forgotten


class Throttle:
    """Remembers when each node did something. Pure; times are monotonic seconds.

    Args:
        times_max: How often a node may do it ...
        within_s: ... in so many seconds.
    """

    def __init__(self, times_max: int, within_s: float) -> None:
        self._times_max = times_max
        self._within_s = within_s
        self._times: dict[NodeId, deque[float]] = {}

    def allows(self, node: NodeId, now: float) -> bool:
        """*node* wants to do it now; return whether it may. What is refused does not count."""
        times = self._times.pop(node, None) or deque(maxlen=self._times_max)
        self._times[node] = times  # the newest last
        if len(times) == self._times_max and now - times[0] < self._within_s:
            return False
        times.append(now)
        if len(self._times) > _NODES_MAX:
            del self._times[next(iter(self._times))]
        return True
