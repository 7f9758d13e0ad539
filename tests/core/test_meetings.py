"""How a gateway tells two devices to call each other at the same moment."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.meetings import (
    FULL,
    SYMMETRIC,
    UNMET,
    UNSEEN,
    AskToShow,
    Command,
    DecideAgain,
    Meetings,
    TellToCall,
)
from p2pdist.ids import InfoHash, NodeId, node_id_of
from p2pdist.wire.frames import Endpoint, Presence

HASH = InfoHash("a" * 64)
ONE, TWO = sorted(node_id_of(bytes([n]) * 32) for n in (1, 2))


def presence(info_hash: InfoHash, *, complete: bool = False, unreached: Sequence[NodeId] = ()) -> Presence:
    return Presence(info_hash=info_hash, have=0, pieces=1, complete=complete, unreached=list(unreached))


def artifact(number: int) -> InfoHash:
    return InfoHash(f"{number:064x}")


class Gateway:
    """Meetings with tokens that a test can read, and a clock that it sets."""

    def __init__(self) -> None:
        numbers = itertools.count()
        self.meetings = Meetings(observers=2, new_token=lambda: f"{next(numbers):032x}")
        self.now = 1_000.0
        self.tokens: dict[NodeId, str] = {}

    def commands(self) -> list[Command]:
        found = []
        while (command := self.meetings.poll_command()) is not None:
            if isinstance(command, AskToShow):
                self.tokens[command.node] = command.token
            found.append(command)
        return found

    def want(self) -> list[Command]:
        self.meetings.handle_wanted(HASH, ONE, TWO, self.now)
        return self.commands()

    def see(self, node: NodeId, *ports: int, host: str = "") -> None:
        for observer, port in enumerate(ports):
            endpoint = Endpoint(host=host or ("203.0.113.1" if node == ONE else "203.0.113.2"), port=port)
            self.meetings.handle_seen(self.tokens[node], observer, endpoint, self.now)

    def wait(self, seconds: float) -> list[Command]:
        """Let time pass as a driver does: from deadline to deadline."""
        end = self.now + seconds
        while (deadline := self.meetings.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.meetings.handle_tick(self.now)
            if any(isinstance(c, TellToCall) for c in self.meetings._commands):
                break
        else:
            self.now = end
        return self.commands()

    def unreached(self, node: NodeId, other: NodeId) -> None:
        self.announce(node, presence(HASH, unreached=[other]))

    def announce(self, node: NodeId, *presences: Presence) -> None:
        self.meetings.handle_announced(node, presences, self.now)
        self.meetings.handle_tick(self.now)

    def meet(self, info_hash: InfoHash, one: NodeId, other: NodeId) -> list[Command]:
        """Have two nodes meet, who come together."""
        self.meetings.handle_wanted(info_hash, one, other, self.now)
        commands = self.commands()
        for node in (one, other):
            self.see(node, 4_000, 4_000)
        commands += self.commands()
        self.now += limits.CALL_AGAIN_S
        self.meetings.handle_tick(self.now)
        return commands

    def calls(self, commands: list[Command]) -> dict[NodeId, TellToCall]:
        return {c.node: c for c in commands if isinstance(c, TellToCall)}


def test_both_show_themselves_and_are_told_to_call_as_soon_as_they_were_seen() -> None:
    gateway = Gateway()
    assert [type(command) for command in gateway.want()] == [AskToShow, AskToShow]
    gateway.see(ONE, 4_000, 4_000)
    assert gateway.commands() == []
    gateway.see(TWO, 5_000, 5_000)
    calls = gateway.calls(gateway.commands())
    assert calls[ONE].endpoints == (Endpoint(host="203.0.113.2", port=5_000),)
    assert calls[TWO].endpoints == (Endpoint(host="203.0.113.1", port=4_000),)
    assert [calls[ONE].dials, calls[TWO].dials].count(True) == 1


def test_the_one_behind_a_symmetric_nat_dials() -> None:
    for symmetric in (ONE, TWO):
        gateway = Gateway()
        gateway.want()
        for node in (ONE, TWO):
            gateway.see(node, 4_000, 4_001 if node == symmetric else 4_000)
        calls = gateway.calls(gateway.commands())
        assert [node for node, call in calls.items() if call.dials] == [symmetric]


def test_two_symmetric_nats_are_left_to_the_gateway_with_the_reason() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.see(ONE, 4_000, 4_001)
    gateway.see(TWO, 4_000, 4_001)
    assert gateway.wait(2 * limits.OBSERVE_WAIT_S) == [DecideAgain(info_hash=HASH, nodes=(ONE, TWO))]
    assert gateway.meetings.hopeless(HASH, TWO, ONE) == SYMMETRIC


def test_two_symmetric_nats_with_ipv6_call_over_ipv6() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.see(ONE, 4_000, 4_001)
    gateway.see(TWO, 4_000, 4_001)
    gateway.see(ONE, 7_602, 7_602, host="2a00::1")
    gateway.see(TWO, 7_602, 7_602, host="2a00::2")
    assert gateway.calls(gateway.commands())[ONE].endpoints == (Endpoint(host="2a00::2", port=7_602),)


def test_who_is_never_seen_is_asked_again_and_then_left_to_the_gateway() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.see(ONE, 4_000, 4_000)
    commands = gateway.wait(limits.OBSERVES_MAX * limits.OBSERVE_WAIT_S + 0.1)
    asked = [c.node for c in commands if isinstance(c, AskToShow)]
    assert asked.count(TWO) == limits.OBSERVES_MAX - 1
    assert gateway.meetings.hopeless(HASH, ONE, TWO) == UNSEEN


def test_a_pair_that_stays_apart_takes_turns_and_is_given_up_after_some_calls() -> None:
    gateway = Gateway()
    commands = gateway.want()
    dialled = []
    for _ in range(limits.CALLS_MAX):
        gateway.see(ONE, 4_000, 4_000)
        gateway.see(TWO, 5_000, 5_000)
        commands += gateway.commands()
        dialled += [node for node, call in gateway.calls(commands).items() if call.dials]
        gateway.unreached(ONE, TWO)
        commands = gateway.wait(limits.CALL_AGAIN_S + 0.1)
    assert dialled == [ONE, TWO, ONE]
    assert gateway.meetings.hopeless(HASH, ONE, TWO) == UNMET


def test_what_was_given_up_is_tried_again_after_some_minutes() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.wait(limits.OBSERVES_MAX * limits.OBSERVE_WAIT_S + 0.1)
    assert DecideAgain(info_hash=HASH, nodes=(ONE, TWO)) in gateway.wait(limits.MEETING_GIVEN_UP_S + 1)
    assert gateway.meetings.hopeless(HASH, ONE, TWO) is None


def test_nothing_is_left_of_a_node_that_is_gone() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.meetings.handle_gone(ONE)
    gateway.see(ONE, 4_000, 4_000)
    assert gateway.wait(60) == []


def test_a_pair_that_came_together_and_is_apart_again_is_called_anew() -> None:
    gateway = Gateway()
    gateway.meet(HASH, ONE, TWO)
    assert gateway.meetings.next_deadline() is None
    gateway.unreached(TWO, ONE)
    assert gateway.commands(), "both are asked to show themselves"


def test_what_a_node_says_of_pairs_that_do_not_meet_is_not_kept() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.commands()
    for number in range(1_000):
        gateway.announce(ONE, presence(HASH), presence(artifact(number), unreached=[TWO]))
    assert gateway.meetings.statistics().pairs == 1
    sizes = {name: len(value) for name, value in vars(gateway.meetings).items() if hasattr(value, "__len__")}
    assert max(sizes.values()) <= 2, sizes


@pytest.mark.parametrize("node", [ONE, TWO])
def test_a_pair_is_forgotten_when_one_of_them_leaves_the_artifact(node: NodeId) -> None:
    gateway = Gateway()
    gateway.meet(HASH, ONE, TWO)
    gateway.announce(node, presence(HASH))
    assert gateway.meetings.statistics().pairs == 1
    gateway.announce(node, presence(artifact(1)))
    assert gateway.meetings.statistics().pairs == 0


def test_a_pair_is_forgotten_when_both_have_everything() -> None:
    gateway = Gateway()
    gateway.meet(HASH, ONE, TWO)
    gateway.announce(ONE, presence(HASH, complete=True))
    assert gateway.meetings.statistics().pairs == 1
    gateway.announce(TWO, presence(HASH, complete=True))
    assert gateway.meetings.statistics().pairs == 0


def test_why_a_pair_could_not_meet_is_still_known_when_both_have_everything() -> None:
    gateway = Gateway()
    gateway.want()
    gateway.wait(limits.OBSERVES_MAX * limits.OBSERVE_WAIT_S + 0.1)
    for node in (ONE, TWO):
        gateway.announce(node, presence(HASH, complete=True))
    assert gateway.meetings.hopeless(HASH, ONE, TWO) == UNSEEN
    gateway.wait(limits.MEETING_GIVEN_UP_S + 1)
    assert gateway.meetings.statistics().pairs == 0


def test_one_artifact_after_another_is_met_about_though_there_is_room_for_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MEETINGS_MAX", 5)
    gateway = Gateway()
    for number in range(20):
        told = gateway.calls(gateway.meet(artifact(number), ONE, TWO))
        assert set(told) == {ONE, TWO}, f"both are told to call about artifact {number}"
        assert gateway.meetings.hopeless(artifact(number), ONE, TWO) is None
    statistics = gateway.meetings.statistics()
    assert (statistics.pairs, statistics.forgotten, statistics.refused) == (5, 15, 0)


def test_where_all_pairs_are_under_way_a_newcomer_hears_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEETINGS_MAX", 1)
    gateway = Gateway()
    gateway.want()
    gateway.meetings.handle_wanted(artifact(1), ONE, TWO, gateway.now)
    assert DecideAgain(info_hash=artifact(1), nodes=(ONE, TWO)) in gateway.commands()
    assert gateway.meetings.hopeless(artifact(1), ONE, TWO) == FULL
    gateway.announce(ONE)
    assert gateway.meetings.hopeless(artifact(1), ONE, TWO) is None


NODES = [node_id_of(bytes([n]) * 32) for n in range(1, 6)]
nodes = st.sampled_from(NODES)
artifacts = st.integers(0, 5).map(artifact)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("want"), artifacts, nodes, nodes),
            st.tuples(st.just("met"), artifacts, nodes, nodes),
            st.tuples(
                st.just("announce"),
                nodes,
                st.lists(st.tuples(artifacts, st.booleans(), st.lists(nodes, max_size=3)), max_size=4),
            ),
            st.tuples(st.just("gone"), nodes),
            st.tuples(st.just("wait"), st.floats(0, 700)),
        ),
        max_size=40,
    )
)
def test_the_table_is_bounded_and_nothing_is_left_once_everybody_has_left(
    script: list[tuple[Any, ...]],
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "MEETINGS_MAX", 4)
        gateway = Gateway()
        for kind, *rest in script:
            if kind == "want" and rest[1] != rest[2]:
                gateway.meetings.handle_wanted(*rest, gateway.now)
            elif kind == "met" and rest[1] != rest[2]:
                gateway.meetings.handle_wanted(*rest, gateway.now)
                gateway.commands()
                for node in rest[1:]:
                    if node in gateway.tokens:
                        gateway.see(node, 4_000, 4_000)
            elif kind == "announce":
                listed = [presence(h, complete=c, unreached=() if c else others) for h, c, others in rest[1]]
                gateway.announce(rest[0], *listed)
            elif kind == "gone":
                gateway.meetings.handle_gone(rest[0])
            elif kind == "wait":
                gateway.wait(rest[0])
            gateway.commands()
            assert gateway.meetings.statistics().pairs <= 4
        for node in NODES:
            gateway.announce(node)
        assert gateway.meetings.statistics().pairs == 0
        assert gateway.meetings.next_deadline() is None


events = st.lists(
    st.one_of(
        st.tuples(st.just("want")),
        st.tuples(st.just("see"), st.booleans(), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("apart"), st.booleans()),
        st.tuples(st.just("gone"), st.booleans()),
        st.tuples(st.just("wait"), st.floats(0, 20)),
    ),
    max_size=30,
)


@given(events)
def test_whatever_happens_calls_come_in_pairs_with_one_dialler_and_are_bounded(
    script: list[tuple[Any, ...]],
) -> None:
    gateway = Gateway()
    for kind, *rest in script:
        commands: list[Command] = []
        if kind == "want":
            commands = gateway.want()
        elif kind == "see":
            node = ONE if rest[0] else TWO
            endpoint = Endpoint(host="203.0.113.9", port=rest[2])
            gateway.meetings.handle_seen(gateway.tokens.get(node, "?"), rest[1], endpoint, gateway.now)
        elif kind == "apart":
            gateway.unreached(*((ONE, TWO) if rest[0] else (TWO, ONE)))
        elif kind == "gone":
            gateway.meetings.handle_gone(ONE if rest[0] else TWO)
        else:
            commands = gateway.wait(rest[0])
        commands += gateway.commands()
        told = [c for c in commands if isinstance(c, TellToCall)]
        assert len(told) % 2 == 0
        for one, other in zip(told[::2], told[1::2], strict=True):
            assert (one.node, one.peer) == (other.peer, other.node)
            assert one.dials != other.dials
            assert one.attempt == other.attempt <= limits.CALLS_MAX
