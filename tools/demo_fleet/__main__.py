"""The program behind tools/demo."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import trio
from rich.console import Console

from demo_fleet.attacks import run_attacks
from demo_fleet.duties import fulfil_duties, make_means
from demo_fleet.fleet import Fleet, open_fleet
from demo_fleet.lab import open_lab
from demo_fleet.loopback import open_loopback
from demo_fleet.network import Network
from demo_fleet.newcomers import open_newcomers
from demo_fleet.options import Options, parse_options
from demo_fleet.outcome import Outcome, PackageFacts, show
from demo_fleet.paths import look_at_paths
from demo_fleet.payload import check_packages, make_baits, make_packages, make_policies
from demo_fleet.picture import save_picture
from demo_fleet.plan import DemoError, Plan, make_plan
from demo_fleet.polls import announce
from demo_fleet.programs import open_programs
from demo_fleet.steps import begin, step
from demo_fleet.watch import Progress, size, watch
from p2pdist.wire import api as wire

_WIDTH = 120
"""Columns of what does not go to a terminal."""

_REPORTS_S = 15.0
"""How long devices' last reports on their sources may take after the installation."""


async def demonstrate(options: Options, plan: Plan, console: Console, outcome: Outcome) -> None:
    """Run the whole demonstration; what comes of it, and what is wrong, is noted in *outcome*."""
    began = begin()

    def say(command: str) -> None:
        console.print(f"  [dim]$ {_typed(command, plan)}[/]", highlight=False, soft_wrap=True)

    await trio.to_thread.run_sync(check_packages, options.packages)
    payload = plan.directory / "payload"
    payload.mkdir()
    step(console, "Software", "taken from what is installed on this machine")
    packages = await trio.to_thread.run_sync(make_packages, payload, options.packages)
    baits = await trio.to_thread.run_sync(make_baits, payload)
    policies = await trio.to_thread.run_sync(make_policies, payload)
    means = await make_means(plan, console, payload)
    async with (
        open_newcomers(plan) as newcomers,
        open_programs(plan.logs, plan.network.operator, plan.directory / "home", say) as programs,
        open_fleet(
            plan,
            programs,
            console,
            uplink_mbit=options.uplink_mbit,
            patience_s=options.patience_s,
            packages=packages,
            baits=baits,
            policies=policies,
            further=means.packages,
            vendor=means.vendor,
        ) as fleet,
    ):
        await _build(fleet, console)
        progress = await _distribute(fleet, outcome, console)
        await _look_at_paths(fleet, progress, outcome, console)
        await run_attacks(fleet, outcome, console, patience_s=options.patience_s)
        await fulfil_duties(fleet, newcomers, means, outcome, console)
        outcome.seconds_total = trio.current_time() - began
        console.print()
        show(outcome, console)
        if options.picture is not None:
            save_picture(options.picture, progress, outcome)
        if options.keep:
            outcome.directory = str(plan.directory)
            newcomers.leave()
            _say_how_to_look_around(fleet, _leave(fleet), console)


async def _build(fleet: Fleet, console: Console) -> None:
    plan = fleet.plan
    step(console, "Ceremony", "three people, two of whom must sign; a channel with keys of its own")
    await fleet.hold_ceremony()
    uplink = f"its uplink limited to {fleet.uplink_mbit} Mbit/s" if fleet.uplink_mbit else "unlimited"
    step(console, "Admin server", f"at {plan.server_host}, {uplink}")
    await fleet.found_server()
    for site in plan.network.sites:
        if site.summary:
            console.print(f"  site {site.number}, {site.kind}: {site.summary}", highlight=False)
    step(console, "Distribution points", "one for each site, with a signed grant for its group")
    await fleet.enrol(plan.points)
    await fleet.sign_releases()
    await fleet.start(plan.points)
    step(console, "Devices", f"{len(plan.devices)} in all, carried by the point of their site")
    await fleet.enrol(plan.devices)
    await fleet.start(plan.devices)
    await announce(fleet, plan.devices)


async def _distribute(fleet: Fleet, outcome: Outcome, console: Console) -> Progress:
    releases = [fleet.release(package) for package in fleet.packages]
    for package, release in zip(fleet.packages, releases, strict=True):
        facts = PackageFacts(target=release.target, kind=package.kind, bytes=release.length)
        outcome.packages.append(facts)
    outcome.package_bytes = sum(release.length for release in releases)
    step(console, "Deployment", f"{size(outcome.package_bytes)} for each device")
    started = trio.current_time()
    ids = [await fleet.deploy(release.target) for release in releases]
    progress = Progress(
        devices=fleet.plan.devices,
        deployments=tuple(ids),
        sizes={release.target: release.length for release in releases},
    )
    try:
        await watch(
            fleet.api,
            progress,
            console,
            title="Deployment",
            started=started,
            patience_s=fleet.patience_s,
        )
    except DemoError as error:
        outcome.problems.append(str(error))
    installed = progress.installed()
    outcome.installed, outcome.failed = len(installed), len(fleet.plan.devices) - len(installed)
    times = [progress.ended_s[name] for name in installed]
    outcome.seconds_first, outcome.seconds_last = min(times, default=None), max(times, default=None)
    outcome.problems += [
        f"{name}: {state.target} {state.stage}: {state.reason}"
        for name, states in progress.states.items()
        for state in states
        if state.stage in ("failed", "refused")
    ]
    await _count(fleet, outcome)
    return progress


