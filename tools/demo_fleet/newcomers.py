"""Machines without an agent: they get it over SSH, rest, and are woken for an update."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio
from laboratory.machines import BareMachine
from laboratory.namespaces import LaboratoryError
from rich.console import Console
from rich.table import Table

from demo_fleet.fleet import Fleet, each
from demo_fleet.plan import DemoError, Newcomer, Plan, toml
from demo_fleet.polls import inventory_of
from demo_fleet.runs import run_tasks
from p2pdist.wire import api as wire

_POLL_S = 0.3
_INSTALL_S = 300.0
_WAYS = {"point": "its point", "straight": "the admin server", "magic": "Wake-on-LAN"}
_SETTINGS: dict[str, dict[str, object]] = {
    "resting": {"enabled": True, "after_s": 2.0},
    "log": {"level": "info", "json": True},
}
"""What stands in the agent's configuration on these machines, as from an image that somebody made."""


class Arrival(msgspec.Struct, kw_only=True):
    """What became of one machine.

    Attributes:
        state: ``done`` once the agent is there and has reported; else how far it is.
        seconds: From the order to its first report.
        way: Who woke it for the update: ``point`` by UDP on its own network, or the admin server straight.
        woken_ms: From the first wake until it was there.
        updated: Whether it has installed the update.
    """

    device: str
    network: str
    address: str
    via: str
    state: str = ""
    detail: str = ""
    seconds: float | None = None
    way: str = ""
    woken_ms: int | None = None
    updated: bool = False


class Newcomers:
    """The machines, and what became of each. Made by :func:`open_newcomers`.

    Attributes:
        key: The operator's key for SSH, which the machines let in.
        arrivals: By the machine's name.
        missing: Why there are none, although there were to be some; empty: there are.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.place = plan.directory / "machines"
        self.key = self.place / "ssh-key"
        self.machines: dict[str, BareMachine] = {}
        points = {point.site: point.name for point in plan.points}
        self.arrivals = {
            newcomer.name: Arrival(
                device=newcomer.name,
                network=newcomer.kind,
                address=newcomer.machine.host,
                via=points[newcomer.site],
            )
            for newcomer in plan.newcomers
        }
        self.missing = ""
        self._left = False

    async def start(self) -> None:
        """Start the machines, all at once, and let the operator's key in; or say why there can be none."""
        self.place.mkdir()
        if not self.plan.newcomers:
            return
        words = ("-q", "-t", "ed25519", "-N", "", "-C", "operator", "-f", str(self.key))
        await trio.run_process(["ssh-keygen", *words])

        async def start(newcomer: Newcomer) -> None:
            await trio.to_thread.run_sync(self._start, newcomer)

        try:
            await each(self.plan.newcomers, start, at_once=len(self.plan.newcomers))
        except* LaboratoryError as errors:
            self.missing = str(errors.exceptions[0])
        if self.missing:
            self.end()
            self.arrivals.clear()

    def _start(self, newcomer: Newcomer) -> None:
        def within(*words: str) -> list[str]:
            return [*newcomer.machine.enter, *words]

        machine = BareMachine(
            self.place / newcomer.name,
            newcomer.machine.host,
            within,
            name=newcomer.name,
            user="caretaker",
            password=secrets.token_urlsafe(16),
        )
        self.machines[newcomer.name] = machine
        machine.authorize(self.key.with_suffix(".pub").read_text())
        config = machine.root / "etc/p2pdist/agent.toml"
        config.parent.mkdir(mode=0o755)
        config.write_text(toml(_SETTINGS))

    @property
    def managed(self) -> list[Newcomer]:
        """Those that have the agent now."""
        there = {name for name, arrival in self.arrivals.items() if arrival.state == "done"}
        return [newcomer for newcomer in self.plan.newcomers if newcomer.name in there]

    async def wait_resting(self, fleet: Fleet, patience_s: float) -> None:
        """Wait until the managed ones rest.

        Raises:
            DemoError: one does not in time.
        """
        names = {newcomer.name for newcomer in self.managed}
        with trio.move_on_after(patience_s):
            while awake := names - await _resting(fleet):
                await trio.sleep(_POLL_S)
            return
        raise DemoError(f"not at rest after {patience_s:.0f} s: {', '.join(sorted(awake))}")

    async def ways(self, fleet: Fleet) -> dict[str, dict[str, wire.WayInfo]]:
        """Return how each managed one was woken until now, by name and way."""
        found = {}
        for newcomer in self.managed:
            detail = await fleet.api.get(f"/devices/{newcomer.name}", wire.DeviceDetail)
            found[newcomer.name] = {way.way: way for way in detail.woken}
        return found

    async def note_wakes(
        self, fleet: Fleet, before: Mapping[str, Mapping[str, wire.WayInfo]], updated: Collection[str]
    ) -> None:
        """Note who woke each since *before*, and who has installed the update."""
        for name, ways in (await self.ways(fleet)).items():
            arrival = self.arrivals[name]
            arrival.updated = name in updated
            for way, known in ways.items():
                known_before = before[name].get(way)
                if known.reached > (known_before.reached if known_before else 0):
                    arrival.way, arrival.woken_ms = way, known.delay_ms

    def leave(self) -> None:
        """Let the machines outlive this program, as long as their network does."""
        self._left = True

    def end(self) -> None:
        """End the machines, with everything on them, unless they were left."""
        for machine in () if self._left else self.machines.values():
            machine.end()


