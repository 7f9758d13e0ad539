"""What distribution points do besides seeding, where networks are that the admin server does not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import trio
from laboratory.machines import why_no_machines
from rich.console import Console

from demo_fleet.agentfile import build_agent
from demo_fleet.fleet import Fleet
from demo_fleet.newcomers import Newcomers, deploy_agents
from demo_fleet.outcome import MirrorFacts, Outcome, counted
from demo_fleet.payload import Package, make_vendors
from demo_fleet.plan import DEVICES_GROUP, DemoError, Newcomer, Node, Plan
from demo_fleet.polls import draw_polls, poll_sites
from demo_fleet.runs import run_tasks
from demo_fleet.steps import step
from demo_fleet.vendor import Vendor, set_up_vendor, why_no_vendor
from demo_fleet.watch import Progress, size, watch
from p2pdist.wire import api as wire

_FETCH_S = 120.0
_REST_S = 120.0
"""How long the machines may take to get what their group has, and to rest then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the distribution points are to work with.

    Attributes:
        agent: The agent as one file, for the machines that have none; None where there are none.
        update: What a vendor offers; None where there is no vendor.
        missing: Why something is left out, a sentence each.
    """

    agent: Package | None
    update: Package | None
    vendor: Vendor | None
    missing: list[str]

    @property
    def packages(self) -> list[Package]:
        """Everything that is to be signed."""
        return [package for package in (self.agent, self.update) if package is not None]


async def make_means(plan: Plan, console: Console, payload: Path) -> Means:
    """Build the agent and set up the vendor's mirror, as far as this machine can.

    Raises:
        DemoError: the agent cannot be built.
    """
    if plan.network.vendor is None:
        return Means(agent=None, update=None, vendor=None, missing=[])
    missing = []
    agent = vendor = update = None
    if plan.newcomers:
        step(console, "The agent as one file", "for machines without Python; kept until its source changes")
        agent = await build_agent(payload, console)
    else:
        missing.append(f"no machine was deployed to over SSH: {why_no_machines()}")
    if reason := why_no_vendor():
        missing.append(f"no vendor's mirror: {reason}")
    else:
        update = await trio.to_thread.run_sync(make_vendors, payload)
        place = plan.directory / "vendor"
        vendor = await trio.to_thread.run_sync(set_up_vendor, place, plan.network.vendor, [update.source])
        update = replace(update, mirror=vendor.url(update.source))
    return Means(agent=agent, update=update, vendor=vendor, missing=missing)


async def fulfil_duties(
    fleet: Fleet, newcomers: Newcomers, means: Means, outcome: Outcome, console: Console
) -> None:
    """Poll, install agents, get an update from the vendor, wake who rests for it; note what came of it."""
    hidden = [site.number for site in fleet.plan.network.sites if site.hidden]
    if not hidden:
        return
    with _noting(outcome.problems):
        await _poll(fleet, hidden, outcome, console)
    if newcomers.arrivals:
        with _noting(outcome.problems):
            await _deploy_agents(fleet, newcomers, outcome, console)
    if means.vendor is not None and means.update is not None:
        with _noting(outcome.problems):
            await _update(fleet, newcomers, means.vendor, means.update, outcome, console)
    outcome.arrivals = list(newcomers.arrivals.values())
    outcome.left_out = list(means.missing)
    if newcomers.missing:
        outcome.left_out.append(f"no machine was deployed to over SSH: {newcomers.missing}")


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    """Note what makes one duty fail; the others are shown all the same."""
    try:
        yield
    except DemoError as error:
        problems.append(str(error))


async def _poll(fleet: Fleet, hidden: Sequence[int], outcome: Outcome, console: Console) -> None:
    step(console, "Discovery", "the points poll the networks that the admin server does not see")
    points = [point for point in fleet.plan.points if point.site in hidden]
    outcome.discovered = await poll_sites(fleet, points, console)
    console.print(draw_polls(outcome.discovered))
    for poll in outcome.discovered:
        if poll.state != "done":
            outcome.problems.append(f"the poll of site {poll.site} is {poll.state}")


async def _update(
    fleet: Fleet, newcomers: Newcomers, vendor: Vendor, update: Package, outcome: Outcome, console: Console
) -> None:
    """Let the points get an update from the vendor's mirror, and order it onto the whole fleet."""
    release = fleet.release(update)
    if newcomers.managed:
        step(console, "Rest", "the new devices have what their group has: they keep no link, and listen")
        await newcomers.wait_resting(fleet, _REST_S)
        console.print(f"  {counted(len(newcomers.managed), 'device')} at rest", highlight=False)
    step(
        console, "A vendor's mirror", f"{release.target}, {size(release.length)}, is not at the admin server"
    )
    status = await fleet.api.get("/status", wire.Status)
    await vendor.open(fleet.programs)
    words = ("fetch", release.target, "--points", DEVICES_GROUP)
    (run,) = await run_tasks(fleet, console, words, patience_s=_FETCH_S)
    outcome.problems += [
        f"{node.name} has not fetched {release.target}: {node.state}, {node.reason}"
        for node in run.nodes
        if node.state != "done"
    ]
    if newcomers.managed:
        step(console, "Wakes", "the update is ordered, and the points wake who rests, by UDP")
        await newcomers.wait_resting(fleet, _REST_S)
    before = await newcomers.ways(fleet)
    started = trio.current_time()
    order = await fleet.deploy(release.target)
    devices: tuple[Node | Newcomer, ...] = (*fleet.plan.devices, *newcomers.managed)
    sizes = {release.target: release.length}
    progress = Progress(devices=devices, deployments=(order,), sizes=sizes)
    with _noting(outcome.problems):
        await watch(
            fleet.api, progress, console, title="Update", started=started, patience_s=fleet.patience_s
        )
    installed = set(progress.installed())
    await newcomers.note_wakes(fleet, before, installed)
    after = await fleet.api.get("/status", wire.Status)
    sent = vendor.sent()
    outcome.mirror = MirrorFacts(
        target=release.target,
        bytes=release.length,
        mirror_sent=sum(sent.values()),
        readers=len(sent),
        points=sum(node.state == "done" for node in run.nodes),
        origin_sent=after.origin_sent_bytes - status.origin_sent_bytes,
        installed=len(installed),
        devices=len(devices),
    )
    if outcome.mirror.origin_sent:
        outcome.problems.append(
            f"the admin server sent {size(outcome.mirror.origin_sent)} of {release.target}"
        )
    late = sorted(device.name for device in devices if device.name not in installed)
    outcome.problems += [f"{name} has not installed {release.target}" for name in late]


async def _deploy_agents(fleet: Fleet, newcomers: Newcomers, outcome: Outcome, console: Console) -> None:
    step(console, "Initial deployment", f"the agent onto {len(newcomers.arrivals)} machines, over SSH")
    await deploy_agents(fleet, newcomers, outcome.problems, console)
