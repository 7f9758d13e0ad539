"""How each device is connected: its control link, a session with it, and where its content came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from rich.table import Table

from demo_fleet.fleet import Fleet, each
from demo_fleet.plan import DemoError, Node
from demo_fleet.watch import size
from p2pdist.cli.words import source_word
from p2pdist.wire import api as wire

T = TypeVar("T")

_PINGS = 3
_SESSIONS_AT_ONCE = 4


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A session of the operator with a device, as ``p2pdist path`` and ``p2pdist ping`` have found it.

    Attributes:
        path: ``direct``, ``punched`` or ``relayed``.
        reason: Why it is this one.
        opened_ms: Until the session stood, relayed.
        moved_s: From then until it was on this path; None if it stayed.
        round_trip_ms: The shortest round trip on this path.
    """

    path: str
    reason: str
    opened_ms: float
    moved_s: float | None
    round_trip_ms: float


class DevicePath(msgspec.Struct, frozen=True, kw_only=True):
    """How one device is connected.

    Attributes:
        network: What stands between its site and the admin server; empty on loopback.
        control: The chain of its control link: the device, each gateway, the admin server.
        session: None where none was opened.
        content: Bytes that it received, by kind of source.
    """

    device: str
    network: str
    control: list[str]
    session: Session | None
    content: dict[str, int]


async def look_at_paths(
    fleet: Fleet, deployments: Sequence[str], problems: list[str], *, sessions: bool
) -> list[DevicePath]:
    """Ask the admin server how each device is connected, and open a session with each if that is wanted.

    Args:
        fleet: Whose devices.
        deployments: Whose content counts.
        problems: Gets a line for each device that cannot be reached.
        sessions: Whether to open them.
    """
    found: dict[str, Session] = {}

    async def visit(node: Node) -> None:
        try:
            found[node.name] = await _open_session(fleet, node)
        except DemoError as error:
            problems.append(str(error))

    if sessions:
        await each(fleet.plan.devices, visit, at_once=_SESSIONS_AT_ONCE)
    chains = control_chains((await fleet.api.get("/devices", wire.DeviceList)).devices)
    details = [await fleet.api.get(f"/deployments/{number}", wire.DeploymentDetail) for number in deployments]
    return [
        DevicePath(
            device=node.name,
            network=node.kind,
            control=chains.get(node.name, [node.name]),
            session=found.get(node.name),
            content=_content(details, node.name),
        )
        for node in fleet.plan.devices
    ]


def control_chains(devices: Sequence[wire.DeviceInfo]) -> dict[str, list[str]]:
    """Return the chain of each device that is online, by name: itself, its gateways, the admin server."""
    by_node = {device.node: device for device in devices if device.state == "online"}
    chains = {}
    for device in by_node.values():
        chain = [device]
        while (above := by_node.get(chain[-1].via)) is not None and above not in chain:
            chain.append(above)
        chains[device.name] = [*(each.name for each in chain), "server"]
    return chains


def draw_paths(paths: Sequence[DevicePath]) -> Table:
    """Draw the table for people."""
    table = Table(title="How each device is connected", title_justify="left", title_style="bold")
    for heading in ("device", "network", "control link", "session", "content"):
        table.add_column(heading)
    for path in paths:
        session = path.session
        told = f"{session.path}, {session.round_trip_ms:.1f} ms" if session is not None else ""
        content = ", ".join(f"{name} {size(count)}" for name, count in sorted(path.content.items()))
        table.add_row(path.device, path.network, " → ".join(path.control[1:]), told, content)
    return table


async def _open_session(fleet: Fleet, node: Node) -> Session:
    found = await _ask(fleet, _PathAnswer, "path", node.name, "--no-nat")
    measured = await _ask(fleet, _PingAnswer, "ping", node.name, "--count", str(_PINGS))
    took = zip(measured.round_trips_ms, measured.paths, strict=True)
    return Session(
        path=found.path,
        reason=found.reason,
        opened_ms=found.opened_ms,
        moved_s=found.seconds,
        round_trip_ms=min(ms for ms, path in took if path == measured.paths[-1]),
    )


async def _ask(fleet: Fleet, answer: type[T], *words: str) -> T:
    printed = await fleet.programs.run("p2pdist", *words, "--output", "json", patience_s=60)
    try:
        return msgspec.json.decode(printed, type=answer)
    except msgspec.DecodeError as error:
        raise DemoError(f"p2pdist {' '.join(words)} printed {printed!r} ({error})") from error


class _PathAnswer(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    reason: str
    opened_ms: float
    seconds: float | None


class _PingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    round_trips_ms: list[float]
    paths: list[str]


def _content(details: Sequence[wire.DeploymentDetail], device: str) -> dict[str, int]:
    received: Counter[str] = Counter()
    for detail in details:
        for state in detail.devices:
            if state.name == device:
                received.update({source_word(role): count for role, count in state.received.items() if count})
    return dict(received)
