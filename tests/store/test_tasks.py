"""Tasks and their runs in the store."""

from __future__ import annotations

from typing import Any

import pytest

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, NodeId
from p2pdist.store import tasks, tokens, triggers
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import EnrolmentTokenRecord, TaskRecord, TaskRunRecord
from p2pdist.wire.tasks import Outcome, TaskItem, TaskItems, TaskProgress, TaskResult
from tests.store.conftest import NOW, node_of

pytestmark = pytest.mark.slow  # a database for each

ONE, TWO = node_of(1), node_of(2)


def make(
    store: FleetStore, task: str = "t1", *nodes: NodeId, work: bytes = b"work", spread_s: int = 0
) -> str:
    store.write_now(
        tasks.add_task,
        task_id=task,
        work=work,
        nodes=list(nodes or (ONE,)),
        by="alice",
        now=NOW,
        window_s=600,
        spread_s=spread_s,
    )
    return task


def begin(store: FleetStore, task: str = "t1", *, now: int = NOW, refused: str = "") -> TaskRecord:
    return store.write_now(tasks.begin_run, task, now=now, refused={ONE: refused} if refused else {})


def result(report: str = "r1", *, run: int = 1, outcome: Outcome = "done", reason: str = "") -> TaskResult:
    return TaskResult(
        id=report, task="t1", run=run, outcome=outcome, reason=reason, figures={"asked": 7}, finished=NOW
    )


def state(store: FleetStore, node: NodeId = ONE, *, run: int = 1) -> TaskRunRecord:
    return next(each for each in store.read_now(tasks.run_nodes, "t1", run) if each.node == node)


def test_a_run_is_assigned_to_its_nodes_until_they_have_ended_it(store: FleetStore) -> None:
    make(store, "t1", ONE, TWO)
    assert store.read_now(tasks.active_assignments) == {}
    begin(store)
    assigned = store.read_now(tasks.active_assignments)
    assert {node: [(a.task, a.run, a.work) for a in each] for node, each in assigned.items()} == {
        ONE: [("t1", 1, b"work")], TWO: [("t1", 1, b"work")]
    }  # fmt: skip
    store.write_now(tasks.record_task_results, [(ONE, result())], NOW)
    assert set(store.read_now(tasks.active_assignments)) == {TWO}


def test_what_is_to_begin_at_once_waits_for_no_clock_and_a_spread_gives_each_a_moment(
    store: FleetStore,
) -> None:
    make(store)
    begin(store)
    assert (state(store).not_before, state(store).not_after) == (0, NOW + 600)
    make(store, "t2", spread_s=3_600)
    begin(store, "t2")
    (spread,) = store.read_now(tasks.run_nodes, "t2", 1)
    assert NOW < spread.not_before < NOW + 3_600
    assert spread.not_after == spread.not_before + 600


def test_another_run_ends_what_is_left_of_the_one_before(store: FleetStore) -> None:
    make(store)
    begin(store)
    assert begin(store).run == 2
    assert (state(store).state, state(store).reason) == ("cancelled", "another run was begun")
    assert state(store, run=2).state == "waiting"


def test_a_node_that_must_not_do_it_is_not_asked(store: FleetStore) -> None:
    make(store)
    begin(store, refused="it has no grant")
    assert (state(store).state, state(store).reason) == ("refused", "it has no grant")
    assert store.read_now(tasks.active_assignments) == {}


def test_progress_shows_until_the_result_and_not_after_it(store: FleetStore) -> None:
    make(store)
    begin(store)
    progress = TaskProgress(task="t1", run=1, step="asking", done=3, total=7)
    store.write_now(tasks.record_task_progress, [(ONE, progress)], NOW)
    assert (state(store).state, state(store).step, state(store).done) == ("running", "asking", 3)
    store.write_now(tasks.record_task_results, [(ONE, result())], NOW)
    store.write_now(tasks.record_task_progress, [(ONE, progress)], NOW)
    assert (state(store).state, state(store).step, state(store).figures) == ("done", "", {"asked": 7})


def test_the_first_result_of_a_run_counts_and_replaces_what_the_server_assumed(store: FleetStore) -> None:
    make(store)
    begin(store)
    store.write_now(tasks.stop_task, "t1", "bob", NOW)
    assert (state(store).state, state(store).reason, state(store).report) == (
        "cancelled",
        "stopped by bob",
        "",
    )
    store.write_now(tasks.record_task_results, [(ONE, result("r1", outcome="cancelled"))], NOW)
    assert (state(store).reason, state(store).report) == ("stopped by bob", "r1")
    store.write_now(tasks.record_task_results, [(ONE, result("r2", outcome="failed"))], NOW)
    assert (state(store).state, state(store).report) == ("cancelled", "r1")


def test_the_newest_word_on_an_item_counts(store: FleetStore) -> None:
    make(store)
    begin(store)
    for number, detail in enumerate(("", "hardware address 02:00")):
        said = TaskItems(
            id=str(number),
            task="t1",
            run=1,
            items=[TaskItem(subject=s, state="done", detail=detail) for s in ("a", "b")],
        )
        store.write_now(tasks.record_task_items, [(ONE, said)], NOW)
    count, (first, second) = store.read_now(tasks.run_items, "t1", 1, limit=10, offset=0)
    assert (count, first.subject, second.subject) == (2, "a", "b")
    assert first.detail == "hardware address 02:00"
    assert len(store.read_now(tasks.run_items, "t1", 1, limit=10, offset=1)[1]) == 1


