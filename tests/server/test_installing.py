"""The admin server's part in installing agents: what it hands out, prefetches, answers, and refuses."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from serverkit import Fleet, TestDevice, enrolled_device, open_fleet

from p2pdist.trust.secrets import seal_secrets
from p2pdist.wire import api as wire
from p2pdist.wire.installing import Install, InstallHost, InstallSecrets
from p2pdist.wire.messages import DesiredState
from p2pdist.wire.questions import NodeAwaited, NodeCame, SecretsRequest, TaskSecrets
from p2pdist.wire.tasks import TaskResult
from p2pdist.wire.work import encode_work

pytestmark = pytest.mark.slow  # whole servers, their databases and certificates

TARGET = "stable/p2pdist-agent/1/p2pdist-agent.bin"
HOSTS = [InstallHost(id="a", address="10.1.0.1"), InstallHost(id="b", address="10.1.0.2", group="/desks")]
WORK = Install(hosts=HOSTS, target=TARGET)


@asynccontextmanager
async def fleet_with_point(tmp_path: Path, *duties: str) -> AsyncIterator[tuple[Fleet, TestDevice]]:
    async with open_fleet(tmp_path) as fleet:
        point = await enrolled_device(fleet, name="branch")
        fleet.publisher.add_grant(point.node, "/", duties=duties or ("seed", "deploy"))
        fleet.publisher.add_release("1", b"the agent", product="p2pdist-agent", platform="linux-x86_64")
        fleet.publisher.add_release("2", b"no agent", product="tool")
        await fleet.operator.publish(fleet.publisher)
        await fleet.operator.ask("POST", "/groups", wire.GroupsChanged, wire.NewGroup(path="/desks"))
        yield fleet, point


async def order(fleet: Fleet, point: TestDevice | None, work: Install = WORK) -> wire.TaskInfo:
    """Have a point install agents, or the server itself."""
    key = point.key if point is not None else fleet.service.home.key
    later = int(time.time()) + 60
    box = seal_secrets(InstallSecrets(password="x"), work=encode_work(work), public=key.public, expires=later)
    sealed = [wire.SealedSecrets(node=key.node, box=box)]
    new = wire.NewTask(work=work, nodes=[key.node], secrets=sealed)
    return await fleet.operator.ask("POST", "/tasks", wire.TaskInfo, new)


async def shown(fleet: Fleet, task: str) -> wire.TaskRun:
    return await fleet.operator.ask("GET", f"/tasks/{task}/runs/1", wire.TaskRun, items=10)


async def tokens(fleet: Fleet) -> list[wire.TokenInfo]:
    known = (await fleet.operator.ask("GET", "/tokens", wire.TokenList)).tokens
    return [token for token in known if token.uses_left]


async def test_each_host_has_a_token_for_its_group_until_the_run_has_ended(tmp_path: Path) -> None:
    async with fleet_with_point(tmp_path) as (fleet, point), point.attached() as link:
        frames = link.frames()
        await point.send(link, point.heartbeat())
        made = await order(fleet, point)
        await point.send(link, SecretsRequest(task=made.id, run=1))
        given = (await point.next_message(frames, TaskSecrets)).tokens
        assert set(given) == {"a", "b"}
        shown = {token.note: token.group for token in await tokens(fleet)}
        assert shown == {
            f"for a, run 1 of task {made.id}": "/", f"for b, run 1 of task {made.id}": "/desks"
        }  # fmt: skip
        assert (await TestDevice(fleet).enrol(given["b"], name="desk")).group == "/desks"
        await point.send(link, TaskResult(id="r", task=made.id, run=1, outcome="partly", finished=1))
        with trio.fail_after(10):
            while await tokens(fleet):
                await trio.sleep(0.05)


async def test_a_dry_run_has_no_tokens(tmp_path: Path) -> None:
    async with fleet_with_point(tmp_path) as (fleet, point):
        await order(fleet, point, Install(hosts=HOSTS, target=TARGET, dry_run=True))
        assert await tokens(fleet) == []


async def test_a_point_prefetches_the_agent_while_it_is_to_install_it(tmp_path: Path) -> None:
    async with fleet_with_point(tmp_path) as (fleet, point), point.attached() as link:
        frames = link.frames()
        await point.send(link, point.heartbeat())
        assert (await point.next_message(frames, DesiredState)).prefetch == []
        made = await order(fleet, point)
        wanted = await point.next_message(frames, DesiredState)
        assert (wanted.prefetch, len(wanted.swarms)) == ([TARGET], 1)
        await point.send(link, TaskResult(id="r", task=made.id, run=1, outcome="done", finished=1))
        assert (await point.next_message(frames, DesiredState)).prefetch == []


async def test_who_installs_hears_when_a_new_device_has_said_something_and_again_if_it_asks_again(
    tmp_path: Path,
) -> None:
    async with fleet_with_point(tmp_path) as (fleet, point), point.attached() as link:
        frames = link.frames()
        await point.send(link, point.heartbeat())
        newcomer = await enrolled_device(fleet, name="desk")
        asked = NodeAwaited(task="t", run=1, node=newcomer.node)
        await point.send(link, asked)
        async with newcomer.attached() as other:
            with trio.move_on_after(0.3):
                await point.next_message(frames, NodeCame)
                pytest.fail("a link alone says nothing yet")
            await newcomer.send(other, newcomer.heartbeat())
            assert (await point.next_message(frames, NodeCame)).node == newcomer.node
            await point.send(link, asked)
            assert (await point.next_message(frames, NodeCame)).node == newcomer.node


async def test_who_must_not_install_hears_nothing_of_other_nodes(tmp_path: Path) -> None:
    async with fleet_with_point(tmp_path, "seed") as (_, point), point.attached() as link:
        frames = link.frames()
        await point.send(link, point.heartbeat())
        await point.send(link, NodeAwaited(task="t", run=1, node=point.node))
        await point.send(link, SecretsRequest(task="t", run=1))
        with trio.fail_after(10):
            async for frame in frames:
                message = point.read(frame) if hasattr(frame, "envelope") else None
                assert not isinstance(message, NodeCame)
                if isinstance(message, TaskSecrets):
                    break


async def test_a_run_of_the_server_that_was_under_way_when_it_ended_says_that_its_secrets_are_gone(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = InstallHost(id="a", address="127.0.0.1", port=silent.getsockname()[1])
        async with fleet_with_point(tmp_path) as (fleet, _):
            work = Install(hosts=[host], target=TARGET, addresses=["127.0.0.1:7601"])
            made = await order(fleet, None, work)
            with trio.fail_after(20):
                while [item.step for item in (await shown(fleet, made.id)).items] != ["key"]:
                    await trio.sleep(0.05)
            publisher = fleet.publisher
        async with open_fleet(tmp_path, publisher) as fleet:
            with trio.fail_after(20):
                while not (seen := await shown(fleet, made.id)).finished:
                    await trio.sleep(0.05)
    assert seen.nodes[0].state == "failed"
    assert "are gone, or nobody has given any" in seen.nodes[0].reason
    assert f"p2pdist task run {made.id} --secrets FILE" in seen.nodes[0].reason


async def test_work_that_makes_no_sense_is_refused_before_a_task_is_made(tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"target": "stable/tool/2/tool.bin"}, "not the agent as one file"),
        ({"target": "stable/none/1/none.bin"}, "no signed release"),
        ({"hosts": [*HOSTS, HOSTS[0]]}, "named twice"),
        ({"hosts": [HOSTS[0], InstallHost(id="c", address="10.1.0.1")]}, "named twice"),
        ({"hosts": [InstallHost(id="a", address="10.1.0.1", key="nonsense")]}, "is none"),
        ({"hosts": [InstallHost(id="a", address="10.1.0.1", group="/nowhere")]}, "/nowhere"),
    ]
    async with fleet_with_point(tmp_path) as (fleet, point):
        plain = await enrolled_device(fleet, name="laptop")
        for change, said in wrong:
            work = Install(**{"hosts": HOSTS, "target": TARGET, **change})
            new = wire.NewTask(work=work, nodes=[str(point.node)])
            assert said in (await fleet.operator.problem("POST", "/tasks", new)).detail
        for nodes, said in ((["branch", "server"], "one node"), ([str(plain.node)], "duty seed")):
            new = wire.NewTask(work=WORK, nodes=nodes)
            assert said in (await fleet.operator.problem("POST", "/tasks", new)).detail
        assert (await fleet.operator.ask("GET", "/tasks", wire.TaskList)).tasks == []
