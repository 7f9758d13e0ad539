"""The outside addresses of the devices that a node carries from outside its own site."""

from __future__ import annotations

from itertools import islice

from p2pdist import limits
from p2pdist.ids import NodeId


class FarHosts:
    """Who is at which address, so that a change costs the same however many there are."""

    def __init__(self) -> None:
        self._of: dict[NodeId, str] = {}
        self._counts: dict[str, int] = {}

    def handle_placed(self, node: NodeId, host: str | None) -> bool:
        """A device is at this address; None: it is not far, or is gone. Returns whether the hosts change."""
        before = self._of.get(node)
        if before == host:
            return False
        left = before is not None and self._leave(node, before)
        came = host is not None and self._come(node, host)
        return left or came

    def hosts(self) -> list[str]:
        """Return the addresses that came first, at most :data:`p2pdist.limits.FAR_HOSTS_MAX`."""
        return list(islice(self._counts, limits.FAR_HOSTS_MAX))

    def _leave(self, node: NodeId, host: str) -> bool:
        del self._of[node]
        self._counts[host] -= 1
        if self._counts[host]:
            return False
        del self._counts[host]
        return True

    def _come(self, node: NodeId, host: str) -> bool:
        self._of[node] = host
        self._counts[host] = self._counts.get(host, 0) + 1
        return self._counts[host] == 1 and len(self._counts) <= limits.FAR_HOSTS_MAX
