"""The four attacks. Each is tried for real; what is shown is what the devices themselves reported."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import trio
from rich.console import Console

from demo_fleet.fleet import Fleet, each
from demo_fleet.network import Site
from demo_fleet.outcome import Outcome, Refused, counted
from demo_fleet.plan import CHANNEL, FLEET, SWARM_PORT, DemoError, Node, site_group
from demo_fleet.stranger import Visit
from demo_fleet.usurper import SEQUENCE as FORGED_SEQUENCE
from demo_fleet.usurper import VERSION as FORGED_VERSION
from demo_fleet.watch import Progress, watch
from p2pdist.ids import ChannelName, FleetName, swarm_of
from p2pdist.wire import api as wire

ALTERED = "altered package"
WRONG_KEY = "wrong key"
OLDER = "older release"
STRANGER = "stranger"

_POLL_S = 0.5
_BLOCK_BYTES = 16_384
_STRANGERS_AT_ONCE = 4
_STRANGER = Path(__file__).with_name("stranger.py")


class _Tried(NamedTuple):
    """An attack that is over."""

    kind: str
    """Of the refusals that it must have led to."""
    subject: str
    """What each device must have refused; "" where refusals of that kind have no other."""
    problems: list[str]


async def run_attacks(fleet: Fleet, outcome: Outcome, console: Console, *, patience_s: float) -> None:
    """Try all four, one after the other, and note who refused what, or who did not."""
    attacks: Sequence[tuple[str, str, Callable[[Fleet, Console, float], Awaitable[_Tried]]]] = (
        (ALTERED, "bytes of a published package are changed on disk, at a point and at the server", _alter),
        (
            WRONG_KEY,
            "the admin server is taken over, and a release is signed with a key of the attacker",
            _usurp,
        ),
        (OLDER, "a release with a known hole is offered again, correctly signed, after a newer one", _age),
        (STRANGER, "a BitTorrent client with a certificate of its own authority dials every node", _intrude),
    )
    for number, (name, what, attack) in enumerate(attacks, 1):
        console.print(f"\n[bold]Attack {number}: {name}.[/] {what[0].upper()}{what[1:]}.", highlight=False)
        outcome.attacks.append(name)
        before = await _last_number(fleet)
        try:
            tried = await attack(fleet, console, patience_s)
            outcome.problems += [f"{name}: {problem}" for problem in tried.problems]
            await _collect(fleet, outcome, name, tried, before, patience_s)
        except DemoError as error:
            outcome.problems.append(f"{name}: {error}")
        count = outcome.resisted(name)
        colour = "green" if count == outcome.devices else "bold red"
        devices = counted(outcome.devices, "device")
        console.print(f"  [{colour}]refused by {count} of {devices}[/]", highlight=False)
        for reason in outcome.reasons(name):
            console.print(f"  [dim]“{reason}”[/]", highlight=False, markup=True)


async def _alter(fleet: Fleet, console: Console, patience_s: float) -> _Tried:
    at_server, at_point = map(fleet.release, fleet.baits)
    problems = await _alter_at_point(fleet, at_point.target, console, patience_s)
    content = fleet.plan.server / "artifacts" / at_server.info_hash
    _flip(content)
    console.print(f"  changed 4096 bytes of {content}", highlight=False)
    deployment = await fleet.deploy(at_server.target)
    await _wait_refusals(fleet, "content", at_server.target, fleet.plan.devices, patience_s)
    await fleet.api.stop(deployment)
    problems += await _not_installed(fleet, at_server.target, deployment)
    return _Tried("content", at_server.target, problems)


async def _alter_at_point(fleet: Fleet, target: str, console: Console, patience_s: float) -> list[str]:
    """Alter what one point holds for its site: its devices find out by themselves."""
    point = fleet.plan.points[0]
    devices = [device for device in fleet.plan.devices if device.site == point.site]
    content = await fleet.stock(point, target)
    _flip(content)
    console.print(f"  changed 4096 bytes of {content}", highlight=False)
    deployment = await fleet.deploy(target, site_group(point.site))
    missing = await _wait_refusals(fleet, "content", target, devices, patience_s)
    await fleet.api.stop(deployment)
    resisted = f"{len(devices) - len(missing)} of {counted(len(devices), 'device')}"
    reasons = dict.fromkeys(fleet.named(each.reason) for each in await _refusals(fleet, "content", target))
    console.print(f"  refused by {resisted} of site {point.site}", highlight=False)
    for reason in list(reasons)[:2]:
        console.print(f"  [dim]“{reason}”[/]", highlight=False)
    problems = [f"{name} has not reported that it refused what {point.name} holds" for name in missing]
    problems += await _not_installed(fleet, target, deployment)
    console.print(f"  the agents of site {point.site} shun {point.name} now, until they are started again")
    await fleet.restart(devices)
    return problems


async def _usurp(fleet: Fleet, console: Console, patience_s: float) -> _Tried:
    before = await _last_number(fleet)
    await fleet.restart_server(usurped=True)
    console.print(
        f"  a tampered server runs with all of the server's keys, and offers {FORGED_VERSION}",
        highlight=False,
    )
    try:
        offered = await fleet.api.get("/releases", wire.ReleaseList)
        (forged,) = [r.target for r in offered.releases if r.version == FORGED_VERSION]
        order = await fleet.deploy(forged)
        with trio.move_on_after(patience_s):
            while not await _refusers(fleet, "metadata", "", before) >= {n.name for n in fleet.plan.devices}:
                await trio.sleep(_POLL_S)
        await fleet.api.stop(order)
    finally:
        await fleet.restart_server(usurped=False)
    console.print("  the real server is back", highlight=False)
    installed = [
        f"{device.name} has installed a forged release"
        for device in (await fleet.api.get("/devices", wire.DeviceList)).devices
        if FORGED_SEQUENCE in device.installed.values()
    ]
    installed += await _not_installed(fleet, forged, order)
    return _Tried("metadata", "", installed)


async def _age(fleet: Fleet, console: Console, patience_s: float) -> _Tried:
    newer, older = fleet.release(fleet.policy_new), fleet.release(fleet.policy_old)
    started = trio.current_time()
    first = await fleet.deploy(newer.target)
    progress = Progress(devices=fleet.plan.devices, deployments=(first,), sizes={})
    await watch(
        fleet.api, progress, console, title=f"first the newer one, {newer.target}", started=started,
        patience_s=patience_s,
    )  # fmt: skip
    if len(progress.installed()) != len(fleet.plan.devices):
        raise DemoError("the newer release was not installed everywhere")
    second = await fleet.deploy(older.target)
    console.print(f"  now the older one is ordered: {older.target}", highlight=False)
    await _wait_refusals(fleet, "rollback", older.target, fleet.plan.devices, patience_s)
    problems = await _not_installed(fleet, older.target, second)
    await fleet.api.stop(second)
    wrong = [
        f"{node.name} went back to {older.version}"
        for node in fleet.plan.devices
        if (node.root / fleet.policy_new.install_path.lstrip("/")).read_text()
        != fleet.policy_new.source.read_text()
    ]
    return _Tried("rollback", older.target, problems + wrong)


async def _intrude(fleet: Fleet, console: Console, patience_s: float) -> _Tried:
    problems: list[str] = []
    received = 0

    async def intrude(site: Site) -> None:
        nonlocal received
        targets = {node.host: fleet.swarm_port(node) for node in fleet.plan.nodes if node.site == site.number}
        if site.number == 1:
            targets[fleet.plan.server_host] = SWARM_PORT
        visit = await _visit(fleet, site, targets, min(30.0, patience_s))
        received += visit.received_bytes
        problems.extend(
            f"{host} did not end the connection of the stranger at site {site.number}"
            for host in sorted(targets.keys() - visit.turned_away)
        )

    release = fleet.release(fleet.packages[0])
    sites = fleet.plan.network.sites
    console.print(
        f"  at each site it knows the torrent of {release.target}, and dials the nodes there", highlight=False
    )
    await each(sites, intrude, at_once=_STRANGERS_AT_ONCE)
    if received:
        problems.insert(0, f"the stranger received {received} bytes")
    console.print(f"  it received {received} bytes", highlight=False)
    return _Tried("stranger", "", problems)


async def _visit(fleet: Fleet, site: Site, targets: Mapping[str, int], patience_s: float) -> Visit:
    release = fleet.release(fleet.packages[0])
    printed = await fleet.programs.run(
        "python", "-P", _STRANGER, site.stranger.host, swarm_of(ChannelName(CHANNEL), FleetName(FLEET)),
        fleet.plan.server / "torrents" / f"{release.info_hash}.torrent", fleet.plan.server / "ca.pem",
        str(patience_s), *(f"{host}:{port}" for host, port in targets.items()), at=site.stranger,
    )  # fmt: skip
    return msgspec.json.decode(printed, type=Visit)


def _flip(path: Path) -> None:
    """Change some bytes in the middle of one block."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // _BLOCK_BYTES * _BLOCK_BYTES)
        data = file.read(4096)
        file.seek(-len(data), os.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in data))


