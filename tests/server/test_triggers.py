"""Tasks that begin by themselves: after others, and on new metadata; also across a restart of the server."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from serverkit import Fleet, Publisher, enrolled_device, open_fleet

from p2pdist.store import tasks
from p2pdist.wire import api as wire
from p2pdist.wire.messages import DesiredState, Received
from p2pdist.wire.polling import Poll
from p2pdist.wire.tasks import TaskResult

POLL = Poll(methods=["neighbours"])

pytestmark = pytest.mark.slow  # whole servers


async def order(fleet: Fleet, *nodes: str, **fields: object) -> wire.TaskInfo:
    body = wire.NewTask(work=POLL, nodes=list(nodes), **fields)  # type: ignore[arg-type]
    return await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, body)


async def known(fleet: Fleet, task: wire.TaskInfo) -> wire.TaskInfo:
    return await fleet.operator.ask("GET", f"/tasks/{task.id}", wire.TaskInfo)


async def until_done(fleet: Fleet, task: wire.TaskInfo, *, run: int) -> None:
    with trio.fail_after(20):
        while (seen := await known(fleet, task)).run < run or seen.states != {"done": 1}:
            await trio.sleep(0.05)
        assert seen.run == run


async def test_the_success_of_a_task_begins_the_one_after_it_and_that_the_next(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        first = await order(fleet, "server", schedule="0 4 1 1 *")
        second = await order(fleet, "server", after=first.id)
        third = await order(fleet, "server", after=second.id)
        assert [(each.run, each.after) for each in (first, second, third)] == [
            (0, ""), (0, first.id), (0, second.id)
        ]  # fmt: skip
        await fleet.operator.ask("POST", f"/tasks/{first.id}/run", wire.TaskInfo)
        await until_done(fleet, third, run=1)


async def test_the_word_of_a_node_begins_what_is_after_its_task_at_once(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await enrolled_device(fleet, name="branch")
        fleet.publisher.add_grant(point.node, "/", duties=("discovery",))
        await fleet.operator.publish(fleet.publisher)
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat(name="branch"))
            first = await order(fleet, "branch")
            second = await order(fleet, "server", after=first.id)
            while not (await point.next_message(frames, DesiredState)).assignments:
                pass
            assert (await known(fleet, second)).run == 0
            await point.send(link, TaskResult(id="r1", task=first.id, run=1, outcome="done", finished=1))
            assert (await point.next_message(frames, Received)).ids == ["r1"]
            await until_done(fleet, second, run=1)


async def test_a_publication_begins_a_run_and_the_same_again_does_not(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = await order(fleet, "server", on_metadata=True)
        after = await order(fleet, "server", after=made.id)
        assert (made.run, made.on_metadata) == (0, True)
        signed = wire.NewPublication(metadata=fleet.publisher.metadata())
        await fleet.operator.ask("POST", "/publications", wire.Published, signed)
        await until_done(fleet, after, run=1)
        await fleet.operator.ask("POST", "/publications", wire.Published, signed)
        await fleet.operator.publish(fleet.publisher)
        await until_done(fleet, after, run=2)
        assert (await known(fleet, made)).run == 2


async def test_what_happens_during_a_run_and_before_a_restart_begins_one_run_afterwards(
    tmp_path: Path,
) -> None:
    publisher = Publisher(tmp_path / "signed")
    async with open_fleet(tmp_path, publisher) as fleet:
        point = await enrolled_device(fleet, name="branch")
        publisher.add_grant(point.node, "/", duties=("discovery",))
        await fleet.operator.publish(publisher)
        made = await order(fleet, "branch", on_metadata=True)
        await fleet.operator.ask("POST", f"/tasks/{made.id}/run", wire.TaskInfo)
        for _ in range(2):
            await fleet.operator.publish(publisher)
        assert (await known(fleet, made)).run == 1
    async with open_fleet(tmp_path, publisher) as fleet:
        assert (await known(fleet, made)).run == 1
        for run in (1, 2):
            ended = TaskResult(id=f"r{run}", task=made.id, run=run, outcome="done", finished=1)
            await fleet.service.store.write(tasks.record_task_results, [(point.node, ended)], 1)
            await fleet.service.tasks.changed()
            with trio.fail_after(20):
                while (seen := await known(fleet, made)).states != {("waiting", "done")[run - 1]: 1}:
                    await trio.sleep(0.05)
            assert seen.run == 2


async def test_what_cannot_be_waited_for_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        body = wire.NewTask(work=POLL, nodes=["server"], after="nothing")
        problem = await fleet.operator.problem("POST", "/tasks", body)
        assert (problem.status, "there is no task nothing" in problem.detail) == (400, True)
        first = await order(fleet, "server")
        await order(fleet, "server", after=first.id)
        assert "begins after" in (await fleet.operator.problem("DELETE", f"/tasks/{first.id}")).detail
