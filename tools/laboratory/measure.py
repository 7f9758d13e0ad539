"""Finds out what places do, with two programs that know nothing of how they were built."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import msgspec

from laboratory.kinds import SHORT_TIMEOUT_S, Behaviour
from laboratory.network import Host, Laboratory, Place

_TOOLS = Path(__file__).parents[1]
_EXPIRY_S = SHORT_TIMEOUT_S + 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a place was found to do."""

    place: Place
    ipv4: Behaviour
    ipv6: Behaviour | None
    rebinds: bool
    """Whether a socket's outside endpoint was another one after a rebind; false where none was asked for."""

    def differences(self) -> list[str]:
        """Say where the place does something else than its kind claims; nothing if it keeps its word."""
        kind = self.place.kind
        found = [
            *_differences("IPv4", kind.ipv4, self.ipv4),
            *_differences("IPv6", kind.ipv6, self.ipv6),
        ]
        if kind.rebinds and not self.rebinds:
            found.append("claims to rebind, and kept its mapping")
        return found


def measure(laboratory: Laboratory, places: Sequence[Place]) -> list[Measured]:
    """Measure places, all at once; takes about eight seconds, most of it waiting for mappings to expire.

    Each is measured from its first host, against the laboratory's server, whose UDP ports 3478 and 3479 and
    TCP ports 443 and 8443 are used for that long.
    """
    server = laboratory.server
    with responding(server) as control, ThreadPoolExecutor(3 * len(places) or 1) as threads:
        # A rebind would break the other tests of its place, so they come after.
        rebinds = list(threads.map(lambda place: _rebinds(server, control, place), places))
        ipv4 = [threads.submit(_behaviour, place.hosts[0], control, server.ipv4) for place in places]
        ipv6 = [
            threads.submit(_behaviour, place.hosts[0], control, server.ipv6) if place.hosts[0].ipv6 else None
            for place in places
        ]
        return [
            Measured(
                place=place,
                ipv4=by_ipv4.result(),
                ipv6=None if by_ipv6 is None else by_ipv6.result(),
                rebinds=rebound,
            )
            for place, by_ipv4, by_ipv6, rebound in zip(places, ipv4, ipv6, rebinds, strict=True)
        ]


@contextmanager
def responding(server: Host) -> Iterator[Path]:
    """Run the responder on a server; gives its control socket."""
    with tempfile.TemporaryDirectory(prefix="natlab-") as directory:
        control = Path(directory) / "control"
        command = _python("responder", str(control), *server.ipv4, *server.ipv6)
        with subprocess.Popen(server.command(*command), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "ready\n":
                    raise RuntimeError("the responder did not start; its message stands above")
                yield control
            finally:
                process.kill()


def outside_endpoints(server: Host, control: Path, place: Place) -> tuple[object, object]:
    """Return one socket's outside endpoint before and after a rebind of the place."""
    command = _python("probe", "endpoints", str(control), "0", *server.ipv4)
    host = place.hosts[0]
    with subprocess.Popen(
        host.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write("\n")
        before = json.loads(process.stdout.readline())
        place.rebind()
        process.stdin.write("\n")
        process.stdin.flush()
        after = json.loads(process.stdout.readline())
    return before, after


def _rebinds(server: Host, control: Path, place: Place) -> bool:
    if not place.kind.rebinds:
        return False
    before, after = outside_endpoints(server, control, place)
    return None not in (before, after) and before != after


def _behaviour(host: Host, control: Path, addresses: Sequence[str]) -> Behaviour:
    printed = host.run(*_python("probe", "behaviour", str(control), str(_EXPIRY_S), *addresses))
    return msgspec.json.decode(printed, type=Behaviour)


def _python(module: str, *arguments: str) -> list[str]:
    return ["env", f"PYTHONPATH={_TOOLS}", sys.executable, "-S", "-m", f"laboratory.{module}", *arguments]


def _differences(family: str, claimed: Behaviour | None, found: Behaviour | None) -> list[str]:
    if claimed is None or found is None:
        return [] if claimed is found else [f"{family}: claims {claimed}, does {found}"]
    return [
        f"{family} {field.name.replace('_', ' ')}: claims {in_words(claim)}, does {in_words(fact)}"
        for field in fields(Behaviour)
        for claim, fact in [(getattr(claimed, field.name), getattr(found, field.name))]
        if claim != fact
    ]


def in_words(value: object) -> str:
    """Return a value of a Behaviour as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return " ".join(str(port) for port in sorted(value)) or "none"
    return str(value)
