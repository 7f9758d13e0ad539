"""How two devices behind NATs come together: the gateway between them tells both to call at the same moment.

For each pair that may exchange content (:mod:`p2pdist.core.places`), the gateway asks both to send a datagram
from their swarm's socket to its two observers, which see the *outside endpoint* of each. Where two observers
see different ports, the NAT chooses a new one for each peer (RFC 4787 section 4.1: address- and
port-dependent mapping, "symmetric"): nobody can call there, but from there one can call others. Then both are
told to open their NAT for the other, and one of them dials: the one that cannot be called, or else they take
turns. A pair that stays apart is called again a few times and then left to the gateway.

A pair is remembered until one of the two does not list the artifact any more, both have all of it, or a link
ends; why one was given up is remembered for some minutes also when both have all of it. Where there is no
room for another, the one that came together first is forgotten: it needs nothing.

Shape: carry out what :meth:`Meetings.poll_command` gives until it gives None, after every event and when
:meth:`Meetings.next_deadline` has passed (:meth:`Meetings.handle_tick`). Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from p2pdist import limits
from p2pdist.core.deadlines import Deadlines
from p2pdist.ids import InfoHash, NodeId
from p2pdist.wire.frames import Endpoint, Presence

SYMMETRIC = "both NATs choose a new port for each peer (symmetric NAT)"
UNSEEN = "UDP does not come through to the gateway"
UNMET = "no hole could be punched"
FULL = "the gateway has as many other pairs under way as it can have"


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
    """One pair. *due* is when something has to be done if nothing happens before.

    *apart* are those of the two that cannot reach the other, *complete* those that have the whole artifact.
    """

    state: Literal["showing", "called", "given up"]
    since: float
    due: float | None
    shows: int = 0
    attempts: int = 0
    reason: str = ""
    apart: frozenset[NodeId] = frozenset()
    complete: frozenset[NodeId] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeetingsStatistics:
    """How many pairs there are at one gateway, and how many it forgot or refused for want of room."""

    pairs: int
    forgotten: int
    refused: int


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
        self._pairs_of: dict[NodeId, dict[_Pair, None]] = {}
        self._met: dict[_Pair, None] = {}
        self._deadlines: Deadlines[_Pair] = Deadlines()
        self._forgotten = self._refused = 0
        self._sights: dict[NodeId, _Sight] = {}
        self._tokens: dict[str, NodeId] = {}
        self._commands: deque[Command] = deque()

    # Events ----------------------------------------------------------------------------------------

    def handle_wanted(self, info_hash: InfoHash, one: NodeId, other: NodeId, now: float) -> None:
        """Two nodes may exchange an artifact's content. Nothing happens where that is known."""
        pair = _pair(info_hash, one, other)
        if pair in self._meetings:
            return
        if not self._make_room():
            self._refused += 1
            self._commands.append(DecideAgain(info_hash=info_hash, nodes=pair[1:]))
            return
        meeting = self._meetings[pair] = _Meeting(state="showing", since=now, due=now)
        for node in pair[1:]:
            self._pairs_of.setdefault(node, {})[pair] = None
        self._look_at([pair], now)
        self._deadlines.set(pair, meeting.due)

    def handle_announced(self, node: NodeId, presences: Sequence[Presence], now: float) -> None:
        """A node says what it takes part in, and which sources of that it cannot reach: the whole list."""
        pairs = self._pairs_of.get(node)
        if not pairs:
            return
        listed = {presence.info_hash: presence for presence in presences if not presence.no_room}
        for pair in list(pairs):
            presence = listed.get(pair[0])
            if presence is None:
                self._drop(pair)
            else:
                self._take_in(pair, node, presence, now)

    def handle_seen(self, token: str, observer: int, endpoint: Endpoint, now: float) -> None:
        """An observer has a datagram with this token from this outside endpoint."""
        node = self._tokens.get(token)
        if node is None or not 0 <= observer < self._observers:
            return
        self._sights[node].seen[observer, ":" in endpoint.host] = (endpoint, now)
        self._look_at(tuple(self._pairs_of.get(node, ())), now)

    def handle_gone(self, node: NodeId) -> None:
        """The link of a node has ended."""
        for pair in tuple(self._pairs_of.get(node, ())):
            self._drop(pair)
        if sight := self._sights.pop(node, None):
            self._tokens.pop(sight.token, None)

    def handle_tick(self, now: float) -> None:
        """Time has passed."""
        self._look_at(self._deadlines.take(now), now)

    # Outputs ---------------------------------------------------------------------------------------

    def poll_command(self) -> Command | None:
        """Return what is to be done next; None when nothing is."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self) -> float | None:
        """When :meth:`handle_tick` has something to do; None: never, as things are."""
        return self._deadlines.first()

    def hopeless(self, info_hash: InfoHash, one: NodeId, other: NodeId) -> str | None:
        """Return why two nodes cannot meet; None while they may."""
        meeting = self._meetings.get(_pair(info_hash, one, other))
        if meeting is not None:
            return meeting.reason if meeting.state == "given up" else None
        return None if len(self._meetings) < limits.MEETINGS_MAX or self._met else FULL

    def statistics(self) -> MeetingsStatistics:
        """Count the pairs."""
        return MeetingsStatistics(pairs=len(self._meetings), forgotten=self._forgotten, refused=self._refused)

    # What is remembered ----------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """Forget the pair that met first if there is no room for another; return whether there is now."""
        if len(self._meetings) >= limits.MEETINGS_MAX and self._met:
            self._forgotten += 1
            self._drop(next(iter(self._met)))
        return len(self._meetings) < limits.MEETINGS_MAX

    def _drop(self, pair: _Pair) -> None:
        del self._meetings[pair]
        self._met.pop(pair, None)
        self._deadlines.set(pair, None)
        for node in pair[1:]:
            del self._pairs_of[node][pair]
            if not self._pairs_of[node]:
                del self._pairs_of[node]

    def _take_in(self, pair: _Pair, node: NodeId, presence: Presence, now: float) -> None:
        """One of a pair says how it is: a pair that came together may be apart again."""
        meeting = self._meetings[pair]
        if presence.complete:
            meeting.complete |= {node}
            if len(meeting.complete) == len(pair[1:]) and meeting.state != "given up":
                self._drop(pair)
                return
        else:
            meeting.complete -= {node}
        if not set(pair[1:]).isdisjoint(presence.unreached):
            newly = node not in meeting.apart
            meeting.apart |= {node}
            if newly and meeting.state == "called":
                meeting.due = max(now, meeting.since + limits.CALL_AGAIN_S)
                self._met.pop(pair, None)
                self._deadlines.set(pair, meeting.due)
        else:
            meeting.apart -= {node}

    # What to do about a pair -----------------------------------------------------------------------

    def _look_at(self, pairs: Collection[_Pair], now: float) -> None:
        for pair in pairs:
            meeting = self._meetings[pair]
            due = meeting.due is not None and meeting.due <= now
            if meeting.state == "showing" and (due or meeting.shows):
                self._show_or_call(pair, meeting, now)
            elif meeting.state == "called" and due:
                self._look_whether_met(pair, meeting, now)
            elif meeting.state == "given up" and due:
                self._drop(pair)
                self._commands.append(DecideAgain(info_hash=pair[0], nodes=pair[1:]))
                continue
            self._deadlines.set(pair, meeting.due)

    def _look_whether_met(self, pair: _Pair, meeting: _Meeting, now: float) -> None:
        """After a call: try again if one of the two still cannot reach the other."""
        if not meeting.apart:
            meeting.due = None
            self._met[pair] = None
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
