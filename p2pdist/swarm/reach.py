"""Which of its sources a node has connections with, how, and which it could not reach. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from p2pdist import limits
from p2pdist.ids import NodeId
from p2pdist.swarm.model import Source
from p2pdist.wire.frames import Endpoint, Path

DIAL_S: Final = 1.2
"""How long a source may take that is dialled: libtorrent dials once a second, TLS needs some round trips."""


class Reach:
    """The sources of one artifact, as seen from this node. Times are monotonic seconds.

    A source that should be connected by now and is not has been *missed*, until it is connected, or for some
    minutes: also when it is called meanwhile, or is a source no longer because of that.
    """

    def __init__(self) -> None:
        self._sources: dict[NodeId, Source] = {}
        self._linked: dict[NodeId, Path] = {}
        self._paths: dict[NodeId, Path] = {}
        self._due: dict[NodeId, float] = {}
        self._missed: dict[NodeId, float] = {}
        self._others: dict[NodeId, list[Endpoint]] = {}

    @property
    def paths(self) -> Mapping[NodeId, Path]:
        """How each node is, or was last, connected."""
        return self._paths

    def handle_sources(self, sources: Iterable[Source], now: float) -> None:
        """These are the sources now."""
        before, self._sources = self._sources, {source.node: source for source in sources}
        for node, source in self._sources.items():
            old = before.get(node)
            if old is None or (old.path, old.endpoints) != (source.path, source.endpoints):
                called = source.path == "punched"
                self._due[node] = now + (limits.OBSERVE_WAIT_S + limits.CALL_ANSWER_S if called else DIAL_S)
                self._others[node] = list(source.endpoints[: limits.ENDPOINTS_DIALLED_MAX])
        for gone in self._due.keys() - self._sources.keys():
            del self._due[gone], self._others[gone]

    def handle_called(self, node: NodeId, now: float) -> None:
        """This node and another one call each other now."""
        if node in self._due:
            self._due[node] = now + limits.CALL_ANSWER_S

    def handle_linked(self, linked: Mapping[NodeId, Path], now: float) -> None:
        """These nodes are connected now."""
        self._linked = dict(linked)
        self._paths |= linked
        for node, due in self._due.items():
            if node in linked:
                self._due[node] = now + DIAL_S
            elif due <= now:
                self._missed.setdefault(node, now)
        over = [n for n, at in self._missed.items() if n in linked or at + limits.MEETING_GIVEN_UP_S <= now]
        for node in over:
            del self._missed[node]

    def handle_missed_elsewhere(self, missed: Mapping[NodeId, float]) -> None:
        """These could not be reached for another artifact, each since when: why wait for them again."""
        for node, at in missed.items():
            if node in self._sources and node not in self._linked:
                self._missed.setdefault(node, at)

    def missed_since(self, now: float) -> Mapping[NodeId, float]:
        """Who is missed now, and since when."""
        return {n: at for n, at in self._missed.items() if at + limits.MEETING_GIVEN_UP_S > now}

    def is_linked(self, node: NodeId) -> bool:
        """Whether a node was connected when that was looked at last."""
        return node in self._linked

    @property
    def unreached(self) -> tuple[NodeId, ...]:
        """The sources that have been missed, at most as many as may be told."""
        return tuple(sorted(self._missed)[: limits.UNREACHED_MAX])

    def next_endpoints(self, now: float) -> list[Endpoint]:
        """Return another address of each source that was not reached at the ones before, and give it time."""
        endpoints = []
        for node, others in self._others.items():
            if others and node not in self._linked and self._due[node] - DIAL_S / 2 <= now:
                endpoints.append(others.pop(0))
                self._due[node] = max(self._due[node], now + DIAL_S)
        return endpoints
