"""Tasks: from the API to the nodes that do them, and back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio
from serverkit import Fleet, TestDevice, enrolled_device, open_fleet

from p2pdist.ids import node_id_of
from p2pdist.store import tasks
from p2pdist.wire import api as wire
from p2pdist.wire.messages import DesiredState, Received
from p2pdist.wire.polling import Poll
from p2pdist.wire.questions import SecretsRequest, TaskSecrets
from p2pdist.wire.tasks import TaskItem, TaskItems, TaskProgress, TaskResult
from p2pdist.wire.work import decode_work, encode_work

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

POLL = Poll(ranges=["127.0.0.1"])


async def a_point(fleet: Fleet, *duties: str) -> TestDevice:
    point = await enrolled_device(fleet, name="branch")
    fleet.publisher.add_grant(point.node, "/", duties=duties)
    await fleet.operator.publish(fleet.publisher)
    return point


async def order(fleet: Fleet, *nodes: str, **fields: object) -> wire.TaskInfo:
    body = wire.NewTask(work=POLL, nodes=list(nodes), **fields)  # type: ignore[arg-type]
    return await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, body)


async def shown(fleet: Fleet, task: str, run: int = 1) -> wire.TaskRun:
    return await fleet.operator.ask("GET", f"/tasks/{task}/runs/{run}", wire.TaskRun, items=10)


async def until_ended(fleet: Fleet, task: str, run: int = 1) -> wire.TaskRun:
    with trio.fail_after(20):
        while True:
            seen = await shown(fleet, task, run)
            if seen.finished:
                return seen
            await trio.sleep(0.05)


async def test_a_point_has_a_run_in_its_desired_state_until_its_result_is_stored(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await a_point(fleet, "seed", "discovery")
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat(name="branch"))
            assert (await point.next_message(frames, DesiredState)).assignments == []
            made = await order(fleet, "branch")
            (assigned,) = (await point.next_message(frames, DesiredState)).assignments
            assert (assigned.task, assigned.run, decode_work(assigned.work)) == (made.id, 1, POLL)

            await point.send(link, TaskProgress(task=made.id, run=1, step="asking", done=1, total=1))
            items = [TaskItem(subject="127.0.0.1", state="done", step="echo")]
            await point.send(link, TaskItems(id="i1", task=made.id, run=1, items=items))
            assert (await point.next_message(frames, Received)).ids == ["i1"]
            seen = await shown(fleet, made.id)
            assert (seen.nodes[0].state, seen.nodes[0].step, seen.finished) == ("running", "asking", False)

            result = TaskResult(id="r1", task=made.id, run=1, outcome="done", finished=1)
            await point.send(link, result)
            assert (await point.next_message(frames, Received)).ids == ["r1"]
            assert (await point.next_message(frames, DesiredState)).assignments == []
            await point.send(link, result)
            assert (await point.next_message(frames, Received)).ids == ["r1"], "the first answer may be lost"
        seen = await shown(fleet, made.id)
        assert (seen.nodes[0].state, seen.nodes[0].confirmed, seen.finished) == ("done", True, True)
        assert [(item.subject, item.name) for item in seen.items] == [("127.0.0.1", "branch")]


async def test_a_stopped_run_leaves_the_desired_state_and_is_in_the_audit_log(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await a_point(fleet, "discovery")
        async with point.attached() as link:
            frames = link.frames()
            await point.send(link, point.heartbeat())
            made = await order(fleet, point.node)
            while not (await point.next_message(frames, DesiredState)).assignments:
                pass
            await fleet.operator.ask("POST", f"/tasks/{made.id}/stop", wire.TaskInfo)
            assert (await point.next_message(frames, DesiredState)).assignments == []
        seen = await shown(fleet, made.id)
        assert (seen.nodes[0].state, seen.nodes[0].confirmed) == ("cancelled", False)
        audit = await fleet.operator.ask("GET", "/audit", wire.AuditList)
        assert [entry.action for entry in audit.entries[:3]] == ["task.stop", "task.run", "task.add"]


async def test_who_has_no_grant_for_it_is_not_asked(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await a_point(fleet, "seed")
        plain = await enrolled_device(fleet, name="laptop")
        made = await order(fleet, point.node, plain.node, "server")
        seen = await until_ended(fleet, made.id)
        states = {node.name: (node.state, node.reason) for node in seen.nodes}
        assert states["server"][0] == "done"
        assert states["laptop"] == ("refused", "this node has no grant: the duty discovery is missing")
        assert states["branch"][0] == "refused"
        assert "and not discovery" in states["branch"][1]


async def test_a_task_on_a_schedule_begins_when_it_is_due_and_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        now = int(time.time())
        await fleet.service.store.write(
            tasks.add_task,
            task_id="nightly",
            work=encode_work(POLL),
            nodes=[fleet.service.tasks.node],
            by="alice",
            now=now,
            window_s=600,
            spread_s=0,
            schedule="0 4 * * *",
            zone="Europe/Berlin",
            next_at=now - 1,
        )
        await fleet.service.tasks.changed()
        with trio.fail_after(20):
            while not (known := await fleet.operator.ask("GET", "/tasks/nightly", wire.TaskInfo)).run:
                await trio.sleep(0.05)
        assert known.run == 1
        assert known.next_at is not None
        assert known.next_at > now
        assert (await until_ended(fleet, "nightly")).nodes[0].state == "done"


async def test_a_run_of_the_server_that_was_under_way_when_it_ended_is_begun_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        slow = wire.NewTask(work=Poll(ranges=["127.0.0.0/30"], per_s=1), nodes=["server"])
        made = await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, slow)
        with trio.fail_after(20):
            while (await shown(fleet, made.id)).nodes[0].state != "running":
                await trio.sleep(0.05)
    async with open_fleet(tmp_path) as fleet:
        seen = await until_ended(fleet, made.id)
        assert (seen.nodes[0].state, seen.nodes[0].figures["answered"]) == ("done", 2)


async def test_what_makes_no_sense_is_refused_before_anybody_is_given_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        ask = fleet.operator.problem
        for body, said in (
            (wire.NewTask(work=Poll(ranges=["10.0.0.0/8"]), nodes=["server"]), "addresses"),
            (wire.NewTask(work=Poll(methods=["echo"]), nodes=["server"]), "needs ranges"),
            (wire.NewTask(work=POLL, nodes=["nobody"]), "no device"),
            (b'{"work": {"work": "guess"}, "nodes": ["server"]}', "guess"),
            (b'{"work": {"work": "poll"}, "nodes": []}', "nodes"),
        ):
            problem = await ask("POST", "/tasks", body)
            assert problem.status == 400
            assert said in problem.detail
        assert "no task" in (await ask("POST", "/tasks/x/run")).detail
        made = await order(fleet, "server")
        for run in ("0", "2", "x", "-1", "99999999999"):
            assert "has no run" in (await ask("GET", f"/tasks/{made.id}/runs/{run}")).detail


@pytest.mark.parametrize("method", ["run", "stop"])
async def test_a_reader_may_look_and_no_more(tmp_path: Path, method: str) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = await order(fleet, "server")
        token = await fleet.operator.ask(
            "POST", "/api-tokens", wire.MadeToken, wire.NewApiToken(name="desk", role="reader")
        )
        async with fleet.client(token.token) as client:
            assert (await client.get(f"/api/v1/tasks/{made.id}")).status_code == 200
            assert (await client.post(f"/api/v1/tasks/{made.id}/{method}")).status_code == 403


async def test_what_is_sealed_for_a_run_is_handed_to_its_node_alone_until_it_has_ended(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        point, other = await a_point(fleet, "discovery"), await enrolled_device(fleet, name="other")
        box = b"sealed by the operator"
        async with point.attached() as link, other.attached() as other_link:
            frames, others = link.frames(), other_link.frames()
            await point.send(link, point.heartbeat())
            await other.send(other_link, other.heartbeat())
            made = await order(fleet, point.node, secrets=[wire.SealedSecrets(node=str(point.node), box=box)])
            asked = SecretsRequest(task=made.id, run=1)
            for _ in range(2):
                await point.send(link, asked)
                assert (await point.next_message(frames, TaskSecrets)).box == box
            await other.send(other_link, asked)
            assert (await other.next_message(others, TaskSecrets)).box == b""
            result = TaskResult(id="r1", task=made.id, run=1, outcome="done", finished=1)
            await point.send(link, result)
            await point.next_message(frames, Received)
            await point.send(link, asked)
            assert (await point.next_message(frames, TaskSecrets)).box == b""
        assert not any(box in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


async def test_secrets_for_a_run_that_begins_later_are_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        sealed = [wire.SealedSecrets(node=str(fleet.service.tasks.node), box=b"x")]
        new = wire.NewTask(work=POLL, nodes=["server"], secrets=sealed, schedule="0 4 * * *")
        assert "begins later" in (await fleet.operator.problem("POST", "/tasks", new)).detail


async def test_secrets_for_a_node_that_does_not_do_the_task_are_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        sealed = [wire.SealedSecrets(node="a" * 32, box=b"x")]
        new = wire.NewTask(work=POLL, nodes=["server"], secrets=sealed)
        assert "for nobody" in (await fleet.operator.problem("POST", "/tasks", new)).detail
        assert (await fleet.operator.ask("GET", "/tasks", wire.TaskList)).tasks == []


async def test_everybody_can_check_that_a_key_is_its_node_s(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        point = await a_point(fleet, "discovery")
        for name, node in (("branch", point.node), ("server", fleet.service.tasks.node)):
            key = await fleet.operator.ask("GET", f"/nodes/{name}/key", wire.NodeKey)
            assert (key.name, key.node, node_id_of(key.public)) == (name, node, node)
