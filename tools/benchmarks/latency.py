"""From an operator's publish to installed on every device: a small update in the demonstration's fleet.

A real fleet on loopback addresses: admin server, a distribution point in each site, agents, every program as
its users run it. Each round signs a new release of 100 KB, and only then starts the clock: from the start of
`p2pdist publish DIR --deploy GROUP`, as an operator types it, until each device has logged that the release
is installed. What the programs said to each other meanwhile is counted in every one of them.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import trio
from benchmark import machine, option_parser, save, say, working_directory
from demo_fleet.fleet import Fleet, open_fleet
from demo_fleet.loopback import open_loopback
from demo_fleet.payload import Package, make_baits, make_policies
from demo_fleet.plan import CHANNEL, DEVICES_GROUP, DemoError, Plan, make_plan
from demo_fleet.programs import Programs, open_programs
from gateway import describe, spread
from rich.console import Console

PRODUCT = "news"
_COUNTED = Path(__file__).with_name("counted")
_LOOK_S = 0.05
_AFTER_S = 3.0  # for what is said after the last installation: reports, announcements
_COUNTS_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One update: seconds since the command line began."""

    installed: Mapping[str, float]
    command_s: float
    decoded: Mapping[str, Counter[str]]
    """What the programs of each role decoded, by type."""


def main() -> None:
    """Run what the command line asks for."""
    options = parse()
    with working_directory(options) as directory:
        rounds = _measured(options, directory)
    result = summary(options, rounds)
    path = save(options, result, f"latency-{options.sites}x{options.devices}")
    say(options, f"saved as {path}")
    if options.json:
        print(json.dumps(result))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = option_parser(
        "latency",
        __doc__,
        {
            "--sites": (3, "sites, each with a distribution point"),
            "--devices": (8, "devices at each site"),
            "--rounds": (5, "updates, one after the other"),
            "--bytes": (100_000, "the update's size"),
            "--patience": (120.0, "give up on a step after this many seconds"),
        },
    )
    options = parser.parse_args()
    if min(options.sites, options.devices, options.rounds, options.bytes) < 1:
        parser.error("at least one of everything")
    return options


def _measured(options: argparse.Namespace, directory: Path) -> list[Round]:
    rounds: list[Round] = []
    try:
        with open_loopback(sites=options.sites, devices=options.devices) as network:
            rounds = trio.run(run, options, make_plan(directory, network))
    except* DemoError as group:
        raise SystemExit("; ".join(str(error) for error in group.exceptions)) from None
    except* KeyboardInterrupt:
        raise SystemExit(130) from None
    return rounds


async def run(options: argparse.Namespace, plan: Plan) -> list[Round]:
    """Build the fleet, update it so many times, and return what was measured."""
    payload = plan.directory / "payload"
    payload.mkdir()
    older, newer = make_policies(payload)
    console = Console(quiet=True)
    async with (
        open_programs(plan.logs, plan.network.operator, plan.directory / "home", lambda _: None) as programs,
        open_fleet(
            plan,
            programs,
            console,
            uplink_mbit=0,
            patience_s=options.patience,
            packages=[],
            baits=make_baits(payload),
            policies=(older, newer),
        ) as fleet,
    ):
        counts = plan.directory / "counts"
        counts.mkdir()
        programs.environment |= {"PYTHONPATH": str(_COUNTED), "P2PDIST_BENCH_COUNTS": str(counts)}
        say(options, f"a fleet of {options.sites} x {options.devices} devices ...")
        await fleet.hold_ceremony()
        await fleet.found_server()
        await fleet.enrol(plan.points)
        await fleet.sign_releases()
        await fleet.start(plan.points)
        await fleet.enrol(plan.devices)
        await fleet.start(plan.devices)
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append(await update(options, fleet, number, counts))
            say(options, f"update {number}: {describe(list(rounds[-1].installed.values()))}")
        return rounds


