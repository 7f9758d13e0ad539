"""One gateway that carries thousands of devices: what each costs at rest, and how fast news reach all.

The real admin server and one real distribution point with the duty gateway, and light devices that speak the
link's own protocol, each with its own certificate: they announce, beat and ask for signs of life as an agent
does. Measured: the rate at which all of them attach, the gateway's memory for each, then from an operator's
publication until each device has heard of it, and from an order to deploy until each has its sealed state;
and at last many of them come back at once while the others stay. Peers hold as many TLS connections with the
same certificates in the same run.
"""

from __future__ import annotations

import argparse
import json
import resource
import secrets
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark import machine, option_parser, save, say, working_directory
from carried import Carried
from crowds import Crowds
from peers import PEERS, measure_peer

P2PDIST = "p2pdist"


def main() -> None:
    """Run what the command line asks for."""
    options = parse()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.connections + 200 > hard:
        raise SystemExit(f"a process may open {hard} files here: --connections {hard - 200} at most")
    with working_directory(options) as directory:
        result = measure(options, directory)
    path = save(options, result, f"gateway-{options.connections}")
    for line in table(result):
        say(options, line)
    say(options, f"saved as {path}")
    if options.json:
        print(json.dumps(result))


def parse() -> argparse.Namespace:
    """Read the command line."""
    numbers: dict[str, tuple[float, str]] = {
        "--connections": (15_000, "devices behind the gateway"),
        "--at-once": (64, "devices that connect at the same time"),
        "--processes": (2, "processes that hold the devices"),
        "--rounds": (5, "publications"),
        "--returning": (1_000, "devices that come back at once at the end, half of all at most"),
        "--settle": (65.0, "seconds of rest before memory is read"),
    }
    parser = option_parser("gateway", __doc__, numbers, (P2PDIST, *PEERS))
    options = parser.parse_args()
    if options.connections < 2 or min(options.at_once, options.processes, options.rounds) < 1:
        parser.error("at least two connections, and one of everything else")
    return options


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """Run everything, and return what was measured."""
    wanted = options.only or (P2PDIST, *PEERS)
    result: dict[str, Any] = {"connections": options.connections}
    network = f"127.{64 + secrets.randbelow(180)}"
    with Carried(directory, network, options.connections) as carried:
        say(options, f"a fleet with {options.connections} devices ...")
        carried.prepare()
        say(options, "enrolled")
        if P2PDIST in wanted:
            result |= measure_gateway(options, carried)
    peers = {}
    for name in wanted:
        if name != P2PDIST:
            say(options, f"{name} ...")
            peers[name] = measure_peer(name, options, carried)
    return result | {"peers": peers, "machine": machine()}


def measure_gateway(options: argparse.Namespace, carried: Carried) -> dict[str, Any]:
    """Attach every device to the real gateway, and measure."""
    result: dict[str, Any] = {}
    with carried.crowds(options.processes) as crowds:
        say(options, "attaching ...")
        time.sleep(min(2.0, options.settle))
        before, cpu, begun = carried.memory(), carried.cpu_s(), time.monotonic()
        attached_at, result["attach_failures"] = crowds.attach(options.at_once)
        result["handshakes_per_second"] = round(options.connections / (attached_at - begun), 1)
        result["attach_cpu_ms"] = carried.cpu_ms_each(cpu)
        say(options, f"attached at {result['handshakes_per_second']} a second; at rest ...")
        time.sleep(options.settle)
        memory = carried.memory().per(options.connections, before)
        result["bytes_per_connection"] = memory["rss"]
        result["memory_per_connection"] = memory
        say(options, f"rested: {memory}")
        result["idle_cpu_percent"] = carried.idle_cpu_percent(min(20.0, options.settle))
        rounds = [measure_publication(options, carried, crowds, follow=False) for _ in range(options.rounds)]
        result |= summary("fanout", [each["seconds"] for each in rounds])
        result["fanout_cpu_ms"] = {
            role: statistics.median(each["cpu_ms"][role] for each in rounds) for role in rounds[0]["cpu_ms"]
        }
        followed = measure_publication(options, carried, crowds, follow=True)
        result |= summary("followed_fanout", [followed["seconds"]])
        result |= summary("metadata", [followed["metadata"]])
        cpu = carried.cpu_s()
        result |= summary("envelope", [measure_order(options, carried, crowds)])
        result["envelope_cpu_ms"] = carried.cpu_ms_each(cpu)
        result |= measure_return(options, carried, crowds)
        result["memory_after"] = carried.memory().per(options.connections, before)
    return result


