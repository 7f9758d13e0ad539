"""A package to every device of several sites over slow links: p2pdist beside what people use today.

    http        every device downloads from nginx at the origin
    cache       an nginx at each site caches for its devices
    bittorrent  aria2 on every device, with a tracker, local discovery and a web seed
    p2pdist     the origin, a distribution point per site, and the devices

All of them run in the same network namespaces with the same shaped links, one after the other. The bound
is the time that no system can beat whose sites have each one entrance (see docs/benchmarks.md).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark import machine, option_parser, save, say, working_directory
from network import Network, Rates, WanBytes
from processes import FinishTimes, Processes
from running import Run, named_devices
from systems import SYSTEMS

MIB = 1024 * 1024


def main() -> None:
    """Run what the command line asks for."""
    options = parse()
    for tool in ("ip", "tc", "nginx", "aria2c", "curl"):
        if not shutil.which(tool):
            raise SystemExit(f"{tool} is missing; run tools/bench wan as root once, or install it")
    if os.geteuid():
        raise SystemExit("network namespaces take root: run sudo tools/bench wan")
    result = nothing_yet(options)
    try:
        with working_directory(options, scratch(options)) as directory:
            measure(options, directory, result)
    finally:
        if result["systems"]:
            report(result, options)
    if result["failed"]:
        raise SystemExit(1)


def scratch(options: argparse.Namespace) -> Path | None:
    """Choose memory for the copies where it is large enough: all hosts share this machine's one disk."""
    memory = Path("/dev/shm")
    needed = int((options.devices + 2) * options.sites * options.size * MIB * 1.3)
    if memory.is_dir() and shutil.disk_usage(memory).free > needed + 1024 * MIB:
        return memory
    return None


def parse() -> argparse.Namespace:
    """Read the command line."""
    numbers: dict[str, tuple[float, str]] = {
        "--sites": (3, "sites"),
        "--devices": (8, "devices in each site, besides its distribution point or cache"),
        "--origin-up": (20.0, "the origin's uplink, Mbit/s"),
        "--site-down": (20.0, "each site's downlink, Mbit/s"),
        "--site-up": (10.0, "each site's uplink, Mbit/s"),
        "--lan": (200.0, "each host's link within a site, Mbit/s"),
        "--size": (100.0, "the package, MiB"),
        "--settle": (
            75.0,
            "seconds of rest after the deployment, before an idle agent's memory and CPU are read",
        ),
    }
    parser = option_parser("wan", __doc__, numbers, SYSTEMS)
    parser.add_argument("--verbose", action="store_true", help="show what the processes write to stderr")
    options = parser.parse_args()
    if options.settle <= 0:
        parser.error("--settle takes more than 0 seconds")
    if not (1 <= options.sites <= 100 and 1 <= options.devices <= 200):
        parser.error("1 to 100 sites of 1 to 200 devices")
    return options


def nothing_yet(options: argparse.Namespace) -> dict[str, Any]:
    """Return a result without a system: what is asked for, the bound and the machine."""
    asked = ("sites", "devices", "origin_up", "site_down", "site_up", "lan", "size")
    return {
        "bound_seconds": bound_seconds(options.size, options.sites, rates_of(options)),
        "parameters": {key: getattr(options, key) for key in asked},
        "machine": machine(),
        "systems": {},
        "failed": {},
    }


def rates_of(options: argparse.Namespace) -> Rates:
    """Return the rates of the links that are asked for."""
    return Rates(options.origin_up, options.site_down, options.site_up, options.lan)


def measure(options: argparse.Namespace, directory: Path, result: dict[str, Any]) -> None:
    """Run the systems, and note of each what was measured, or why it was not."""
    package = directory / "origin" / "package"
    package.parent.mkdir()
    data = random.Random(1).randbytes(int(options.size * MIB))
    package.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    del data
    bound = result["bound_seconds"]
    say(
        options,
        f"bound: {bound:.1f} s for {options.size:g} MiB to {options.sites} x {options.devices} devices",
    )
    for name in options.only or SYSTEMS:
        say(options, f"{name} ...")
        try:
            system = measure_system(
                name, options, rates_of(options), directory / name, package, digest, bound
            )
        except SystemExit as error:
            if isinstance(error.code, int):  # somebody ended it
                raise
            result["failed"][name] = str(error)
            say(options, f"  failed: {error}")
            continue
        result["systems"][name] = system
        for line in describe(system):
            say(options, f"  {line}")


