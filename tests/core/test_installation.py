"""The machine that installs the agent on hosts, as scripts of what happens and what it does."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.installation import (
    COPY_SILENCE_S,
    STEP_S,
    STEPS,
    Abandon,
    AwaitReport,
    Begin,
    Command,
    Installation,
    InstallationSettings,
    Step,
    Tell,
)
from p2pdist.errors import UsageError


def drain(installation: Installation) -> list[Command]:
    found = []
    while (command := installation.poll_command()) is not None:
        found.append(command)
    return found


def begun(commands: list[Command]) -> list[tuple[str, int, Step]]:
    return [(each.host, each.attempt, each.resume) for each in commands if isinstance(each, Begin)]


def told(commands: list[Command]) -> list[tuple[str, str, str]]:
    return [(each.host, each.step, each.state) for each in commands if isinstance(each, Tell)]


def started(*names: str, **settings: object) -> Installation:
    installation = Installation(names, InstallationSettings(**settings))  # type: ignore[arg-type]  # as given
    installation.handle_time(0.0)
    return installation


def walk(installation: Installation, host: str, upto: Step, *, attempt: int = 1, now: float = 0.0) -> None:
    """Do the steps before *upto*."""
    for step in STEPS[: STEPS.index(upto)]:
        installation.handle_step_done(host, attempt, step, now)


def test_a_host_goes_through_every_step_and_is_done_when_its_agent_has_reported() -> None:
    installation = started("a")
    walk(installation, "a", "report")
    assert AwaitReport(host="a", attempt=1) in drain(installation)
    assert not installation.ended
    installation.handle_step_done("a", 1, "report", 1.0)
    assert told(drain(installation)) == [("a", "report", "done")]
    assert installation.ended and installation.outcome == "done"


def test_no_more_hosts_are_worked_on_at_once_than_the_limit_says() -> None:
    installation = started("a", "b", "c", parallel=2)
    assert begun(drain(installation)) == [("a", 1, "platform"), ("b", 1, "platform")]
    installation.handle_failure("a", 1, "no", final=True, now=1.0)
    assert begun(drain(installation)) == [("c", 1, "platform")]


def test_a_host_that_is_waited_for_to_report_leaves_its_place_to_another() -> None:
    installation = started("a", "b", parallel=1)
    walk(installation, "a", "report")
    assert begun(drain(installation)) == [("a", 1, "platform"), ("b", 1, "platform")]


def test_a_new_try_connects_again_and_goes_on_with_what_was_not_done() -> None:
    installation = started("a")
    walk(installation, "a", "copy")
    installation.handle_failure("a", 1, "the connection broke", final=False, now=1.0)
    drain(installation)
    assert installation.next_deadline() == 6.0
    installation.handle_time(6.0)
    assert begun(drain(installation)) == [("a", 2, "copy")]
    for step in ("reach", "key", "login"):
        installation.handle_step_done("a", 2, step, 6.0)
    assert told(drain(installation))[-1] == ("a", "copy", "running")


def test_a_host_of_which_only_the_report_is_missing_is_waited_for_without_a_connection() -> None:
    installation = started("a")
    walk(installation, "a", "report")
    drain(installation)
    installation.handle_time(STEP_S["report"])
    assert told(drain(installation)) == [("a", "report", "waiting")]
    installation.handle_time(STEP_S["report"] + 5.0)
    assert AwaitReport(host="a", attempt=2) in (commands := drain(installation))
    assert not begun(commands)


def test_a_host_is_given_up_after_the_last_try_and_the_reason_is_told() -> None:
    installation = started("a", tries_max=2)
    installation.handle_failure("a", 1, "no route", final=False, now=0.0)
    installation.handle_time(5.0)
    drain(installation)
    installation.handle_failure("a", 2, "no route", final=False, now=5.0)
    assert drain(installation) == [Tell(host="a", step="reach", state="failed", reason="no route")]
    assert installation.ended and installation.outcome == "failed"


def test_a_final_failure_is_not_tried_again_while_others_go_on() -> None:
    installation = started("a", "b")
    installation.handle_failure("a", 1, "the host key is another one", final=True, now=0.0)
    walk(installation, "b", "report")
    installation.handle_step_done("b", 1, "report", 0.0)
    assert installation.ended and installation.outcome == "partly"


@pytest.mark.parametrize("how", ["time", "failure", "worker"])
def test_a_login_with_a_password_that_fails_in_whatever_way_is_never_tried_again(how: str) -> None:
    installation = started("a", one_login=True)
    walk(installation, "a", "login")
    if how == "time":
        installation.handle_time(STEP_S["login"])
    elif how == "failure":
        installation.handle_failure("a", 1, "the connection broke", final=False, now=0.0)
    else:
        installation.handle_worker_lost("the worker ended", 0.0)
    assert installation.ended


@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_step_that_takes_too_long_is_abandoned_and_tried_again(step: Step) -> None:
    installation = started("a")
    walk(installation, "a", step)
    drain(installation)
    deadline = installation.next_deadline()
    assert deadline is not None and deadline <= STEP_S[step]
    installation.handle_time(deadline)
    assert drain(installation) == [
        Abandon(host="a", attempt=1),
        Tell(host="a", step=step, state="waiting", reason="no answer in time"),
    ]


def test_copying_may_take_long_but_not_stand_still() -> None:
    installation = started("a")
    walk(installation, "a", "copy")
    assert installation.next_deadline() == COPY_SILENCE_S
    installation.handle_copying("a", 1, 20.0)
    assert installation.next_deadline() == 20.0 + COPY_SILENCE_S
    installation.handle_copying("a", 1, STEP_S["copy"] - 1)
    assert installation.next_deadline() == STEP_S["copy"]


def test_a_dry_run_ends_before_anything_is_changed() -> None:
    installation = started("a", dry_run=True)
    walk(installation, "a", "copy")
    assert installation.ended
    assert told(drain(installation))[-1] == ("a", "space", "done")


def test_a_worker_that_ends_costs_each_of_its_hosts_a_try_and_no_other() -> None:
    installation = started("a", "b", "c", parallel=2)
    walk(installation, "a", "report")
    drain(installation)
    installation.handle_worker_lost("the worker ended", 1.0)
    assert told(drain(installation)) == [("b", "reach", "waiting"), ("c", "reach", "waiting")]


def test_what_is_said_of_an_older_try_changes_nothing() -> None:
    installation = started("a")
    installation.handle_failure("a", 1, "no", final=False, now=0.0)
    installation.handle_time(5.0)
    drain(installation)
    installation.handle_step_done("a", 1, "reach", 5.0)
    installation.handle_failure("a", 1, "no", final=True, now=5.0)
    assert drain(installation) == [] and not installation.ended


def test_a_step_out_of_order_is_refused_and_changes_nothing() -> None:
    installation = started("a")
    drain(installation)
    with pytest.raises(UsageError):
        installation.handle_step_done("a", 1, "copy", 0.0)
    assert drain(installation) == []


@pytest.mark.parametrize("names", [("a", "a"), tuple(map(str, range(257)))])
def test_a_list_with_one_host_twice_or_too_many_is_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Installation(names, InstallationSettings())


@given(st.data())
def test_whatever_happens_every_host_ends_and_no_lasting_step_is_done_twice(data: st.DataObject) -> None:
    names = [f"host{number}" for number in range(data.draw(st.integers(1, 5)))]
    settings = InstallationSettings(
        parallel=data.draw(st.integers(1, 3)),
        tries_max=data.draw(st.integers(1, 3)),
        dry_run=data.draw(st.booleans()),
    )
    installation = Installation(names, settings)
    now = 0.0
    at_work: dict[str, tuple[int, int]] = {}  # host: its try, the next step
    lasting = dict.fromkeys(names, "platform")
    done: dict[str, list[Step]] = defaultdict(list)
    installation.handle_time(now)
    for _ in range(2_000):
        for command in drain(installation):
            match command:
                case Begin(host=host, attempt=attempt, resume=resume):
                    assert resume == lasting[host]
                    at_work[host] = attempt, 0
                case AwaitReport(host=host, attempt=attempt):
                    at_work[host] = attempt, STEPS.index("report")
                case Abandon(host=host):
                    at_work.pop(host, None)
                case Tell(host=host, state="waiting" | "failed"):
                    at_work.pop(host, None)
        connected = [host for host, (_, step) in at_work.items() if STEPS[step] != "report"]
        assert len(connected) <= settings.parallel
        if installation.ended:
            break
        what = data.draw(st.sampled_from(["step", "step", "step", "fail", "final", "time", "worker"]))
        host = data.draw(st.sampled_from(sorted(at_work))) if at_work else None
        if what == "worker":
            installation.handle_worker_lost("it ended", now)
        elif what == "time" or host is None:
            deadline = installation.next_deadline()
            assert deadline is not None, "something is under way, or waits"
            now = max(now, deadline)
            installation.handle_time(now)
        elif what in ("fail", "final"):
            installation.handle_failure(host, at_work[host][0], "no", final=what == "final", now=now)
        else:
            attempt, number = at_work[host]
            step = STEPS[number]
            if number >= 3:
                assert step not in done[host], "a lasting step is done once"
                done[host].append(step)
                lasting[host] = STEPS[min(number + 1, len(STEPS) - 1)]
            following = number + 1 if number < 2 else max(number + 1, STEPS.index(lasting[host]))  # type: ignore[arg-type]
            at_work[host] = attempt, min(following, len(STEPS) - 1)
            if step == "report" or (settings.dry_run and step == "space"):
                del at_work[host]
            installation.handle_step_done(host, attempt, step, now)
    assert installation.ended
    assert sum(installation.statistics().values()) == len(names)
