"""What a node does about its assignments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.tasks import decide, starts_at, why_not
from p2pdist.ids import GroupPath, NodeId
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.tasks import Assignment

NOW = 1_800_000_000
NODE = NodeId("a" * 32)

TASKS = st.sampled_from(["a", "b", "c"])
RUNS = st.integers(1, 5)
ASSIGNED = st.lists(
    st.builds(Assignment, task=TASKS, run=RUNS, not_after=st.just(NOW), work=st.just(b"")), max_size=8
)
RUN_OF = st.dictionaries(TASKS, RUNS)


def assignment(task: str = "a", run: int = 1) -> Assignment:
    return Assignment(task=task, run=run, not_after=NOW, work=b"")


def grant(*duties: str, expires: int = NOW + 60) -> SeedGrant:
    return SeedGrant(node=NODE, duties=duties, scope=GroupPath("/"), addresses=(), expires=expires)  # type: ignore[arg-type]


def test_what_is_assigned_begins_once() -> None:
    assert decide([assignment()], running={}, ended={}).begin == (assignment(),)
    assert decide([assignment()], running={"a": 1}, ended={}) == ((), frozenset())
    assert decide([assignment()], running={}, ended={"a": 1}) == ((), frozenset())


def test_what_is_not_assigned_any_more_is_cancelled() -> None:
    assert decide([], running={"a": 1}, ended={}).cancel == {"a"}


def test_a_newer_run_ends_the_older_one_and_begins_after_it() -> None:
    newer = [assignment(run=2)]
    assert decide(newer, running={"a": 1}, ended={}) == ((), frozenset({"a"}))
    assert decide(newer, running={}, ended={"a": 1}).begin == (assignment(run=2),)


@given(ASSIGNED, RUN_OF, RUN_OF)
def test_a_task_has_one_run_at_a_time_and_none_twice(
    assigned: list[Assignment], running: dict[str, int], ended: dict[str, int]
) -> None:
    decision = decide(assigned, running=running, ended=ended)
    begun = [each.task for each in decision.begin]
    assert len(begun) == len(set(begun))
    assert not set(begun) & set(running)
    assert all(each.run > ended.get(each.task, 0) for each in decision.begin)


@given(ASSIGNED, RUN_OF, RUN_OF)
def test_once_it_is_done_there_is_nothing_to_change(
    assigned: list[Assignment], running: dict[str, int], ended: dict[str, int]
) -> None:
    while (decision := decide(assigned, running=running, ended=ended)) != ((), frozenset()):
        for task in decision.cancel:
            ended[task] = max(running.pop(task), ended.get(task, 0))
        running.update({each.task: each.run for each in decision.begin})
    newest = {task: max(each.run for each in assigned if each.task == task) for task in running}
    assert running == newest, "what is under way is the newest run of what is assigned"


def test_a_node_says_what_its_grant_lacks() -> None:
    assert why_not(grant("seed", "discovery"), "discovery", NOW) == ""
    assert why_not(grant("seed"), "discovery", NOW).endswith("the duties seed, and not discovery")
    assert "expired" in why_not(grant("discovery", expires=NOW - 1), "discovery", NOW)
    assert "no grant" in why_not(None, "discovery", NOW)


@given(st.integers(0, 2**33), st.integers(0, 604_800), st.text(max_size=20))
def test_a_node_begins_within_the_spread_always_at_the_same_moment(
    begin: int, spread: int, task: str
) -> None:
    found = starts_at(begin, spread, task=task, node=NODE)
    assert begin <= found <= begin + spread
    assert found == starts_at(begin, spread, task=task, node=NODE)


def test_nodes_begin_at_different_moments() -> None:
    moments = {starts_at(0, 3_600, task="a", node=NodeId(f"{number:032}")) for number in range(50)}
    assert len(moments) > 40
