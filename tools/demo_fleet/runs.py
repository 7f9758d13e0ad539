"""Tasks that nodes are given, watched until they have ended, as with ``p2pdist task show``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo_fleet.fleet import Fleet, each
from demo_fleet.plan import DemoError
from demo_fleet.watch import size
from p2pdist import limits
from p2pdist.wire import api as wire

_POLL_S = 0.4
_AT_ONCE = 4
_LINES_S = 5.0
"""How often a line is written where no live table can be drawn."""
_COUNTED_MAX = 100_000
_COLOURS = {"done": "green", "failed": "bold red", "refused": "bold red", "partly": "yellow"}


Seen = Callable[[wire.TaskRun, float], None]


async def run_tasks(
    fleet: Fleet,
    console: Console,
    *commands: Sequence[str],
    patience_s: float,
    seen: Seen = lambda run, elapsed_s: None,
) -> list[wire.TaskRun]:
    """Type commands that make a task each, and show how their runs go until all have ended; return the runs.

    Args:
        commands: What to type, without the program's name.
        seen: Told what is known of a run each time that it was looked at, and seconds since the commands.

    Raises:
        DemoError: a command failed, or a run has not ended in time.
    """
    started = said = trio.current_time()
    ids: dict[int, str] = {}

    async def begin(number: int) -> None:
        fleet.programs.say("p2pdist " + " ".join(commands[number]))
        printed = await fleet.programs.run("p2pdist", *commands[number], "--output", "json")
        ids[number] = msgspec.json.decode(printed, type=wire.TaskInfo).id

    await each(range(len(commands)), begin, at_once=_AT_ONCE)
    runs: list[wire.TaskRun] = []
    with trio.move_on_after(patience_s):
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not runs or not all(run.finished for run in runs):
                await trio.sleep(_POLL_S)
                runs = [await look_at_run(fleet, ids[number]) for number in range(len(commands))]
                elapsed_s = trio.current_time() - started
                for run in runs:
                    seen(run, elapsed_s)
                if console.is_terminal:
                    live.update(_draw(runs), refresh=True)
                elif trio.current_time() - said >= _LINES_S:
                    said = trio.current_time()
                    _say(console, elapsed_s, runs)
        _say(console, trio.current_time() - started, runs)
        return runs
    raise DemoError(f"{' '.join(commands[0][:2])} has not ended after {patience_s:.0f} s: {_line(runs)}")


async def look_at_run(fleet: Fleet, task: str) -> wire.TaskRun:
    """Return the first run of a task with what came of everything that it is about."""
    items = str(limits.API_ROWS_MAX)
    return await fleet.api.get(f"/tasks/{task}/runs/1", wire.TaskRun, items=items)


def _say(console: Console, elapsed_s: float, runs: Sequence[wire.TaskRun]) -> None:
    console.print(f"  {elapsed_s:5.1f} s  {_line(runs)}", highlight=False, soft_wrap=True)


def _line(runs: Sequence[wire.TaskRun]) -> str:
    return "; ".join(_node_line(node) for run in runs for node in run.nodes)


def _node_line(node: wire.TaskRunNode) -> str:
    if node.finished is not None:
        return f"{node.name} {node.state}{f' ({node.reason})' if node.reason else ''}"
    total = f" {_done(node)}" if node.total else ""
    return f"{node.name} {node.state}{f', {node.step}' if node.step else ''}{total}"


def _draw(runs: Sequence[wire.TaskRun]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2))
    for run in runs:
        for node in run.nodes:
            total = _done(node) if node.total and node.finished is None else ""
            table.add_row(node.name, _state(node.state), node.step, total, node.reason)
            for item in run.items:
                if item.node == node.node and item.state in ("running", "failed", "waiting"):
                    told = item.detail or (size(item.size_bytes) if item.size_bytes else "")
                    table.add_row(f"  [dim]{item.subject}[/]", _state(item.state), item.step, "", told)
    return table


def _done(node: wire.TaskRunNode) -> str:
    """How much of it is done: what is large is counted in bytes."""
    write = size if node.total > _COUNTED_MAX else str
    return f"{write(node.done)} of {write(node.total)}"


def _state(state: str) -> str:
    return f"[{_COLOURS.get(state, 'cyan')}]{state}[/]"