def measure_system(
    name: str,
    options: argparse.Namespace,
    rates: Rates,
    directory: Path,
    package: Path,
    digest: str,
    bound: float,
) -> dict[str, Any]:
    """Run one system in a network of its own."""
    directory.mkdir()
    length = package.stat().st_size
    log = sys.stderr if options.verbose else (directory / "log").open("w")
    begun: list[tuple[float, WanBytes]] = []
    ended: list[WanBytes] = []
    with Network(options.sites, options.devices, rates) as network:
        finished = FinishTimes([device for device, _ in named_devices(network)])
        with Processes(log) as processes:
            run = Run(
                network=network,
                package=package,
                directory=directory,
                processes=processes,
                finished=finished,
                go=lambda: begun.append((time.monotonic(), network.wan_bytes())),
                counted=lambda: ended.append(network.wan_bytes()),
                seconds=lambda at: round(at - begun[0][0], 2),
                settle_s=options.settle,
                deadline_s=600 + 20 * options.sites * options.devices * options.size * 8 / rates.origin_up,
            )
            SYSTEMS[name](run)
            if not ended:
                run.counted()
            wan = ended[0].since(begun[0][1])
        for device, _ in named_devices(network):
            if hashlib.sha256(run.output(device).read_bytes()).hexdigest() != digest:
                raise SystemExit(f"{name}: {device} has something else than the package")
    if not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    seconds = sorted(at - begun[0][0] for at in finished.times.values() if at)
    return {
        "seconds_first": round(seconds[0], 2),
        "seconds_last": round(seconds[-1], 2),
        "ratio": round(seconds[-1] / bound, 3),
        "origin_copies": round(wan.origin_out / length, 3),
        "site_in_copies": [round(count / length, 3) for count in wan.site_in],
        "site_out_copies": [round(count / length, 3) for count in wan.site_out],
        "seconds": [round(each, 2) for each in seconds],
        "roles": processes.usage(),
        **run.notes,
    }


def bound_seconds(size_mib: float, sites: int, rates: Rates) -> float:
    """Return the fluid bound: the package through the slowest of origin, site, and all uplinks together."""
    mbit = size_mib * MIB * 8 / 1e6
    together = rates.origin_up + sites * rates.site_up
    return max(mbit / rates.origin_up, mbit / rates.site_down, sites * mbit / together)


def describe(system: dict[str, Any]) -> Iterator[str]:
    """Say in lines how a system did."""
    yield (
        f"first {system['seconds_first']:.1f} s, last {system['seconds_last']:.1f} s = "
        f"{system['ratio']:.2f} x bound; origin sent {system['origin_copies']:.2f} copies; sites took in "
        f"{', '.join(f'{each:.2f}' for each in system['site_in_copies'])} and sent "
        f"{', '.join(f'{each:.2f}' for each in system['site_out_copies'])}"
    )
    yield "; ".join(
        f"{use['processes']} x {role}: {use['cpu_seconds'] / use['processes']:.1f} s of CPU and at most "
        f"{use['rss_mib_max']:.0f} MiB each"
        for role, use in system["roles"].items()
    )
    for when in ("before", "after"):
        idle = system.get(f"agent_idle_{when}")
        if idle:
            yield (
                f"an idle agent {when} the deployment: {idle['rss_mb_median']:.1f} MB resident (at most "
                f"{idle['rss_mb_max']:.1f}), {idle['cpu_percent_median']:.1f} % of a core"
            )
    if "seconds_last_installed" in system:
        yield f"last device installed it after {system['seconds_last_installed']:.1f} s"


def report(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the JSON and the plot, and print what was asked for."""
    path = save(options, result, f"wan-{options.sites}x{options.devices}-{options.size:g}MiB")
    plot(result, path.with_suffix(".png"))
    say(options, f"saved as {path} and .png")
    if options.json:
        print(json.dumps(result))


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw how many devices had finished when, with the bound."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, style in zip(result["systems"], ("-", "--", ":", "-"), strict=False):
        seconds = result["systems"][name]["seconds"]
        label = f"{name}: {seconds[-1]:.0f} s"
        axes.step([0, *seconds], range(len(seconds) + 1), style, where="post", label=label, linewidth=2.2)
    axes.axvline(
        result["bound_seconds"],
        linestyle="--",
        color="black",
        label=f"bound: {result['bound_seconds']:.0f} s",
    )
    asked = result["parameters"]
    axes.set_title(f"{asked['size']:g} MiB to {asked['sites']} sites with {asked['devices']} devices each")
    axes.set_xscale("log")
    axes.set_xlabel("seconds, logarithmic")
    for labels in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        labels(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
    axes.tick_params(axis="x", which="minor", labelsize=7)
    axes.set_ylabel("devices that have the package")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