async def _last_number(fleet: Fleet) -> int:
    found = (await fleet.api.get("/refusals", wire.RefusalList)).refusals
    return max((refusal.number for refusal in found), default=0)


async def _refusals(fleet: Fleet, kind: str, subject: str, after: int = 0) -> list[wire.RefusalInfo]:
    found = await fleet.api.get("/refusals", wire.RefusalList, after=str(after), limit="1000")
    return [each for each in found.refusals if each.kind == kind and subject in each.subject]


async def _refusers(fleet: Fleet, kind: str, subject: str, after: int = 0) -> set[str]:
    return {refusal.name for refusal in await _refusals(fleet, kind, subject, after)}


async def _wait_refusals(
    fleet: Fleet, kind: str, subject: str, nodes: Sequence[Node], patience_s: float
) -> list[str]:
    """Wait until each of *nodes* has refused *subject*, or nobody more does; return who has not."""
    missing = {node.name for node in nodes}
    with trio.move_on_after(min(60.0, patience_s)):
        while missing := missing - await _refusers(fleet, kind, subject):
            await trio.sleep(_POLL_S)
    return sorted(missing)


async def _collect(
    fleet: Fleet, outcome: Outcome, attack: str, tried: _Tried, after: int, patience_s: float
) -> None:
    """Note who has refused what since number *after*; devices that did not are problems."""
    devices = {node.name for node in fleet.plan.devices}
    with trio.move_on_after(min(45.0, patience_s)):
        while not await _refusers(fleet, tried.kind, tried.subject, after) >= devices:
            await trio.sleep(_POLL_S)
    seen: set[str] = set()
    found = await _refusals(fleet, tried.kind, tried.subject, after)
    for refusal in sorted(found, key=lambda r: r.number):
        if refusal.name in seen:
            continue
        seen.add(refusal.name)
        refused = Refused(
            attack=attack, device=refusal.name or "admin server", reason=fleet.named(refusal.reason)
        )
        (outcome.refused if refusal.name in devices else outcome.refused_elsewhere).append(refused)
    for name in sorted(devices - seen):
        outcome.problems.append(f"{attack}: {name} has not reported that it refused")


async def _not_installed(fleet: Fleet, target: str, deployment: str) -> list[str]:
    detail = await fleet.api.get(f"/deployments/{deployment}", wire.DeploymentDetail)
    return [f"{device.name} installed {target}" for device in detail.devices if device.stage == "installed"]