def measure_publication(
    options: argparse.Namespace, carried: Carried, crowds: Crowds, *, follow: bool
) -> dict[str, Any]:
    """Publish, and return after how many seconds each device has heard of it.

    Args:
        follow: Whether all of them fetch it then, and how long that takes is measured too.
    """
    publish = carried.prepare_publication()
    crowds.ask("listen", follow=follow)
    cpu, begun = carried.cpu_s(), time.monotonic()
    publish()
    heard, missing = crowds.heard("notification", 60.0)
    seconds = [at - begun for at in heard]
    taken: dict[str, object] = {"seconds": seconds, "missing": missing}
    if follow:
        fetched, _ = crowds.heard("metadata", 120.0)
        taken["metadata"] = [at - begun for at in fetched]
    taken["cpu_ms"] = carried.cpu_ms_each(cpu)
    if missing:
        raise SystemExit(f"{missing} devices did not hear of a publication within a minute")
    say(options, f"notified: {describe(seconds)}")
    time.sleep(2.0)
    return taken


def measure_order(options: argparse.Namespace, carried: Carried, crowds: Crowds) -> Sequence[float]:
    """Order a release onto every device, and return after how many seconds each has its sealed state."""
    crowds.ask("listen", follow=True)
    begun = time.monotonic()
    carried.deploy()
    heard, missing = crowds.heard("envelope", 300.0)
    if missing:
        raise SystemExit(f"{missing} devices got no envelope within five minutes")
    seconds = [at - begun for at in heard]
    say(options, f"enveloped: {describe(seconds)}")
    time.sleep(2.0)
    return seconds


def measure_return(options: argparse.Namespace, carried: Carried, crowds: Crowds) -> dict[str, Any]:
    """Have many devices come back at once, and measure the round trips of some that stayed."""
    crowds.round_trips(0.05)
    time.sleep(min(5.0, options.settle))
    quiet = crowds.round_trips(0.05)
    cpu, begun = carried.cpu_s(), time.monotonic()
    count = min(options.returning, options.connections // 2)
    ended, failures, left = crowds.again(count, 120.0)
    spent = carried.cpu_ms_each(cpu, count)
    busy = crowds.round_trips(0)
    say(options, f"{count} came back: {ended - begun:.1f} s, {left} not; failures on the way: {failures}")
    return {
        "returned": count,
        "return_missing": left,
        "return_seconds": round(ended - begun, 2),
        "return_failures": failures,
        "return_cpu_ms": spent,
        "round_trip_ms_quiet": spread(quiet, 1000),
        "round_trip_ms_return": spread(busy, 1000),
    }


# Words and numbers ---------------------------------------------------------------------------------


def summary(name: str, rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return percentiles of all rounds together, and of each."""
    together = spread([each for seconds in rounds for each in seconds])
    return {f"{name}_seconds_{key}": value for key, value in together.items()} | {
        f"{name}_rounds": [spread(seconds) for seconds in rounds]
    }


def spread(values: Sequence[float], scale: float = 1.0) -> dict[str, float]:
    """Return median, 99th percentile and maximum."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "p50": round(scale * ordered[len(ordered) // 2], 3),
        "p99": round(scale * ordered[len(ordered) * 99 // 100], 3),
        "max": round(scale * ordered[-1], 3),
    }


def describe(values: Sequence[float]) -> str:
    """Say the same in words."""
    return ", ".join(f"{name} {value:.2f} s" for name, value in spread(values).items())


def table(result: dict[str, Any]) -> list[str]:
    """Return the table that people read."""
    head = f"{'':14}{'bytes each':>12}{'kernel':>9}{'attached/s':>12}{'p50 s':>8}{'p99 s':>8}{'max s':>8}"
    lines = [head]
    rows = {P2PDIST: result} if "bytes_per_connection" in result else {}
    for name, row in (rows | result["peers"]).items():
        if "skipped" in row:
            lines.append(f"{name:14}{row['skipped']}")
            continue
        times = [row.get(f"fanout_seconds_{key}") for key in ("p50", "p99", "max")]
        lines.append(
            f"{name:14}{row['bytes_per_connection']:>12}{row['memory_per_connection']['kernel_both_ends']:>9}"
            f"{row['handshakes_per_second']:>12}"
            + "".join(f"{each:>8.2f}" if each is not None else f"{'-':>8}" for each in times)
        )
    for name in ("followed_fanout", "metadata", "envelope"):
        if f"{name}_seconds_p50" in result:
            values = {key: result[f"{name}_seconds_{key}"] for key in ("p50", "p99", "max")}
            lines.append(f"{name}: {', '.join(f'{key} {value:.2f} s' for key, value in values.items())}")
    for name in ("idle_cpu_percent", "attach_cpu_ms", "fanout_cpu_ms", "envelope_cpu_ms",
                 "returned", "return_seconds", "return_missing", "return_failures", "return_cpu_ms",
                 "round_trip_ms_quiet", "round_trip_ms_return", "memory_after"):  # fmt: skip
        if name in result:
            lines.append(f"{name}: {result[name]}")
    return lines


if __name__ == "__main__":
    main()
