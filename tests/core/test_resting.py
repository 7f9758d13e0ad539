"""When a resting device has a link: woken, or to look; and when it rests again."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.core.resting import Command, Rest, Resting, Rise


def device() -> Resting:
    return Resting(0, after_s=10, look_every_s=1_000)


def commands(machine: Resting) -> list[Command]:
    found = []
    while (command := machine.poll_command()) is not None:
        found.append(command)
    return found


def rested(now: float = 10) -> Resting:
    machine = device()
    machine.handle_look(now - 10, linked=True, busy=False)
    machine.handle_look(now, linked=True, busy=False)
    assert commands(machine) == [Rest(sleep=False)] and machine.resting
    return machine


def test_it_rests_when_it_has_had_a_link_and_nothing_to_do_for_a_while() -> None:
    machine = device()
    machine.handle_look(1, linked=True, busy=False)
    machine.handle_look(10.9, linked=True, busy=False)
    assert not machine.resting
    machine.handle_look(11, linked=True, busy=False)
    assert commands(machine) == [Rest(sleep=False)]


def test_work_keeps_it_awake_and_the_while_begins_anew_after_it() -> None:
    machine = device()
    machine.handle_look(1, linked=True, busy=False)
    machine.handle_look(9, linked=True, busy=True)
    machine.handle_look(12, linked=True, busy=False)
    machine.handle_look(21, linked=True, busy=False)
    assert not machine.resting
    machine.handle_look(22, linked=True, busy=False)
    assert machine.resting


def test_a_wake_has_it_dial_at_once() -> None:
    machine = rested()
    machine.handle_woken(500, from_sleep=False)
    assert commands(machine) == [Rise(woken=True)]
    assert not machine.resting


def test_it_looks_by_itself_now_and_then() -> None:
    machine = rested(10)
    assert machine.next_deadline(10) == 1_010
    machine.handle_look(1_009, linked=False, busy=False)
    assert commands(machine) == []
    machine.handle_look(1_010, linked=False, busy=False)
    assert commands(machine) == [Rise(woken=False)]


def test_one_that_reaches_nobody_rests_again_whatever_it_has_to_do() -> None:
    machine = rested()
    machine.handle_woken(100, from_sleep=False)
    commands(machine)
    machine.handle_look(100 + limits.REST_AWAKE_S_MAX - 1, linked=False, busy=True)
    assert not machine.resting
    machine.handle_look(100 + limits.REST_AWAKE_S_MAX, linked=False, busy=True)
    assert commands(machine) == [Rest(sleep=False)]


def test_a_machine_that_was_woken_from_its_sleep_is_sent_back_after_the_task() -> None:
    machine = rested()
    machine.handle_woken(100, from_sleep=True)
    machine.handle_look(101, linked=True, busy=True)
    machine.handle_look(150, linked=True, busy=False)
    machine.handle_look(160, linked=True, busy=False)
    assert commands(machine) == [Rise(woken=True), Rest(sleep=True)]
    machine.handle_woken(200, from_sleep=False)
    machine.handle_look(201, linked=True, busy=False)
    machine.handle_look(211, linked=True, busy=False)
    assert commands(machine) == [Rise(woken=True), Rest(sleep=False)], "the next time is another matter"


def test_a_machine_that_was_up_when_the_wake_came_is_not_sent_to_sleep() -> None:
    machine = device()
    machine.handle_woken(1, from_sleep=True)
    machine.handle_look(2, linked=True, busy=False)
    machine.handle_look(12, linked=True, busy=False)
    assert commands(machine) == [Rest(sleep=False)]


def test_a_wake_while_it_is_up_gives_what_it_came_for_time_to_arrive() -> None:
    machine = device()
    machine.handle_look(1, linked=True, busy=False)
    machine.handle_woken(10, from_sleep=False)
    machine.handle_look(11, linked=True, busy=False)
    assert commands(machine) == []
