"""The crowds of a benchmark, as their owner sees them: identities for every device, and orders to all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from speakers import Setting, text_of

from p2pdist.ids import GroupPath, NodeId, SwarmName
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey

_CRATE = 500  # identities made in one go


@dataclass(frozen=True)
class Identity:
    """What one device is."""

    seed: bytes
    node: NodeId
    public: bytes
    certificate_pem: bytes


def make_identities(
    authority: Path, count: int, *, group: GroupPath, swarms: Sequence[SwarmName], life_s: int
) -> list[Identity]:
    """Make keys and certificates of a fleet, as its admin server would.

    Args:
        authority: The directory of the fleet's authority.
    """
    crates = [min(_CRATE, count - first) for first in range(0, count, _CRATE)]
    with ProcessPoolExecutor() as pool:
        made = pool.map(_make_crate, [(authority, each, group, tuple(swarms), life_s) for each in crates])
        return [identity for crate in made for identity in crate]


def _make_crate(asked: tuple[Path, int, GroupPath, tuple[SwarmName, ...], int]) -> list[Identity]:
    directory, count, group, swarms, life_s = asked
    authority, now = FleetAuthority.load(directory), datetime.now(UTC)
    made = []
    for _ in range(count):
        key = IdentityKey.generate()
        pem = authority.issue(key.public, group=group, swarms=swarms, life_s=life_s, now=now)
        made.append(
            Identity(seed=bytes(key.for_boxes()), node=key.node, public=key.public, certificate_pem=pem)
        )
    return made


class Crowds:
    """Several processes with devices. Made by :func:`open_crowds`."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.processes = tuple(processes)

    def ask(self, order: str, /, **words: Any) -> list[dict[str, Any]]:
        """Give an order to all, and return all answers."""
        for process in self.processes:
            _tell(process, {"do": order, **words})
        return [_hear(process) for process in self.processes]

    def attach(self, at_once: int) -> tuple[float, dict[str, int]]:
        """Connect every device; return when the last was ready, and what went wrong on the way."""
        return _summed(self.ask("attach", at_once=max(1, at_once // len(self.processes))))

    def again(self, count: int, within_s: float) -> tuple[float, dict[str, int], int]:
        """Cut so many devices' connections and connect all of them at once.

        Returns:
            What attach does, and how many are not back within that time.
        """
        answers = self.ask("again", count=count // len(self.processes), within_s=within_s)
        return *_summed(answers), sum(answer["left"] for answer in answers)

    def heard(self, what: str, within_s: float) -> tuple[list[float], int]:
        """Return when each device heard it first, in order, and how many have not within that time."""
        answers = self.ask("heard", what=what, within_s=within_s)
        times = sorted(at for answer in answers for at in answer["at"])
        return times, sum(answer["missing"] for answer in answers)

    def round_trips(self, every_s: float) -> list[float]:
        """Return what was measured so far, in order, and measure on with this pause; 0 ends it."""
        answers = self.ask("pings", every_s=every_s)
        return sorted(each for answer in answers for each in answer["round_trips_s"])

    def cpu_s(self) -> float:
        """Return the CPU seconds that all have used."""
        return sum((float(answer["cpu_s"]) for answer in self.ask("usage")), 0.0)


@contextmanager
def open_crowds(
    identities: Sequence[Identity],
    *,
    processes: int,
    speaker: str,
    setting: Setting,
    ca_pem: bytes,
    address: tuple[str, int],
    hosts: str,
) -> Iterator[Crowds]:
    """Start processes that hold the devices; they end with the block.

    Args:
        identities: The devices.
        processes: Among how many processes they are divided.
        speaker: What they say; see :data:`speakers.SPEAKERS`.
        setting: What they know.
        ca_pem: Whom they believe.
        address: Where they connect to.
        hosts: The first two parts of their own addresses, such as ``127.41``.
    """
    started: list[subprocess.Popen[bytes]] = []
    share = -(-len(identities) // processes)
    try:
        for first in range(0, len(identities), share):
            part = identities[first : first + share]
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("crowd.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            started.append(process)
            order: Mapping[str, Any] = {
                "host": address[0],
                "port": address[1],
                "hosts": hosts,
                "first": first,
                "speaker": speaker,
                "setting": msgspec.to_builtins(setting),
                "ca_pem": text_of(ca_pem),
                "devices": [(text_of(each.seed), text_of(each.certificate_pem)) for each in part],
            }
            _tell(process, order)
        for process in started:
            _hear(process)
        yield Crowds(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _summed(answers: Sequence[Mapping[str, Any]]) -> tuple[float, dict[str, int]]:
    failures: dict[str, int] = {}
    for answer in answers:
        for reason, count in answer["failures"].items():
            failures[reason] = failures.get(reason, 0) + count
    return max(answer["at"] for answer in answers), failures


def _tell(process: subprocess.Popen[bytes], order: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()


def _hear(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a process with devices has ended; what it said stands above")
    answer: dict[str, Any] = json.loads(line)
    return answer
