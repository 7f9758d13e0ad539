"""Polls of networks that the admin server does not see, each by the distribution point that stands there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import msgspec
from laboratory.machines import announcing
from laboratory.namespaces import PATH
from rich.console import Console
from rich.table import Table

from demo_fleet.fleet import Fleet
from demo_fleet.plan import Node
from demo_fleet.runs import run_tasks
from p2pdist.wire import api as wire

_RANGE = "192.168.1.0/24"
"""What every network behind a NAT has in the laboratory, as in life."""
_METHODS = ("echo", "neighbours", "mdns")
_POLL_S = 120.0


class SitePoll(msgspec.Struct, frozen=True, kw_only=True):
    """What a poll of one site's network found.

    Attributes:
        asked: How many addresses were asked.
        found: How many devices there are, by the inventory.
        managed: Those of them that are enrolled.
        unmanaged: What the others call themselves, or else their addresses.
        seconds: How long the point took.
    """

    site: int
    network: str
    point: str
    state: str
    asked: int
    found: int
    managed: list[str]
    unmanaged: list[str]
    seconds: float


async def announce(fleet: Fleet, nodes: Sequence[Node]) -> None:
    """Let machines tell their names to their segments by Avahi, as desktops do, where that is installed."""
    if shutil.which("avahi-daemon", path=PATH) is None or not fleet.plan.newcomers:
        return
    for node in nodes:
        name, words = f"{node.name}-avahi", announcing(node.name)
        running = await fleet.programs.start(name, node.machine, "/usr/bin/env", *words)
        running.expected_to_end = True  # the fleet does without


async def poll_sites(fleet: Fleet, points: Sequence[Node], console: Console) -> list[SitePoll]:
    """Let *points* poll their networks, all at once, and return what the inventory has of each.

    Raises:
        DemoError: it could not be done.
    """
    methods = [word for method in _METHODS for word in ("--method", method)]
    via = [word for point in points for word in ("--via", point.name)]
    (run,) = await run_tasks(fleet, console, ("discover", _RANGE, *methods, *via), patience_s=_POLL_S)
    states = {node.name: node for node in run.nodes}
    return [await _look(fleet, point, states[point.name]) for point in points]


async def inventory_of(fleet: Fleet, point: Node) -> list[wire.FoundInfo]:
    """Return the devices that the inventory has of a point's network, but the point itself."""
    network = fleet.node_ids[point.name]
    found = await fleet.api.get("/inventory", wire.FoundList, network=network)
    return [device for device in found.devices if device.node != network]


def draw_polls(polls: Sequence[SitePoll]) -> Table:
    """Draw the table for people."""
    table = Table(
        title="What stands in the networks that the admin server does not see", title_justify="left",
        title_style="bold",
    )  # fmt: skip
    for heading in ("site", "network", "polled by", "asked", "found", "managed", "not managed yet"):
        table.add_column(heading, justify="right" if heading in ("asked", "found") else "left")
    for poll in polls:
        table.add_row(
            str(poll.site), poll.network, poll.point, str(poll.asked), str(poll.found),
            _listed(poll.managed), _listed(poll.unmanaged),
        )  # fmt: skip
    return table


async def _look(fleet: Fleet, point: Node, said: wire.TaskRunNode) -> SitePoll:
    devices = await inventory_of(fleet, point)
    names = {device.id: device.name.removesuffix(".local") for device in devices}
    return SitePoll(
        site=point.site,
        network=point.kind,
        point=point.name,
        state=said.state,
        asked=said.figures.get("asked", 0),
        found=len(devices),
        managed=sorted(names[d.id] for d in devices if d.state != "unmanaged"),
        unmanaged=sorted(names[d.id] for d in devices if d.state == "unmanaged"),
        seconds=round(said.seconds, 3),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
