"""Commands: tasks of nodes. Commands that make them watch them with :func:`begin`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from rich.console import Group
from rich.live import Live
from rich.table import Table

from p2pdist import limits
from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import console, errors, say, show, show_json, table
from p2pdist.cli.secrets import read_secrets, seal_for
from p2pdist.cli.when import When
from p2pdist.cli.words import duration, life, moment, rate, short, size
from p2pdist.duties.kinds import secrets_of
from p2pdist.errors import P2PDistError, Unavailable, UsageError
from p2pdist.wire import api as wire
from p2pdist.wire.work import AnyWork

task = App(name="task", help="What nodes are given to do: polls of networks, and other duties.")

_POLL_S = 1.0
_LIVE_ITEMS, _LIVE_ROWS = 256, 16  # of which those under way are shown, as many as fit on a screen
_AWAY_S = 60.0  # a server that restarts is back sooner


class TaskFailed(P2PDistError):
    """A run has ended, and not every node has done all of it."""

    exit_code = 6


def begin(
    common: Common,
    work: AnyWork,
    nodes: Sequence[str],
    *,
    when: When,
    wait: bool,
    timeout: str,
    secrets: msgspec.Struct | None = None,
) -> None:
    """Make a task; with *wait* show how its first run goes until it has ended.

    Raises:
        TaskFailed: it has ended, and a node has not done all of it.
        Unavailable: it has not ended within *timeout* (``90s``, ``30m``, ``12h``).
    """
    patience = _patience(timeout)
    if wait and when.waits:
        raise UsageError(
            "a task that waits for something has not begun yet",
            hint="leave out --wait, or --every, --after and --on-metadata",
        )
    new = when.task(work, list(nodes))
    with common.client() as client:
        if secrets is not None:
            new = msgspec.structs.replace(new, secrets=seal_for(client, work, nodes, secrets))
        _begun(client, client.post("/tasks", wire.TaskInfo, new), common, patience if wait else None)


def begin_again(
    common: Common, task_id: str, secrets: msgspec.Struct | None, *, wait: bool, timeout: str
) -> None:
    """Begin another run of a task; for errors see :func:`begin`."""
    patience = _patience(timeout)
    with common.client() as client:
        body = wire.RunTask()
        if secrets is not None:
            known = client.get(f"/tasks/{segment(task_id)}", wire.TaskInfo)
            if known.work is None:
                raise UsageError(known.problem)
            nodes = [each.node for each in known.nodes]
            body = wire.RunTask(secrets=seal_for(client, known.work, nodes, secrets))
        known = client.post(f"/tasks/{segment(task_id)}/run", wire.TaskInfo, body)
        _begun(client, known, common, patience if wait else None)


@task.command(name="list")
def task_list(*, common: Common = DEFAULT) -> None:
    """List the tasks, newest first."""
    with common.client() as client:
        answer = client.get("/tasks", wire.TaskList)
    rows = [
        (each.id, each.kind, _nodes(each), _when(each), str(each.run), _states(each.states))
        for each in answer.tasks
    ]
    columns = ("id", "kind", "on", "begins", "run", "nodes")
    show(answer, common.output, columns, rows, right=("run",), empty="no tasks")


@task.command(name="show")
def task_show(
    task_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    run: int = 0,
    items: int = 100,
    common: Common = DEFAULT,
) -> None:
    """Show how far a run of a task is, and what came of it.

    Parameters
    ----------
    run
        Which run; by default the newest.
    items
        At most so many things that it is about, up to 1000.
    """
    with common.client() as client:
        known = client.get(f"/tasks/{segment(task_id)}", wire.TaskInfo)
        if not known.run:
            if common.output == "json":
                show_json(known)
            else:
                say(f"{known.id}: {known.kind} on {_nodes(known)}; its first run begins {_when(known)}")
            return
        answer = _run(client, known.id, run or known.run, items=items)
    if common.output == "table" and _waits(known):
        say(f"{known.id}: {known.kind} on {_nodes(known)}; another run begins {_when(known)}")
    _show_run(answer, common)


@task.command(name="run")
def task_run(
    task_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    secrets: str = "",
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Begin another run of a task now. What is left of the present one ends.

    Parameters
    ----------
    secrets
        A TOML file with what the task needs that is secret, such as `password = "..."`; - for standard input.
        It is sealed here, for the nodes that do the task.
    wait
        Watch until it has ended. Exit code 6 if a node has not done all of it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    with common.client() as client:
        known = client.get(f"/tasks/{segment(task_id)}", wire.TaskInfo)
        if known.work is None:
            raise UsageError(known.problem)
        found = read_secrets(secrets, known.work) if secrets else None
        if found is None and secrets_of(known.work) is not None:
            raise UsageError(
                f"a task of the kind {known.kind} needs secrets, which nobody has kept",
                hint=f"give them again: p2pdist task run {known.id} --secrets FILE",
            )
    begin_again(common, task_id, found, wait=wait, timeout=timeout)


@task.command(name="stop")
def task_stop(task_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """End the present run of a task on every node. What else begins runs goes on to."""
    with common.client() as client:
        answer = client.post(f"/tasks/{segment(task_id)}/stop", wire.TaskInfo)
    if common.output == "json":
        show_json(answer)
    else:
        say(f"{answer.id} is stopped; {_states(answer.states)}")


@task.command(name="remove")
def task_remove(task_id: Annotated[str, Parameter(name="ID")], /, *, common: Common = DEFAULT) -> None:
    """Remove a task, its schedule, and what its runs have found."""
    with common.client() as client:
        answer = client.delete(f"/tasks/{segment(task_id)}", wire.Done)
    if common.output == "json":
        show_json(answer)
    else:
        say(f"{task_id} is removed")


def _begun(client: Client, known: wire.TaskInfo, common: Common, patience_s: float | None) -> None:
    if patience_s is not None:
        _watch(client, known, patience_s, common)
    elif common.output == "json":
        show_json(known)
    else:
        say(f"{known.id}: {known.kind} on {_nodes(known)}, {_when(known)}")
        say(f"watch it with: p2pdist task show {known.id}")


def follow(client: Client, known: wire.TaskInfo, patience_s: float) -> wire.TaskRun:
    """Show the newest run of a task until it has ended; return what came of it.

    Raises:
        Unavailable: it has not ended in *patience_s* seconds, or the server is away.
    """
    deadline = time.monotonic() + patience_s
    answered = time.monotonic()
    with Live(console=errors(), auto_refresh=False, transient=True) as live:
        while True:
            try:
                seen = _run(client, known.id, known.run, items=_LIVE_ITEMS)
            except Unavailable:
                if time.monotonic() - answered > _AWAY_S:
                    raise
            else:
                answered = time.monotonic()
                live.update(_live(seen), refresh=True)
                if seen.finished:
                    break
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"run {known.run} of task {known.id} has not ended in {duration(patience_s)}",
                    hint=f"it goes on; look again with: p2pdist task show {known.id}",
                )
            time.sleep(_POLL_S)
    return _run(client, known.id, known.run, items=limits.API_ROWS_MAX)


def _watch(client: Client, known: wire.TaskInfo, patience_s: float, common: Common) -> None:
    answer = follow(client, known, patience_s)
    _show_run(answer, common)
    bad = [node for node in answer.nodes if node.state != "done"]
    if bad:
        raise TaskFailed(
            f"{len(bad)} of {len(answer.nodes)} nodes have not done it; the first, {bad[0].name}, is"
            f" {bad[0].state}: {bad[0].reason}",
            hint=f"p2pdist task show {known.id}",
        )


def _run(client: Client, task_id: str, run: int, *, items: int) -> wire.TaskRun:
    return client.get(f"/tasks/{segment(task_id)}/runs/{run}", wire.TaskRun, items=items)


def _show_run(answer: wire.TaskRun, common: Common) -> None:
    if common.output == "json":
        show_json(answer)
        return
    if answer.items:
        console().print(_items(answer, answer.items))
        if len(answer.items) < answer.items_total:
            say(f"{answer.items_total - len(answer.items)} more; --items shows up to {limits.API_ROWS_MAX}")
    console().print(_progress(answer))


def _live(answer: wire.TaskRun) -> Group:
    """What is worked on right now, and how far each node is."""
    running = [item for item in answer.items if item.state == "running"][:_LIVE_ROWS]
    return Group(*([_items(answer, running)] if running else []), _progress(answer))


def _items(answer: wire.TaskRun, items: Sequence[wire.TaskItemInfo]) -> Table:
    several = len(answer.nodes) > 1
    rows = [
        (
            *((item.name,) if several else ()),
            item.subject,
            item.state,
            item.step,
            item.detail,
            size(item.size_bytes) if item.size_bytes else "",
        )
        for item in sorted(items, key=_order)
    ]
    columns = (*(("node",) if several else ()), "what", "state", "how", "detail", "size")
    return table(columns, rows, right=("size",))


def _order(item: wire.TaskItemInfo) -> tuple[str, int, int, str]:
    """Addresses are ordered by their numbers, not by their digits."""
    try:
        address = ip_address(item.subject)
    except ValueError:
        return item.name, 9, 0, item.subject
    return item.name, address.version, int(address), ""


def _progress(answer: wire.TaskRun) -> Table:
    rows = [
        (
            node.name or short(node.node),
            node.state if node.online or node.finished is not None else f"{node.state}, offline",
            *(_at_work(node) if node.finished is None else ("", "", "")),
            ", ".join(f"{count} {name}" for name, count in sorted(node.figures.items())),
            _reason(node),
        )
        for node in answer.nodes
    ]
    columns = ("node", "state", "step", "progress", "rate", "figures", "reason")
    return table(columns, rows, right=("progress", "rate"))


def _at_work(node: wire.TaskRunNode) -> tuple[str, str, str]:
    return (
        node.step,
        f"{node.done} of {node.total}" if node.total else "",
        rate(node.rate_bytes_per_s),
    )


def _reason(node: wire.TaskRunNode) -> str:
    if node.state == "cancelled" and not node.confirmed:
        return f"{node.reason}; the node has not said so yet"
    return node.reason


def _nodes(known: wire.TaskInfo) -> str:
    return ", ".join(node.name or short(node.node) for node in known.nodes)


def _when(known: wire.TaskInfo) -> str:
    spread = f", spread over {duration(known.spread_s)}" if known.spread_s else ""
    return "; ".join(_waits(known)) + spread if _waits(known) else "now" if known.run == 1 else "-"


def _waits(known: wire.TaskInfo) -> list[str]:
    """What begins the next run of a task, other than an operator."""
    waits = []
    if known.next_at is not None:
        waits.append(f"{moment(known.next_at)} ({known.schedule}, {known.zone})")
    if known.after:
        waits.append(f"after {known.after}")
    if known.on_metadata:
        waits.append("on new metadata")
    return waits


def _states(states: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items())) or "-"


def _patience(timeout: str) -> float:
    try:
        return life(timeout)
    except ValueError as error:
        raise UsageError(str(error)) from None
