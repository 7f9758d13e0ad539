"""Which of its sources a node has connections with, how, and which it could not reach. No I/O, no clock."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from p2pdist import limits
from p2pdist.ids import NodeId
from p2pdist.swarm.model import Source
from p2pdist.wire.frames import Endpoint, Path

DIAL_S: Final = 1.2
"""How long a source may take that is dialled: libtorrent dials once a second, TLS needs some round trips."""

NEAR_S: Final = 0.4
"""How long a neighbour may take to answer at all that is dialled at once: on a LAN its kernel does, however
busy the node itself is."""


@dataclass(slots=True, kw_only=True)
class _Awaited:
    """A source that is to be connected: *due* says when, *next_at* when its next address is tried."""

    source: Source
    due: float
    answered_due: float
    next_at: float
    others: list[Endpoint] = field(default_factory=list)


class Reach:
    """The sources of one artifact, as seen from this node. Times are monotonic seconds.

    A source that should be connected by now and is not has been *missed*, until it is connected, or for some
    minutes: also when it is called meanwhile, or is a source no longer because of that.
    """

    def __init__(self) -> None:
        self._awaited: dict[NodeId, _Awaited] = {}
        self._linked: dict[NodeId, Path] = {}
        self._paths: dict[NodeId, Path] = {}
        self._missed: dict[NodeId, float] = {}

    @property
    def paths(self) -> Mapping[NodeId, Path]:
        """How each node is, or was last, connected."""
        return self._paths

    def handle_sources(self, sources: Iterable[Source], now: float, *, at_once: bool = False) -> None:
        """These are the sources now; with *at_once* those that can be dialled are dialled at this moment."""
        before = self._awaited
        self._awaited = {}
        for source in sources:
            old = before.get(source.node)
            same = old is not None and _way(old.source) == _way(source)
            self._awaited[source.node] = old if old is not None and same else _await(source, now, at_once)

    def handle_called(self, node: NodeId, now: float) -> None:
        """This node and another one call each other now."""
        if node in self._awaited:
            self._give(self._awaited[node], now + limits.CALL_ANSWER_S)

    def handle_linked(
        self, linked: Mapping[NodeId, Path], now: float, *, answering: Collection[str] = ()
    ) -> None:
        """These nodes are connected now; from these addresses somebody has answered, who is not known yet."""
        self._linked = dict(linked)
        self._paths |= linked
        for node, awaited in self._awaited.items():
            if node in linked:
                self._give(awaited, now + DIAL_S)
            elif awaited.due <= now:
                if any(each.host in answering for each in awaited.source.addresses):
                    awaited.due = max(awaited.due, awaited.answered_due)
                if awaited.due <= now:
                    self._missed.setdefault(node, now)
        over = [n for n, at in self._missed.items() if n in linked or at + limits.MEETING_GIVEN_UP_S <= now]
        for node in over:
            del self._missed[node]

    def handle_missed_elsewhere(self, missed: Mapping[NodeId, float]) -> None:
        """These could not be reached for another artifact, each since when: why wait for them again."""
        for node, at in missed.items():
            if node in self._awaited and node not in self._linked:
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
        for node, awaited in self._awaited.items():
            if awaited.others and node not in self._linked and awaited.next_at <= now:
                endpoints.append(awaited.others.pop(0))
                awaited.next_at = now + DIAL_S / 2
                self._give(awaited, max(awaited.due, now + DIAL_S))
        return endpoints

    def next_look(self, now: float) -> float:
        """Return when it is next worth looking who is connected; infinity: no source is awaited."""
        times = [
            at
            for node, awaited in self._awaited.items()
            if node not in self._linked and node not in self._missed
            for at in (awaited.due, *((awaited.next_at,) if awaited.others else ()))
        ]
        return min((at for at in times if at > now), default=math.inf)

    @staticmethod
    def _give(awaited: _Awaited, due: float) -> None:
        awaited.due = awaited.answered_due = due


def _await(source: Source, now: float, at_once: bool) -> _Awaited:
    called = source.path == "punched"
    due = now + (limits.OBSERVE_WAIT_S + limits.CALL_ANSWER_S if called else DIAL_S)
    others = list(source.addresses[1:][: limits.ENDPOINTS_DIALLED_MAX])
    near = at_once and source.role == "device" and not (called or source.expected)
    return _Awaited(
        source=source,
        due=now + NEAR_S if near and not others else due,
        answered_due=due,
        next_at=now + (NEAR_S if near else DIAL_S / 2),
        others=others,
    )


def _way(source: Source) -> tuple[object, ...]:
    return (source.path, source.endpoints)
