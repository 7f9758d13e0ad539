"""What the server says of the devices while deployments run, as a live table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio
from rich.console import Console
from rich.live import Live
from rich.table import Table

from demo_fleet.api import Api
from demo_fleet.plan import DemoError, Newcomer, Node
from p2pdist.cli.words import source_word
from p2pdist.wire import api as wire

_POLL_S = 0.4
_LINES_S = 5.0
"""How often a line is written where no live table can be drawn."""

ENDED = frozenset({"installed", "failed", "refused"})

_COLOURS = {
    "installed": "green",
    "failed": "bold red",
    "refused": "yellow",
    "fetching": "cyan",
    "verifying": "cyan",
    "installing": "blue",
}


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far each device is with each of some deployments, and when it was done.

    ``sizes`` are the bytes of each target: a device is halfway when it has half of all bytes.
    ``ended_s`` maps a device's name to the seconds from the order to the end of its last deployment.
    """

    devices: tuple[Node | Newcomer, ...]
    deployments: tuple[str, ...]
    sizes: Mapping[str, int]
    states: dict[str, list[wire.DeviceDeployment]] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)
    halfway: dict[str, list[wire.DeviceDeployment]] = field(default_factory=dict)
    """The states when about half of the content had arrived."""

    def take(self, details: Sequence[wire.DeploymentDetail], elapsed_s: float) -> None:
        """Take in what the server says *elapsed_s* after the order."""
        self.states = {node.name: [] for node in self.devices}
        for detail in details:
            for device in detail.devices:
                self.states.setdefault(device.name, []).append(device)
        if abs(self._done(self.states) - 0.5) < abs(self._done(self.halfway) - 0.5):
            self.halfway = self.states
        for name, states in self.states.items():
            if len(states) == len(self.deployments) and all(s.stage in ENDED for s in states):
                self.ended_s.setdefault(name, elapsed_s)

    @property
    def finished(self) -> bool:
        """Whether every device has ended with every deployment."""
        return len(self.ended_s) >= len(self.devices)

    def installed(self) -> list[str]:
        """The names of the devices that have installed everything."""
        return [
            name
            for name, states in self.states.items()
            if len(states) == len(self.deployments) and all(s.stage == "installed" for s in states)
        ]

    def summary(self) -> str:
        """One line for a log."""
        states = [s for listed in self.states.values() for s in listed]
        count = {stage: sum(s.stage == stage for s in states) for stage in {s.stage for s in states}}
        return f"{self._done(self.states):4.0%} fetched; " + ", ".join(
            f"{n} {stage}" for stage, n in sorted(count.items())
        )

    def share(self, states: Sequence[wire.DeviceDeployment]) -> float:
        """How much of all the bytes in *states* is there, from 0 to 1."""
        total = sum(self.sizes.get(state.target, 1) for state in states)
        done = sum(
            self.sizes.get(s.target, 1) * (1.0 if s.stage == "installed" else s.fraction) for s in states
        )
        return done / max(1, total)

    def _done(self, states: Mapping[str, Sequence[wire.DeviceDeployment]]) -> float:
        return self.share([state for listed in states.values() for state in listed])


async def watch(
    api: Api, progress: Progress, console: Console, *, title: str, started: float, patience_s: float
) -> None:
    """Show *progress* until every device has ended with every deployment.

    Args:
        started: When the deployments were ordered, on trio's clock.

    Raises:
        DemoError: they have not after *patience_s*.
    """
    with trio.move_on_after(patience_s):
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                while not progress.finished:
                    await _look(api, progress, started)
                    table = draw(progress, progress.states, title, console.height - 4)
                    live.update(table, refresh=True)
                    if not progress.finished:
                        await trio.sleep(_POLL_S)
        else:
            said = started
            while not progress.finished:
                await _look(api, progress, started)
                if progress.finished or trio.current_time() - said >= _LINES_S:
                    said = trio.current_time()
                    console.print(f"  {said - started:5.1f} s  {progress.summary()}", highlight=False)
                await trio.sleep(0 if progress.finished else _POLL_S)
        return
    late = [node.name for node in progress.devices if node.name not in progress.ended_s]
    reasons = {s.reason for name in late for s in progress.states.get(name, []) if s.reason}
    raise DemoError(
        f"{title}: {len(late)} devices have not ended after {patience_s:.0f} s: {', '.join(late[:10])}"
        + "".join(f"\n  {reason}" for reason in sorted(reasons)[:5])
    )


def draw(
    progress: Progress, states: Mapping[str, Sequence[wire.DeviceDeployment]], title: str, rows: int
) -> Table:
    """Draw the table; where it does not fit into *rows*, one line stands for each site."""
    devices = progress.devices
    table = Table(title=title, title_justify="left", title_style="bold", expand=False, pad_edge=False)
    table.add_column("device")
    table.add_column("state")
    table.add_column("done", justify="right")
    table.add_column("", width=20)
    table.add_column("rate", justify="right", min_width=9)
    table.add_column("sources")
    if len(devices) <= max(rows, 6):
        for node in devices:
            table.add_row(*_row(progress, _placed(node.name, node), states.get(node.name, [])))
    else:
        for site in sorted({node.site for node in devices}):
            nodes = [node for node in devices if node.site == site]
            together = [state for node in nodes for state in states.get(node.name, [])]
            label = _placed(f"site {site}: {len(nodes)} devices", nodes[0])
            table.add_row(*_row(progress, label, together))
    return table


def _placed(label: str, node: Node | Newcomer) -> str:
    """Name a node with what stands between its site and the admin server."""
    return f"{label} [dim]{node.kind}[/]" if node.kind else label


def size(count: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


async def _look(api: Api, progress: Progress, started: float) -> None:
    details = [await api.get(f"/deployments/{d}", wire.DeploymentDetail) for d in progress.deployments]
    progress.take(details, trio.current_time() - started)


def _row(
    progress: Progress, label: str, states: Sequence[wire.DeviceDeployment]
) -> tuple[str, str, str, str, str, str]:
    if not states:
        return label, "[dim]not heard of[/]", "", "", "", ""
    fraction = progress.share(states)
    rate = sum(s.rate_bytes_per_s for s in states)
    received: dict[str, int] = {}
    for state in states:
        for role, count in state.received.items():
            received[role] = received.get(role, 0) + count
    filled = round(fraction * 20)
    return (
        label,
        _stages(states),
        f"{fraction:.0%}",
        f"[green]{'━' * filled}[/][dim]{'━' * (20 - filled)}[/]",
        f"{size(rate)}/s" if rate else "",
        ", ".join(f"{source_word(role)} {size(n)}" for role, n in sorted(received.items()) if n),
    )


def _stages(states: Sequence[wire.DeviceDeployment]) -> str:
    stages = [s.stage for s in states]
    current = next((stage for stage in stages if stage not in ENDED), None)
    worst = next((stage for stage in ("failed", "refused") if stage in stages), None)
    shown = current or worst or stages[0]
    counted = f" [dim]{sum(s in ENDED for s in stages)} of {len(stages)} done[/]" if len(stages) > 1 else ""
    return f"[{_COLOURS.get(shown, 'dim')}]{shown}[/]{counted}"