async def _look_at_paths(fleet: Fleet, progress: Progress, outcome: Outcome, console: Console) -> None:
    """Note how each device is connected; where all is one machine, sessions would show nothing."""
    networks = [site for site in fleet.plan.network.sites if site.kind]
    if networks:
        step(console, "Paths", "a session of the operator with each device, as with p2pdist path")
    outcome.paths = await look_at_paths(
        fleet, progress.deployments, outcome.problems, sessions=bool(networks)
    )


async def _count(fleet: Fleet, outcome: Outcome) -> None:
    """Ask where the bytes came from, once every node has reported the last of them."""
    expected = {
        "device": outcome.installed * outcome.package_bytes,
        "point": outcome.points * outcome.package_bytes,
    }
    status = await fleet.api.get("/status", wire.Status)
    with trio.move_on_after(_REPORTS_S):
        while any(_received(status, role) < count for role, count in expected.items()):
            await trio.sleep(0.5)
            status = await fleet.api.get("/status", wire.Status)
    outcome.take_status(status)


def _received(status: wire.Status, role: str) -> int:
    return sum(status.received.get(role, {}).values()) + status.unattributed.get(role, 0)


def _typed(command: str, plan: Plan) -> str:
    """A command as a person would type it: without the temporary directory, which is long."""
    return command.replace(str(plan.directory), "…").replace("[", "\\[")


def _say_how_to_look_around(fleet: Fleet, end: Path, console: Console) -> None:
    enter = fleet.plan.network.operator.enter
    program = " ".join([*enter, str(Path(sys.executable).with_name("p2pdist"))])
    device, release = fleet.plan.devices[-1].name, fleet.release(fleet.packages[0]).target
    console.print("\n[bold]The fleet goes on running.[/] Look around with:\n", highlight=False)
    lines = [
        f"export P2PDIST_PROFILE={fleet.programs.environment['P2PDIST_PROFILE']}",
        f"{program} status",
        f"{program} device list",
        f"{program} deployment list",
        f"{program} explain {device} {release}",
        f"{program} refusals",
    ]
    if fleet.plan.network.vendor is not None:
        lines += [f"{program} inventory list", f"{program} task list"]
    for line in lines:
        console.print(f"    {line}", highlight=False, soft_wrap=True)
    console.print(f"\nLogs are in {fleet.plan.logs}. End it, and remove its files, with:\n", highlight=False)
    console.print(f"    {end}", highlight=False, soft_wrap=True)


def _leave(fleet: Fleet) -> Path:
    """Leave the fleet running; return the script that ends it."""
    directory = fleet.plan.directory
    return fleet.programs.leave(directory, fleet.plan.network.outlive(directory))


def _network(options: Options) -> AbstractContextManager[Network]:
    if options.network == "lab":
        return open_lab(devices=options.devices)
    return open_loopback(sites=options.sites, devices=options.devices)


@contextmanager
def _directory(options: Options) -> Iterator[Path]:
    """A temporary directory. It goes away at the end, unless the fleet is left running in it."""
    path = Path(tempfile.mkdtemp(prefix="p2pdist-demo-"))
    keep = False
    try:
        yield path
        keep = options.keep
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)


async def _until_told_to_end(options: Options, plan: Plan, console: Console, outcome: Outcome) -> None:
    """End in order when somebody asks for it, as at a Ctrl-C."""

    async def end_when_asked() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as asked:
            async for _ in asked:
                raise KeyboardInterrupt

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_when_asked)
        await demonstrate(options, plan, console, outcome)
        nursery.cancel_scope.cancel()


def _run(options: Options, outcome: Outcome) -> None:
    console = Console(stderr=options.json)
    if not console.is_terminal:
        console = Console(stderr=options.json, width=_WIDTH)
    with _network(options) as network, _directory(options) as directory:
        plan = make_plan(directory, network)
        outcome.network, outcome.devices = network.name, len(plan.devices)
        trio.run(_until_told_to_end, options, plan, console, outcome)


def main() -> int:
    """Run the demonstration, and return the exit code."""
    options = parse_options(sys.argv[1:])
    outcome = Outcome(
        network=options.network,
        sites=options.sites,
        points=options.sites,
        devices=options.sites * options.devices,
    )
    code = 130
    if not _interrupted(options, outcome):
        code = 0 if outcome.ok else 1
    if options.json:
        print(outcome.encode())
    return code


def _interrupted(options: Options, outcome: Outcome) -> bool:
    """Run it, note and say why it cannot go on, if it cannot; return whether somebody ended it."""
    errors = Console(stderr=True)
    found: list[BaseException] = []
    try:
        _run(options, outcome)
    except (DemoError, KeyboardInterrupt) as error:
        found = [error]
    except BaseExceptionGroup as group:
        ours, others = group.split((DemoError, KeyboardInterrupt))
        if others is not None or ours is None:
            raise
        found = list(_leaves(ours))
    if any(isinstance(error, KeyboardInterrupt) for error in found):
        errors.print("\ninterrupted; everything that was started has been ended")
        outcome.problems.append("interrupted")
        return True
    for text in dict.fromkeys(str(error) for error in found):
        errors.print(f"\n[bold red]tools/demo cannot go on:[/] {text}", highlight=False, markup=True)
        outcome.problems.append(text)
    return False


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


if __name__ == "__main__":
    sys.exit(main())
