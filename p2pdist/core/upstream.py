"""Which neighbour a node keeps its link to.

A device prefers the distribution points of its scope, in an order of its own; the admin server is the
last resort, taken only after a delay that differs from device to device, so that the loss of a point
does not send its whole site to the origin at the same moment. While the node is attached to something
less than its best choice, better ones are tried again from time to time.

A neighbour whose link stands but which does not do its work (no receipts, no answers) is *shunned*: for a
while, longer each time, everybody else comes first. It is not given up: it may be the only way.

The chooser is pure: it is told what happened and when (monotonic seconds), and says what to dial next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from p2pdist.ids import InfoHash, NodeId

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 10.0
SERVER_DELAY_S = 3.0  # plus up to as much again: failover in seconds, spread over seconds
BETTER_EVERY_S = 20.0
SHUNNED_FIRST_S = 60.0
SHUNNED_MAX_S = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A neighbour that can carry this node: its id, where it is reached, and what it is.

    ``host`` and ``port`` are its first address, ``others`` its further ones.
    """

    node: NodeId
    host: str
    port: int
    kind: Literal["point", "server"]
    others: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class _Attempts:
    failures: int = 0
    not_before: float = 0.0


def stands_still(before: Mapping[InfoHash, int], after: Mapping[InfoHash, int]) -> bool:
    """Whether something is being fetched and nothing has come: the neighbour may be gone.

    Args:
        before: The bytes that are here of each unfinished artifact, at one moment.
        after: The same, some seconds later.
    """
    return bool(after) and before == after


@dataclass(slots=True)
class _Shunned:
    times: int
    until: float


@dataclass(slots=True)
class UpstreamChooser:
    """Chooses among upstreams, best first.

    Args:
        spread: A number from 0 to 1 that differs from node to node; it spreads retries and fallbacks.
        retry_max_s: The longest wait between two attempts.
    """

    spread: float
    retry_max_s: float = RETRY_MAX_S
    _candidates: tuple[Upstream, ...] = ()
    _attempts: dict[Upstream, _Attempts] = field(default_factory=dict)
    _shunned: dict[NodeId, _Shunned] = field(default_factory=dict)
    _server_from: float = 0.0
    _attached: bool = False

    @property
    def hosts(self) -> frozenset[str]:
        """Where the upstreams are."""
        return frozenset(candidate.host for candidate in self._candidates)

    def set_candidates(self, candidates: Sequence[Upstream], now: float) -> None:
        """Replace the upstreams, best first. What is known of those that stay is kept."""
        had_points = any(c.kind == "point" for c in self._candidates)
        self._candidates = tuple(candidates)
        self._attempts = {c: self._attempts.get(c, _Attempts()) for c in self._candidates}
        nodes = {c.node for c in self._candidates}
        self._shunned = {node: shunned for node, shunned in self._shunned.items() if node in nodes}
        if self._has_points() and not had_points and not self._attached:
            self._server_from = now + self._server_delay()

    def next(self, now: float, dialling: Collection[Upstream] = ()) -> tuple[Upstream | None, float]:
        """Say what to dial now, or None and the time at which to ask again.

        Args:
            now: The time.
            dialling: What is being dialled already.
        """
        wake = now + self.retry_max_s
        fine = [c for c in self._candidates if not self._is_shunned(c, now)]
        shunned = [c for c in self._candidates if self._is_shunned(c, now)]
        nobody_else = all(self._attempts[c].failures for c in fine)
        for candidate in (*fine, *(shunned if nobody_else else ())):
            if candidate in dialling:
                continue
            ready = self._ready_at(candidate)
            if ready <= now:
                return candidate, now
            wake = min(wake, ready)
        return None, min([wake, *(self._shunned[c.node].until for c in shunned)])

    def better(self, than: Upstream, now: float) -> tuple[Upstream | None, float]:
        """While attached to *than*: what to try instead now, or None and when to ask again."""
        wake = now + BETTER_EVERY_S * (1 + self.spread)
        for candidate in self._candidates:
            if candidate == than and not self._is_shunned(than, now):
                break
            if self._is_shunned(candidate, now):
                continue
            ready = self._attempts[candidate].not_before
            if ready <= now:
                return candidate, now
            wake = min(wake, ready)
        return None, wake

    def connected(self, upstream: Upstream) -> None:
        """A link to *upstream* stands."""
        self._attached = True
        if upstream in self._attempts:
            self._attempts[upstream] = _Attempts()

    def lost(self, upstream: Upstream, now: float, *, silent: bool = False) -> None:
        """The link to *upstream* ended: it gets one quick retry, the server only after its delay.

        Args:
            upstream: Whose link it was.
            now: The time.
            silent: Whether it ended because *upstream* showed no sign of life. Dialling it again would
                wait for it as well, so everybody else comes first, the server too.
        """
        self._attached = False
        if self._has_points():
            self._server_from = now + self._server_delay()
        again = RETRY_FIRST_S + self._server_delay() if silent else RETRY_FIRST_S * self.spread
        if upstream in self._attempts:
            self._attempts[upstream] = _Attempts(not_before=now + again)

    def shun(self, node: NodeId, now: float) -> None:
        """A neighbour does not do its work: others come first, for a while."""
        times = self._shunned[node].times + 1 if node in self._shunned else 1
        until = now + min(SHUNNED_MAX_S, SHUNNED_FIRST_S * 2.0 ** min(times - 1, 16))
        self._shunned[node] = _Shunned(times, until)

    def proved(self, node: NodeId) -> None:
        """A neighbour does its work: what was held against it is forgotten."""
        self._shunned.pop(node, None)

    def patience(self) -> float:
        """Return how long to wait for the admin server's answer: longer each time that it was in vain.

        When it was the admin server that did not answer, another neighbour does not help.
        """
        times = sum(shunned.times for shunned in self._shunned.values())
        return min(SHUNNED_MAX_S, SHUNNED_FIRST_S * 2.0 ** min(times, 16))

    def network_changed(self, now: float) -> None:
        """This machine is in another network: what failed before may work now."""
        self._attempts = {candidate: _Attempts(not_before=now) for candidate in self._candidates}

    def failed(self, upstream: Upstream, now: float) -> None:
        """Dialling *upstream* did not work: wait longer each time."""
        attempts = self._attempts.get(upstream)
        if attempts is None:
            return
        attempts.failures += 1
        delay = min(self.retry_max_s, RETRY_FIRST_S * 2 ** min(attempts.failures, 10))
        attempts.not_before = now + delay * (0.5 + 0.5 * self.spread)

    def _ready_at(self, candidate: Upstream) -> float:
        ready = self._attempts[candidate].not_before
        if candidate.kind == "server" and self._has_points():
            return max(ready, self._server_from)
        return ready

    def _is_shunned(self, candidate: Upstream, now: float) -> bool:
        shunned = self._shunned.get(candidate.node)
        return shunned is not None and now < shunned.until

    def _server_delay(self) -> float:
        return SERVER_DELAY_S * (1 + self.spread)

    def _has_points(self) -> bool:
        return any(candidate.kind == "point" for candidate in self._candidates)
