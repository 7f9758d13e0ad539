"""What begins the next run of a task: a schedule, another task, new metadata. None is lost, or twice."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.store import tasks, triggers
from p2pdist.store.fleetstore import FleetStore
from p2pdist.wire.tasks import Outcome, TaskResult
from tests.store.conftest import NOW, node_of

pytestmark = pytest.mark.slow  # a database for each

ONE, TWO = node_of(1), node_of(2)


def make(
    store: FleetStore,
    task: str,
    *nodes: NodeId,
    after: str = "",
    on_metadata: bool = False,
    published: dict[str, int] | None = None,
    next_at: int | None = None,
) -> str:
    store.write_now(
        tasks.add_task,
        task_id=task,
        work=b"work",
        nodes=list(nodes or (ONE,)),
        by="alice",
        now=NOW,
        window_s=600,
        spread_s=0,
        after=after,
        on_metadata=on_metadata,
        published=published,
        next_at=next_at,
    )
    return task


def begin(store: FleetStore, task: str, **published: int) -> int:
    return store.write_now(tasks.begin_run, task, now=NOW, refused={}, published=published).run


def end(store: FleetStore, task: str, run: int, outcome: Outcome = "done", node: NodeId = ONE) -> None:
    said = TaskResult(id=f"{task}-{run}", task=task, run=run, outcome=outcome, finished=NOW)
    store.write_now(tasks.record_task_results, [(node, said)], NOW)


def due(store: FleetStore, **published: int) -> list[str]:
    return [record.id for record in store.read_now(triggers.due_tasks, NOW, published)]


def begin_due(store: FleetStore, task: str, **published: int) -> bool:
    return store.write_now(
        triggers.begin_due_run, task, now=NOW, published=published, refused={}, next_at=None
    )


def test_a_task_after_another_is_due_when_every_node_has_done_that(store: FleetStore) -> None:
    make(store, "first", ONE, TWO)
    make(store, "second", after="first")
    assert due(store) == []
    begin(store, "first")
    end(store, "first", 1, node=ONE)
    assert due(store) == [], "one node is still at it"
    end(store, "first", 1, node=TWO)
    assert due(store) == ["second"]
    assert begin_due(store, "second")
    assert due(store) == []


@pytest.mark.parametrize("outcome", ["failed", "partly", "cancelled"])
def test_a_run_that_did_not_succeed_begins_nothing(store: FleetStore, outcome: Outcome) -> None:
    make(store, "first")
    make(store, "second", after="first")
    begin(store, "first")
    end(store, "first", 1, outcome)
    assert due(store) == []
    begin(store, "first")
    end(store, "first", 2)
    assert due(store) == ["second"]


def test_what_was_done_before_a_task_was_made_does_not_begin_it_and_what_is_under_way_does(
    store: FleetStore,
) -> None:
    make(store, "first")
    begin(store, "first")
    end(store, "first", 1)
    begin(store, "first")
    make(store, "second", after="first")
    assert due(store) == []
    end(store, "first", 2)
    assert due(store) == ["second"]


def test_what_happens_during_a_run_waits_for_its_end_and_begins_one_more(store: FleetStore) -> None:
    make(store, "first")
    make(store, "second", after="first")
    begin(store, "first")
    end(store, "first", 1)
    begin_due(store, "second")
    for run in (2, 3):
        begin(store, "first")
        end(store, "first", run)
    assert due(store) == [], "the run before is under way"
    assert not begin_due(store, "second")
    end(store, "second", 1, "failed")
    assert due(store) == ["second"]
    assert begin_due(store, "second")
    assert not begin_due(store, "second"), "another server was first"
    end(store, "second", 2)
    assert due(store) == []


def test_a_run_that_an_operator_begins_takes_in_what_would_have_begun_one(store: FleetStore) -> None:
    make(store, "first")
    make(store, "second", after="first", on_metadata=True)
    begin(store, "first")
    end(store, "first", 1)
    begin(store, "second", targets=2)
    end(store, "second", 1)
    assert due(store, targets=2) == []
    assert due(store, targets=3) == ["second"]


def test_a_task_on_new_metadata_is_due_when_a_role_is_newer_and_not_when_one_is_gone(
    store: FleetStore,
) -> None:
    make(store, "t", on_metadata=True, published={"root": 1, "channel-stable": 4})
    assert due(store, root=1) == []
    assert due(store, root=1, **{"channel-stable": 4}) == []
    assert due(store, root=1, **{"channel-stable": 5}) == ["t"]
    begin_due(store, "t", root=1, **{"channel-stable": 5})
    end(store, "t", 1)
    assert due(store, root=1) == [], "the channel has expired"
    assert due(store, root=1, **{"channel-stable": 5}) == []
    assert due(store, root=1, **{"channel-stable": 5, "channel-beta": 1}) == ["t"]


def test_the_first_publication_of_all_is_new(store: FleetStore) -> None:
    make(store, "t", on_metadata=True)
    assert due(store) == []
    assert due(store, root=1) == ["t"]


def test_a_schedule_begins_a_run_whatever_else_is_under_way(store: FleetStore) -> None:
    make(store, "t", on_metadata=True, next_at=NOW)
    begin(store, "t")
    assert due(store) == []
    make(store, "u", on_metadata=True, next_at=NOW)
    assert due(store) == ["u"]
    assert begin_due(store, "u")
    assert not begin_due(store, "u"), "another server was first"


def test_a_task_cannot_wait_for_one_that_is_not_there_so_there_are_no_loops(store: FleetStore) -> None:
    for after in ("itself", "later"):
        with pytest.raises(UsageError, match="there is no task"):
            make(store, "itself", after=after)
    assert store.read_now(tasks.list_tasks) == []


def test_a_task_that_another_waits_for_is_not_removed_before_that(store: FleetStore) -> None:
    make(store, "first")
    make(store, "second", after="first")
    with pytest.raises(UsageError, match="task second begins after first"):
        store.write_now(tasks.remove_task, "first")
    store.write_now(tasks.remove_task, "second")
    store.write_now(tasks.remove_task, "first")
    assert store.read_now(tasks.list_tasks) == []


@given(steps=st.lists(st.sampled_from(["begin", "done", "failed", "look", "follower ends"]), max_size=14))
@settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_after_the_last_success_there_is_a_run_that_began_later_and_no_more_runs_than_successes(
    store: FleetStore, steps: list[str]
) -> None:
    for task in store.read_now(tasks.list_tasks):
        store.write_now(tasks.remove_task, task.id)
    make(store, "first")
    make(store, "second", after="first")
    run = open_run = successes = begun = begun_at = 0
    follower_open = False
    for step in [*steps, "follower ends", "look"]:
        if step == "begin":
            run = open_run = begin(store, "first")
        elif step in ("done", "failed") and open_run:
            end(store, "first", open_run, "done" if step == "done" else "failed")
            successes += step == "done"
            newest = open_run if step == "done" else None
            open_run = 0
            if newest is not None:
                last_success = newest
        elif step == "follower ends" and follower_open:
            end(store, "second", begun)
            follower_open = False
        elif step == "look" and begin_due(store, "second"):
            assert not follower_open
            begun, begun_at, follower_open = begun + 1, run, True
    assert begun <= successes
    assert (begun > 0) == (successes > 0)
    assert not successes or begun_at >= last_success
