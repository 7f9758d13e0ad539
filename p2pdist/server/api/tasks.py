"""Handlers: tasks of nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import trio

from p2pdist import limits
from p2pdist.core.schedules import next_time
from p2pdist.duties.kinds import check_work
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId, parse_group
from p2pdist.server.api.context import Api
from p2pdist.server.api.installing import check_installing, make_tokens
from p2pdist.server.api.mirrors import prepare
from p2pdist.server.api.table import Call
from p2pdist.server.readers import points_meant
from p2pdist.server.tasks import work_of
from p2pdist.server.tokens import token_id
from p2pdist.store import devices, tasks
from p2pdist.store.records import TaskRecord, TaskRunRecord
from p2pdist.wire import api as wire
from p2pdist.wire.work import encode_work, kind_of

SERVER = "server"
"""Stands for the admin server itself, among the nodes of a task."""


async def list_tasks(api: Api, call: Call[None]) -> wire.TaskList:
    """Every task, newest first."""
    found = await api.store.read(tasks.list_tasks)
    states = await api.store.read(tasks.states_by_run)
    names = await _names(api, (node for record in found for node in record.nodes))
    return wire.TaskList(tasks=[_info(record, states, names) for record in found])


async def add_task(api: Api, call: Call[wire.NewTask]) -> wire.TaskInfo:
    """Make a task; without a schedule, and anything else to begin after, it begins at once."""
    new = call.body
    if new.secrets and (new.schedule or new.after or new.on_metadata):
        raise UsageError(
            "secrets are kept in memory for an hour, and this begins later",
            hint="leave out when it begins, and begin each run with p2pdist task run ID --secrets FILE",
        )
    await trio.to_thread.run_sync(check_work, new.work)
    resolved = {text: await _resolve(api, text, call.now) for text in new.nodes}
    nodes = list(dict.fromkeys(node for found in resolved.values() for node in found))
    meant = [text if text.startswith("/") else found[0] for text, found in resolved.items()]
    if len(nodes) > limits.TASK_NODES_MAX:
        raise UsageError(
            f"these are {len(nodes)} nodes", hint=f"a task is for {limits.TASK_NODES_MAX} at most"
        )
    work = prepare(api, new.work, nodes, meant, call.now)
    await check_installing(api, work, nodes, call.now)
    boxes = _boxes(new.secrets, nodes)
    following = next_time(new.schedule, new.zone, call.now) if new.schedule else None
    if new.schedule and following is None:
        raise UsageError(f"{new.schedule!r} names no moment that will come")
    record = await api.change(
        call,
        "task.add",
        f"{kind_of(new.work)} on {', '.join(new.nodes)}"[: limits.TEXT_CHARS_MAX],
        tasks.add_task,
        task_id=token_id(),
        work=encode_work(work),
        nodes=nodes,
        by=call.actor,
        now=call.now,
        window_s=new.window_s,
        spread_s=new.spread_s,
        schedule=new.schedule,
        zone=new.zone,
        next_at=following,
        after=new.after,
        on_metadata=new.on_metadata,
        published=api.tasks.published(),
    )
    if not (new.schedule or new.after or new.on_metadata):
        record = await _begin(api, call, record, boxes)
    await api.tasks.changed()
    return await _shown(api, record)


async def show_task(api: Api, call: Call[None]) -> wire.TaskInfo:
    """One task."""
    return await _shown(api, await api.store.read(tasks.find_task, call.path["id"]))


async def run_task(api: Api, call: Call[wire.RunTask]) -> wire.TaskInfo:
    """Begin another run now; what is left of the present one ends."""
    known = await api.store.read(tasks.find_task, call.path["id"])
    record = await _begin(api, call, known, _boxes(call.body.secrets, known.nodes))
    await api.tasks.changed()
    return await _shown(api, record)


async def stop_task(api: Api, call: Call[None]) -> wire.TaskInfo:
    """End the present run on every node. A schedule goes on."""
    chosen = call.path["id"]
    api.tasks.vault.forget(chosen)
    record = await api.change(call, "task.stop", chosen, tasks.stop_task, chosen, call.actor, call.now)
    await api.tasks.changed()
    return await _shown(api, record)


async def remove_task(api: Api, call: Call[None]) -> wire.Done:
    """Remove a task with its runs and what they found."""
    chosen = call.path["id"]
    api.tasks.vault.forget(chosen)
    await api.change(call, "task.remove", chosen, tasks.remove_task, chosen)
    await api.tasks.changed()
    return wire.Done()


async def show_run(api: Api, call: Call[None]) -> wire.TaskRun:
    """How far each node is with a run, and some of what came of it."""
    record = await api.store.read(tasks.find_task, call.path["id"])
    number = call.path["run"]
    run = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 0
    if not 1 <= run <= record.run:
        raise UsageError(
            f"task {record.id} has no run {number[:20]!r}",
            hint=f"p2pdist task show {record.id} names its newest",
        )
    nodes = await api.store.read(tasks.run_nodes, record.id, run)
    limit = call.query_int("items", 0, at_most=limits.API_ROWS_MAX)
    offset = call.query_int("offset", 0, at_most=limits.TASK_NODES_MAX * limits.TASK_ITEMS_KEPT_MAX)
    total, items = await api.store.read(tasks.run_items, record.id, run, limit=limit, offset=offset)
    names = await _names(api, (each.node for each in nodes))
    attached = {*api.attached(), api.tasks.node}
    return wire.TaskRun(
        task=record.id,
        run=run,
        finished=all(each.state not in tasks.OPEN_STATES for each in nodes),
        nodes=[_node(each, names, online=each.node in attached) for each in nodes],
        items_total=total,
        items=[
            wire.TaskItemInfo(
                node=item.node,
                name=names.get(item.node, ""),
                subject=item.subject,
                state=item.state,
                step=item.step,
                detail=item.detail,
                size_bytes=item.size_bytes,
                updated=item.updated,
            )
            for item in items
        ],
    )


async def show_key(api: Api, call: Call[None]) -> wire.NodeKey:
    """The identity key of a node that does tasks, or of the server."""
    node, *others = await _resolve(api, call.path["id"], call.now)
    if others:
        raise UsageError(f"{call.path['id'][:60]!r} is several nodes", hint="name one of them")
    if node == api.tasks.node:
        return wire.NodeKey(node=node, name=SERVER, public=api.tasks.key.public)
    device = await api.store.read(devices.resolve_device, node)
    return wire.NodeKey(node=node, name=device.name, public=device.public)


async def _begin(
    api: Api,
    call: Call[wire.NewTask] | Call[wire.RunTask],
    record: TaskRecord,
    boxes: Mapping[NodeId, bytes],
) -> TaskRecord:
    given = api.tasks.given(record, call.now)
    refused = api.tasks.refusals(record, given, call.now)
    tokens_by_host = await make_tokens(api, call, record, work_of(record)) if boxes else {}
    api.tasks.vault.keep(record.id, record.run + 1, boxes, tokens_by_host)
    return await api.change(
        call,
        "task.run",
        record.id,
        tasks.begin_run,
        record.id,
        now=call.now,
        refused=refused,
        given=given,
        next_at=record.next_at,
        published=api.tasks.published(),
    )


def _boxes(secrets: Sequence[wire.SealedSecrets], nodes: Collection[NodeId]) -> dict[NodeId, bytes]:
    boxes = {NodeId(each.node): each.box for each in secrets}
    if strangers := set(boxes) - set(nodes):
        raise UsageError(f"{min(strangers)} does not do this task: its secrets are for nobody")
    return boxes


async def _resolve(api: Api, text: str, now: int) -> list[NodeId]:
    """Return the nodes that an operator means; of a group, the distribution points that serve it."""
    if text in (SERVER, api.tasks.node):
        return [api.tasks.node]
    if text.startswith("/"):
        return points_meant(parse_group(text), api.grants, now)
    device = await api.store.read(devices.resolve_device, text)
    if device.revoked is not None:
        raise UsageError(f"{device.name} is revoked: {device.revoked_reason}")
    return [device.node]


async def _names(api: Api, nodes: Iterable[NodeId]) -> dict[NodeId, str]:
    found = await api.store.read(devices.find_devices, sorted(set(nodes)))
    return {**{node: device.name for node, device in found.items()}, api.tasks.node: SERVER}


async def _shown(api: Api, record: TaskRecord) -> wire.TaskInfo:
    states = await api.store.read(tasks.states_by_run)
    return _info(record, states, await _names(api, record.nodes))


def _info(
    record: TaskRecord, states: Mapping[tuple[str, int], dict[str, int]], names: Mapping[NodeId, str]
) -> wire.TaskInfo:
    try:
        work, problem = work_of(record), ""
    except UsageError as error:
        work, problem = None, error.what
    return wire.TaskInfo(
        id=record.id,
        kind=kind_of(work) if work is not None else "unknown",
        work=work,
        problem=problem,
        nodes=[wire.TaskNode(node=node, name=names.get(node, "")) for node in record.nodes],
        created=record.created,
        created_by=record.created_by,
        window_s=record.window_s,
        spread_s=record.spread_s,
        schedule=record.schedule,
        zone=record.zone,
        next_at=record.next_at,
        after=record.after,
        on_metadata=record.on_metadata,
        run=record.run,
        states=states.get((record.id, record.run), {}),
    )


def _node(record: TaskRunRecord, names: Mapping[NodeId, str], *, online: bool) -> wire.TaskRunNode:
    return wire.TaskRunNode(
        node=record.node,
        name=names.get(record.node, ""),
        online=online,
        state=record.state,
        step=record.step,
        done=record.done,
        total=record.total,
        rate_bytes_per_s=record.rate_bytes_per_s,
        reason=record.reason,
        figures=dict(record.figures),
        confirmed=bool(record.report),
        seconds=record.seconds,
        updated=record.updated,
        finished=record.finished,
    )
