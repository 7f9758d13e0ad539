"""Whom to wake when: repeated until they come, and spread."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.waking import Command, GiveUp, SendWake, Waking
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId, node_id_of

ONE, TWO = (node_id_of(bytes([n]) * 32) for n in (1, 2))


def node(number: int) -> NodeId:
    return node_id_of(number.to_bytes(32, "big"))


def commands(waking: Waking) -> list[Command]:
    found = []
    while (command := waking.poll_command()) is not None:
        found.append(command)
    return found


def run(waking: Waking, until: float) -> list[tuple[float, Command]]:
    """Drive it to a time, and return what it did when."""
    now, found = 0.0, [(0.0, each) for each in commands(waking)]
    while (at := waking.next_deadline()) is not None and at <= until:
        now = max(now, at)
        waking.handle_tick(now)
        found += [(now, each) for each in commands(waking)]
    return found


def test_a_device_is_woken_at_once_and_again_after_growing_pauses_until_it_is_given_up() -> None:
    waking = Waking(0, pauses_s=(0.5, 2, 10))
    waking.handle_wanted(ONE, 0)
    assert run(waking, 100) == [
        (0, SendWake(node=ONE, attempt=1)),
        (0.5, SendWake(node=ONE, attempt=2)),
        (2.5, SendWake(node=ONE, attempt=3)),
        (12.5, GiveUp(node=ONE)),
    ]
    assert not waking.nodes and waking.next_deadline() is None


def test_one_that_has_come_is_left_alone() -> None:
    waking = Waking(0)
    waking.handle_wanted(ONE, 0)
    waking.handle_wanted(TWO, 0)
    commands(waking)
    waking.handle_answered(ONE)
    assert {command.node for _, command in run(waking, 1_000)} == {TWO}


def test_one_that_is_wanted_again_is_woken_from_the_beginning() -> None:
    waking = Waking(0, pauses_s=(1, 5))
    waking.handle_wanted(ONE, 0)
    waking.handle_tick(1)
    commands(waking)
    waking.handle_wanted(ONE, 3)
    assert commands(waking) == [SendWake(node=ONE, attempt=1)]
    assert waking.next_deadline() == 4


def test_many_are_woken_one_after_the_other_and_nobody_is_forgotten() -> None:
    waking = Waking(0, pauses_s=(1_000,), per_s=10)
    for number in range(100):
        waking.handle_wanted(node(number), 0)
    sent = [(at, each.node) for at, each in run(waking, 60) if isinstance(each, SendWake)]
    assert len(sent) == len({who for _, who in sent}) == 100
    assert sum(at == 0 for at, _ in sent) == 20
    assert sent[-1][0] == pytest.approx(8, abs=0.5)


def test_those_that_come_in_the_meantime_make_room_for_the_others() -> None:
    waking = Waking(0, pauses_s=(1_000,), per_s=1)
    for number in range(4):
        waking.handle_wanted(node(number), 0)
    waking.handle_answered(node(2))
    assert [command.node for _, command in run(waking, 10)] == [node(0), node(1), node(3)]


def test_too_many_at_once_are_refused() -> None:
    waking = Waking(0)
    for number in range(limits.WAKING_MAX):
        waking._attempts[node(number)] = 1
    with pytest.raises(Unavailable, match="being woken"):
        waking.handle_wanted(ONE, 0)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["wanted", "answered", "tick"]), st.integers(0, 3), st.floats(0, 3)),
        max_size=40,
    )
)
def test_nobody_is_sent_more_than_the_pauses_allow_after_the_last_time_it_was_wanted(
    script: list[tuple[str, int, float]],
) -> None:
    waking = Waking(0, pauses_s=(1, 1), per_s=2)
    now, wanted, sent = 0.0, dict.fromkeys(range(4), 0), dict.fromkeys(range(4), 0)
    for what, number, passed in script:
        now += passed
        if what == "wanted":
            waking.handle_wanted(node(number), now)
            wanted[number] += 1
        elif what == "answered":
            waking.handle_answered(node(number))
            assert node(number) not in waking.nodes
        else:
            waking.handle_tick(now)
        for command in commands(waking):
            who = next(n for n in range(4) if node(n) == command.node)
            sent[who] += isinstance(command, SendWake)
    assert all(sent[n] <= 2 * wanted[n] for n in range(4))
