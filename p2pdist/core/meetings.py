"""How two devices behind NATs come together: the gateway between them tells both to call at the same moment.

For each pair that may exchange content (:mod:`p2pdist.core.places`), the gateway asks both to send a datagram
from their swarm's socket to its two observers, which see the *outside endpoint* of each. Where two observers
see different ports, the NAT chooses a new one for each peer (RFC 4787 section 4.1: address- and
port-dependent mapping, "symmetric"): nobody can call there, but from there one can call others. Then both are
told to open their NAT for the other, and one of them dials: the one that cannot be called, or else they take
turns. A pair that stays apart is called again a few times and then left to the gateway.

Shape: carry out what :meth:`Meetings.poll_command` gives until it gives None, after every event and when
:meth:`Meetings.next_deadline` has passed (:meth:`Meetings.handle_tick`). Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from p2pdist import limits
from p2pdist.ids import InfoHash, NodeId
from p2pdist.wire.frames import Endpoint

SYMMETRIC = "both NATs choose a new port for each peer (symmetric NAT)"
UNSEEN = "UDP does not come through to the gateway"
UNMET = "no hole could be punched"


@dataclass(frozen=True, slots=True, kw_only=True)
class AskToShow:
    """Have *node* send a datagram with *token* to every observer."""

    node: NodeId
    info_hash: InfoHash
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TellToCall:
    """Tell *node* to call *peer*; see :class:`~p2pdist.wire.frames.Call`."""

    node: NodeId
    info_hash: InfoHash
    peer: NodeId
    endpoints: tuple[Endpoint, ...]
    dials: bool
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideAgain:
    """Whether the two may meet is another matter now."""

    info_hash: InfoHash
    nodes: tuple[NodeId, NodeId]


Command: TypeAlias = AskToShow | TellToCall | DecideAgain
_Pair: TypeAlias = tuple[InfoHash, NodeId, NodeId]
_Seen: TypeAlias = dict[tuple[int, bool], Endpoint]
"""The outside endpoint of one node, by observer and by whether it is IPv6."""


@dataclass(slots=True, kw_only=True)
class _Sight:
    """What the observers see of a node: by observer and family, its outside endpoint and when it was seen."""

    asked_at: float = -1e9
    token: str = ""
    seen: dict[tuple[int, bool], tuple[Endpoint, float]] = field(default_factory=dict)

    def fresh(self, since: float) -> _Seen:
        """What was seen at *since* or later."""
        return {key: endpoint for key, (endpoint, at) in self.seen.items() if at >= since}


@dataclass(slots=True, kw_only=True)
class _Meeting:
    """One pair. *due* is when something has to be done if nothing happens before."""

    state: Literal["showing", "called", "given up"]
    since: float
    due: float | None
    shows: int = 0
    attempts: int = 0
    reason: str = ""


class Meetings:
    """All meetings that one gateway arranges.

    Args:
        observers: How many observers see each datagram: one, or two at different ports.
        new_token: Gives a text that nobody can guess.
    """

    def __init__(self, *, observers: int, new_token: Callable[[], str]) -> None:
        self._observers = observers
        self._new_token = new_token
        self._meetings: dict[_Pair, _Meeting] = {}
        self._sights: dict[NodeId, _Sight] = {}
        self._tokens: dict[str, NodeId] = {}
        self._unreached: dict[tuple[InfoHash, NodeId], frozenset[NodeId]] = {}
        self._commands: deque[Command] = deque()

    # Events ----------------------------------------------------------------------------------------

    def handle_wanted(self, info_hash: InfoHash, one: NodeId, other: NodeId, now: float) -> None:
        """Two nodes may exchange an artifact's content. Nothing happens where that is known."""
        pair = _pair(info_hash, one, other)
        if pair in self._meetings:
            return
        if len(self._meetings) >= limits.MEETINGS_MAX:  # the oldest that came together gives way
            old = next((pair for pair, each in self._meetings.items() if each.due is None), None)
            if old is None:
                return
            del self._meetings[old]
        self._meetings[pair] = _Meeting(state="showing", since=now, due=now)
        self.handle_tick(now)

    def handle_unreached(
        self, info_hash: InfoHash, node: NodeId, others: frozenset[NodeId], now: float
    ) -> None:
        """A node says which sources of an artifact it cannot reach: all of them."""
        before = self._unreached.pop((info_hash, node), frozenset())
        if others:
            self._unreached[info_hash, node] = others
        for other in others - before:
            meeting = self._meetings.get(_pair(info_hash, node, other))
            if meeting is not None and meeting.state == "called":
                meeting.due = max(now, meeting.since + limits.CALL_AGAIN_S)
        self.handle_tick(now)

    def handle_seen(self, token: str, observer: int, endpoint: Endpoint, now: float) -> None:
        """An observer has a datagram with this token from this outside endpoint."""
        node = self._tokens.get(token)
        if node is None or not 0 <= observer < self._observers:
            return
        self._sights[node].seen[observer, ":" in endpoint.host] = (endpoint, now)
        self._look_at([pair for pair in self._meetings if node in pair], now)

    def handle_gone(self, node: NodeId, info_hash: InfoHash | None = None) -> None:
        """A node has left an artifact's swarm, or all of them with its link."""
        met = self._meetings if node in self._sights else ()  # most meet nobody, and many go at once
        for pair in [p for p in met if node in p[1:] and info_hash in (None, p[0])]:
            del self._meetings[pair]
        for key in [k for k in self._unreached if k[1] == node and info_hash in (None, k[0])]:
            del self._unreached[key]
        if info_hash is None and (sight := self._sights.pop(node, None)):
            self._tokens.pop(sight.token, None)

    def handle_tick(self, now: float) -> None:
        """Time has passed."""
        due = [pair for pair, each in self._meetings.items() if each.due is not None and each.due <= now]
        self._look_at(due, now)

    # Outputs ---------------------------------------------------------------------------------------

    def poll_command(self) -> Command | None:
        """Return what is to be done next; None when nothing is."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self) -> float | None:
        """When :meth:`handle_tick` has something to do; None: never, as things are."""
        return min((each.due for each in self._meetings.values() if each.due is not None), default=None)

    def hopeless(self, info_hash: InfoHash, one: NodeId, other: NodeId) -> str | None:
        """Return why two nodes cannot meet; None while they may."""
        meeting = self._meetings.get(_pair(info_hash, one, other))
        return meeting.reason if meeting is not None and meeting.state == "given up" else None

    # What to do about a pair -----------------------------------------------------------------------

    def _look_at(self, pairs: Collection[_Pair], now: float) -> None:
        for pair in pairs:
            meeting = self._meetings[pair]
            if meeting.state == "showing" and (meeting.due is None or meeting.shows or meeting.due <= now):
                self._show_or_call(pair, meeting, now)
            elif meeting.state == "called" and meeting.due is not None and meeting.due <= now:
                self._look_whether_met(pair, meeting, now)
            elif meeting.state == "given up" and meeting.due is not None and meeting.due <= now:
                del self._meetings[pair]
                self._commands.append(DecideAgain(info_hash=pair[0], nodes=pair[1:]))

    def _look_whether_met(self, pair: _Pair, meeting: _Meeting, now: float) -> None:
        """After a call: try again if one of the two still cannot reach the other."""
        info_hash, one, other = pair
        nobody: frozenset[NodeId] = frozenset()
        from_one = self._unreached.get((info_hash, one), nobody)
        from_other = self._unreached.get((info_hash, other), nobody)
        if other not in from_one and one not in from_other:
            meeting.due = None
            return
        if now - meeting.since >= limits.CALL_RENEWED_S:
            meeting.attempts = 0
        if meeting.attempts >= limits.CALLS_MAX:
            self._give_up(pair, meeting, UNMET, now)
        else:
            meeting.state, meeting.shows, meeting.due = "showing", 0, now
            self._show_or_call(pair, meeting, now)

    def _show_or_call(self, pair: _Pair, meeting: _Meeting, now: float) -> None:
        since = now - limits.OBSERVED_FRESH_S - (limits.OBSERVE_WAIT_S if meeting.shows else 0)
        sights = [self._sights.setdefault(node, _Sight()).fresh(since) for node in pair[1:]]
        overdue = meeting.due is not None and meeting.due <= now
        if all(sights) and (_is_settled(sights, self._observers) or (overdue and meeting.shows)):
            self._call(pair, meeting, sights, now)
        elif all(sights) and meeting.shows:
            meeting.due = min(meeting.due or now, now + limits.OBSERVE_GRACE_S)
        elif overdue and meeting.shows >= limits.OBSERVES_MAX:
            self._give_up(pair, meeting, UNSEEN, now)
        elif overdue:
            meeting.shows += 1
            meeting.due = now + limits.OBSERVE_WAIT_S
            for node in pair[1:]:
                self._ask(node, pair[0], now)

    def _ask(self, node: NodeId, info_hash: InfoHash, now: float) -> None:
        """Have a node show itself, unless it was asked just now."""
        sight = self._sights[node]
        if now - sight.asked_at < limits.OBSERVED_FRESH_S / 2:
            return
        self._tokens.pop(sight.token, None)
        sight.asked_at, sight.token = now, self._new_token()
        self._tokens[sight.token] = node
        self._commands.append(AskToShow(node=node, info_hash=info_hash, token=sight.token))

    def _call(self, pair: _Pair, meeting: _Meeting, sights: list[_Seen], now: float) -> None:
        steady, common = _steady(sights)
        callable_ = steady[0] | steady[1]
        if not callable_:
            self._give_up(pair, meeting, SYMMETRIC if common else UNSEEN, now)
            return
        meeting.attempts += 1
        meeting.state, meeting.since, meeting.due = "called", now, now + limits.CALL_AGAIN_S
        dialler = self._dialler(steady, meeting.attempts)
        for number, node in enumerate(pair[1:]):
            other = 1 - number
            self._commands.append(
                TellToCall(
                    node=node,
                    info_hash=pair[0],
                    peer=pair[1:][other],
                    endpoints=_endpoints(sights[other], callable_),
                    dials=number == dialler,
                    attempt=meeting.attempts,
                )
            )

    @staticmethod
    def _dialler(steady: list[set[bool]], attempt: int) -> int:
        """Return which of the two dials: it must not be the only one that can be called."""
        if len(steady[0]) != len(steady[1]):
            return 0 if len(steady[0]) < len(steady[1]) else 1
        return (attempt - 1) % 2

    def _give_up(self, pair: _Pair, meeting: _Meeting, reason: str, now: float) -> None:
        meeting.state, meeting.reason, meeting.due = "given up", reason, now + limits.MEETING_GIVEN_UP_S
        self._commands.append(DecideAgain(info_hash=pair[0], nodes=pair[1:]))


def _pair(info_hash: InfoHash, one: NodeId, other: NodeId) -> _Pair:
    return (info_hash, one, other) if one < other else (info_hash, other, one)


def _steady(sights: list[_Seen]) -> tuple[list[set[bool]], set[bool]]:
    """Return the families in which each of two nodes has the same endpoint for all observers, and those that
    both have. One observer alone proves nothing, so there it may be tried.
    """
    common = {family for _, family in sights[0]} & {family for _, family in sights[1]}
    steady = [
        {f for f in common if len({(e.host, e.port) for (_, each), e in sight.items() if each == f}) == 1}
        for sight in sights
    ]
    return steady, common


def _is_settled(sights: list[_Seen], observers: int) -> bool:
    """Whether all observers have seen both nodes in a family in which one of them can be called."""
    steady, _ = _steady(sights)
    return any(
        all((observer, family) in sight for sight in sights for observer in range(observers))
        for family in steady[0] | steady[1]
    )


def _endpoints(sight: _Seen, families: set[bool]) -> tuple[Endpoint, ...]:
    """The endpoints of one node to be called at, one of each family: IPv6 first, as RFC 8305 has it."""
    first: dict[bool, Endpoint] = {}
    for (_, family), endpoint in sorted(sight.items(), key=lambda item: (not item[0][1], item[0][0])):
        if family in families:
            first.setdefault(family, endpoint)
    return tuple(first.values())