def test_what_nobody_was_given_is_not_stored(store: FleetStore) -> None:
    make(store)
    begin(store)
    said = TaskItems(id="1", task="t1", run=1, items=[TaskItem(subject="a", state="done")])
    for node, run, task in ((TWO, 1, "t1"), (ONE, 2, "t1"), (ONE, 1, "other")):
        other = TaskItems(id="1", task=task, run=run, items=said.items)
        store.write_now(tasks.record_task_items, [(node, other)], NOW)
        store.write_now(tasks.record_task_results, [(node, TaskResult(
            id="r", task=task, run=run, outcome="done", finished=NOW))], NOW)  # fmt: skip
    assert store.read_now(tasks.run_items, "t1", 1, limit=10, offset=0) == (0, [])
    assert state(store).state == "waiting"


def test_a_run_that_was_not_begun_in_its_window_ends(store: FleetStore) -> None:
    make(store, "t1", ONE, TWO)
    begin(store)
    store.write_now(tasks.record_task_progress, [(TWO, TaskProgress(task="t1", run=1, step="x"))], NOW)
    assert store.write_now(tasks.close_late_runs, NOW + 600) == 0
    assert store.write_now(tasks.close_late_runs, NOW + 700) == 1
    assert (state(store, ONE).state, state(store, TWO).state) == ("failed", "running")


def test_a_node_has_no_more_at_once_than_its_desired_state_takes(store: FleetStore) -> None:
    for number in range(limits.ASSIGNMENTS_MAX + 3):
        make(store, f"t{number}")
        begin(store, f"t{number}")
    first = store.read_now(tasks.active_assignments)[ONE]
    assert [each.task for each in first] == [f"t{number}" for number in range(limits.ASSIGNMENTS_MAX)]
    most = limits.ASSIGNMENTS_BYTES_MAX // limits.WORK_BYTES_MAX
    for number in range(most + 2):
        make(store, f"l{number}", TWO, work=bytes(limits.WORK_BYTES_MAX))
        begin(store, f"l{number}")
    assert len(store.read_now(tasks.active_assignments)[TWO]) == most


def test_old_runs_are_forgotten_and_a_removed_task_leaves_nothing(
    store: FleetStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TASK_RUNS_KEPT", 2)
    make(store)
    for _ in range(3):
        begin(store)
    assert [len(store.read_now(tasks.run_nodes, "t1", run)) for run in (1, 2, 3)] == [0, 1, 1]
    assert store.read_now(tasks.states_by_run) == {("t1", 3): {"waiting": 1}}
    store.write_now(tasks.remove_task, "t1")
    assert store.read_now(tasks.run_nodes, "t1", 3) == []
    with pytest.raises(UsageError, match="no task"):
        store.read_now(tasks.find_task, "t1")


def test_a_task_is_due_when_its_time_has_come(store: FleetStore) -> None:
    make(store)
    store.write_now(tasks.begin_run, "t1", now=NOW, refused={}, next_at=NOW + 60)
    assert store.read_now(tasks.next_due) == NOW + 60
    assert store.read_now(triggers.due_tasks, NOW + 59, {}) == []
    assert [each.id for each in store.read_now(triggers.due_tasks, NOW + 60, {})] == ["t1"]


def test_there_are_only_so_many_tasks(store: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TASKS_MAX", 1)
    make(store)
    with pytest.raises(UsageError, match="task remove"):
        make(store, "t2")


def make_tokens(store: FleetStore, run: int, *secrets: str) -> None:
    records = [
        EnrolmentTokenRecord(
            id=f"{tokens.of_task('t1', run)}{number}",
            group_path=GroupPath("/"),
            uses=1,
            uses_left=1,
            expires=NOW + 600,
            created=NOW,
            created_by="alice",
            note="",
        )
        for number in range(len(secrets))
    ]
    store.write_now(tokens.add_enrolment_tokens, secrets, records)


def token_ids(store: FleetStore) -> set[str]:
    return {each.id for each in store.read_now(tokens.list_enrolment_tokens)}


def test_tokens_for_a_run_that_nobody_used_go_when_it_ends(store: FleetStore) -> None:
    begin(store, make(store))
    make_tokens(store, 1, "one", "two")
    store.write_now(tokens.use_enrolment_token, "one", NOW)
    store.write_now(tasks.record_task_results, [(ONE, result())], NOW)
    assert token_ids(store) == {"t1-1-0"}


def test_who_does_not_do_a_run_cannot_end_its_tokens(store: FleetStore) -> None:
    begin(store, make(store))
    make_tokens(store, 1, "one")
    store.write_now(tasks.record_task_results, [(TWO, result())], NOW)
    assert token_ids(store) == {"t1-1-0"}


@pytest.mark.parametrize("end", [tasks.stop_task, tasks.remove_task, tasks.begin_run])
def test_a_run_that_is_stopped_removed_or_followed_by_another_leaves_no_tokens(
    store: FleetStore, end: Any
) -> None:
    begin(store, make(store))
    make_tokens(store, 1, "one")
    more = {tasks.stop_task: ("alice", NOW), tasks.remove_task: ()}.get(end, ())
    named = {"now": NOW, "refused": {}} if end is tasks.begin_run else {}
    store.write_now(end, "t1", *more, **named)
    assert token_ids(store) == set()