async def update(options: argparse.Namespace, fleet: Fleet, number: int, counts: Path) -> Round:
    """Sign a release, then publish and deploy it, and wait until every device has it."""
    package = _package(fleet.plan.directory / "payload", number, options.bytes)
    await fleet.add_releases([package], people=1)  # a channel's keys sign alone
    before = await _counts(fleet.programs, counts)
    begun, behind = time.monotonic(), time.time() - time.monotonic()
    await fleet.programs.run("p2pdist", "publish", fleet.publication, "--deploy", DEVICES_GROUP)
    published = time.monotonic()
    installed: dict[str, float] = {}
    with trio.move_on_after(options.patience):
        while len(installed) < len(fleet.plan.devices):
            await trio.sleep(_LOOK_S)
            for node in fleet.plan.devices:
                if node.name not in installed:
                    log = fleet.programs.running[node.name].new_log()
                    for when in _installed(log, package.version):
                        installed[node.name] = when - behind - begun
    if missing := [node.name for node in fleet.plan.devices if node.name not in installed]:
        raise DemoError(f"not updated after {options.patience:g} s: {', '.join(missing)}")
    await trio.sleep(_AFTER_S)
    after = await _counts(fleet.programs, counts)
    return Round(
        installed=installed,
        command_s=published - begun,
        decoded={role: after[role] - before[role] for role in after},
    )


def summary(options: argparse.Namespace, rounds: Sequence[Round]) -> dict[str, Any]:
    """Return what is printed: all rounds together, and what each was made of."""
    everything = spread([seconds for each in rounds for seconds in each.installed.values()])
    return (
        {"devices": options.sites * options.devices, "sites": options.sites, "rounds": len(rounds)}
        | {"bytes": options.bytes}
        | {f"seconds_{name}": value for name, value in everything.items()}
        | {
            "each_round": [
                spread(list(each.installed.values())) | {"command_s": round(each.command_s, 3)}
                for each in rounds
            ],
            "decoded_per_update": {
                role: {
                    kind: round(sum(each.decoded[role][kind] for each in rounds) / len(rounds), 1)
                    for kind in sorted({kind for each in rounds for kind in each.decoded[role]})
                }
                for role in rounds[0].decoded
            },
            "machine": machine(),
        }
    )


def _package(directory: Path, number: int, size: int) -> Package:
    path = directory / f"{PRODUCT}-{number}"
    path.write_bytes(secrets.token_bytes(size))
    return Package(
        product=PRODUCT,
        version=str(number),
        sequence=number,
        kind="file",
        source=path,
        install_path=f"/opt/{PRODUCT}",
    )


def _installed(log: str, version: str) -> Iterator[float]:
    """Yield when a node has logged that it has installed the update: Unix seconds."""
    for line in log.splitlines():
        if '"release.installed"' in line:
            values = json.loads(line)
            if values["target"].startswith(f"{CHANNEL}/{PRODUCT}/{version}/"):
                yield datetime.fromisoformat(values["timestamp"]).timestamp()


async def _counts(programs: Programs, directory: Path) -> dict[str, Counter[str]]:
    """Have every program write what it has decoded so far; return it by role."""
    found: dict[str, Counter[str]] = {"server": Counter(), "points": Counter(), "devices": Counter()}
    asked = time.time()
    running = {
        name: each for name, each in programs.running.items() if name == "server" or name.startswith("site")
    }
    for each in running.values():
        each.process.send_signal(signal.SIGUSR1)
    for name, each in running.items():
        path = directory / f"{each.process.pid}.json"
        with trio.fail_after(_COUNTS_S):
            while not path.exists() or path.stat().st_mtime < asked - 0.01:
                await trio.sleep(_LOOK_S)
        role = "server" if name == "server" else "points" if name.endswith("point") else "devices"
        found[role] += Counter(json.loads(path.read_text()))
    return found


if __name__ == "__main__":
    main()