@asynccontextmanager
async def open_newcomers(plan: Plan) -> AsyncIterator[Newcomers]:
    """Start the machines; they end with the block, unless they were left."""
    newcomers = Newcomers(plan)
    try:
        await newcomers.start()
        yield newcomers
    finally:
        newcomers.end()


async def deploy_agents(fleet: Fleet, newcomers: Newcomers, problems: list[str], console: Console) -> None:
    """Bring the agent onto the machines, each through the point of its site; the points work at once."""
    commands = []
    arrivals: dict[tuple[str, str], Arrival] = {}
    for point in fleet.plan.points:
        those = [newcomer for newcomer in fleet.plan.newcomers if newcomer.site == point.site]
        if not those:
            continue
        found = await inventory_of(fleet, point)
        names = [_found(found, newcomer) for newcomer in those]
        for name, newcomer in zip(names, those, strict=True):
            arrivals[point.name, name] = newcomers.arrivals[newcomer.name]
        words = ("agent", "install", *names, "--via", point.name, "--group", those[0].group)
        login = ("--key", str(newcomers.key), "--accept-keys", "first-use")
        commands.append((*words, *login))

    def seen(run: wire.TaskRun, elapsed_s: float) -> None:
        for item in run.items:
            arrival = arrivals.get((item.name, item.subject))
            if arrival is None:
                continue
            arrival.state, arrival.detail = item.state, item.detail
            if item.state == "done" and arrival.seconds is None:
                arrival.seconds = round(elapsed_s, 3)

    runs = await run_tasks(fleet, console, *commands, patience_s=_INSTALL_S, seen=seen)
    reasons = {node.name: f"{node.state} {node.reason}" for run in runs for node in run.nodes}
    for arrival in arrivals.values():
        if arrival.state != "done":
            said = arrival.detail or reasons[arrival.via]
            problems.append(f"the agent is not on {arrival.device}: {arrival.state} {said}")


def draw_arrivals(arrivals: Sequence[Arrival]) -> Table:
    """Draw the table for people."""
    table = Table(title="Machines that had no agent", title_justify="left", title_style="bold")
    for heading in ("machine", "network", "through", "agent over SSH", "woken", "update"):
        table.add_column(heading)
    for arrival in arrivals:
        there = arrival.state or "not tried"
        if arrival.seconds is not None:
            there += f", {arrival.seconds:.1f} s"
        woken = f"by {_WAYS.get(arrival.way, arrival.way)}, {arrival.woken_ms} ms" if arrival.way else ""
        update = "installed" if arrival.updated else ""
        table.add_row(arrival.device, arrival.network, arrival.via, there, woken, update)
    return table


def _found(found: Sequence[wire.FoundInfo], newcomer: Newcomer) -> str:
    """Return what a machine is called in the inventory, or else its address."""
    at = newcomer.machine.host
    return next((d.name for d in found if any(each.address == at for each in d.addresses)), at)


async def _resting(fleet: Fleet) -> set[str]:
    listed = await fleet.api.get("/devices", wire.DeviceList)
    return {device.name for device in listed.devices if device.state == "resting"}
