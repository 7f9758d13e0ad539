"""Tasks that nodes are given, watched until they have ended, as with ``p2pdist task show``."""

from __future__ import annotations

import msgspec
import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo_fleet.fleet import Fleet
from demo_fleet.plan import DemoError
from demo_fleet.watch import size
from p2pdist import limits
from p2pdist.wire import api as wire

_POLL_S = 0.4
_LINES_S = 5.0
"""How often a line is written where no live table can be drawn."""
_COLOURS = {"done": "green", "failed": "bold red", "refused": "bold red", "partly": "yellow"}


async def run_task(fleet: Fleet, console: Console, *words: str, patience_s: float) -> wire.TaskRun:
    """Type a command that makes a task, and show how its run goes until it has ended; return the run.

    Raises:
        DemoError: the command failed, or the run has not ended in time.
    """
    fleet.programs.say("p2pdist " + " ".join(words))
    printed = await fleet.programs.run("p2pdist", *words, "--output", "json")
    made = msgspec.json.decode(printed, type=wire.TaskInfo)
    started = said = trio.current_time()
    with trio.move_on_after(patience_s):
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while not (run := await look_at_run(fleet, made.id)).finished:
                if console.is_terminal:
                    live.update(_draw(run), refresh=True)
                elif trio.current_time() - said >= _LINES_S:
                    said = trio.current_time()
                    console.print(f"  {said - started:5.1f} s  {_line(run)}", highlight=False)
                await trio.sleep(_POLL_S)
        console.print(f"  {trio.current_time() - started:5.1f} s  {_line(run)}", highlight=False)
        return run
    raise DemoError(f"{' '.join(words[:2])} has not ended after {patience_s:.0f} s: {_line(run)}")


async def look_at_run(fleet: Fleet, task: str) -> wire.TaskRun:
    """Return the first run of a task with what came of everything that it is about."""
    items = str(limits.API_ROWS_MAX)
    return await fleet.api.get(f"/tasks/{task}/runs/1", wire.TaskRun, items=items)


def _line(run: wire.TaskRun) -> str:
    return "; ".join(
        f"{node.name} {node.state}{f', {node.step}' if node.step else ''}"
        f"{f' {node.done} of {node.total}' if node.total else ''}{f' ({node.reason})' if node.reason else ''}"
        for node in run.nodes
    )


def _draw(run: wire.TaskRun) -> Table:
    table = Table(show_header=False, expand=False, pad_edge=False)
    for node in run.nodes:
        table.add_row(node.name, _state(node.state), node.step, node.reason)
        for item in run.items:
            if item.node == node.node and item.state in ("running", "failed", "waiting"):
                told = item.detail or (size(item.size_bytes) if item.size_bytes else "")
                table.add_row(f"  [dim]{item.subject}[/]", _state(item.state), item.step, told)
    return table


def _state(state: str) -> str:
    return f"[{_COLOURS.get(state, 'cyan')}]{state}[/]"
