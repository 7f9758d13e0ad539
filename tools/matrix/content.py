"""An artifact that the device at *left* holds and the one at *right* wants: how it gets there, how fast."""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from laboratory.network import Host

from matrix.fleet import Fleet
from matrix.grounds import Stand
from matrix.pairs import NEIGHBOUR, Found, Pair, Path
from matrix.programs import MatrixError, Programs

ARTIFACT_BYTES = 4_000_000
"""Takes 3.2 s on the line of a place: longer than a punched connection may take to stand."""

_CONTENT_PACKETS = 16
"""Full packets from one address after which it is content that comes: a handshake has four at most."""

_FIRST, _FIRST_BYTES = "first", 100_000
_PATIENCE_S = 60.0
_STOCKING_S = 600.0
_STOCK = "/lab/to-come"
"""A group without devices: what is ordered onto it is fetched by the gateway alone."""


class Shelf:
    """The artifacts of a matrix: one for each pair, one for each device alone, and a small one for all.

    Everybody fetches the small one first: what a device does once, such as asking for its certificate for the
    swarm, is not to be measured with its first pair.
    """

    def __init__(self, fleet: Fleet, pairs: Collection[Pair]) -> None:
        self._fleet = fleet
        self.pairs = {pair: f"pair-{number}" for number, pair in enumerate(pairs, 1)}
        compared = {pair.nodes[1] for pair in pairs if not self.is_by_gateway(pair)}
        self._alone = {name: f"alone-{name}" for name in sorted(compared)}
        self._alone_s: dict[str, float] = {}

    def is_by_gateway(self, pair: Pair) -> bool:
        """Whether the holder is the wanting device's own gateway."""
        holder, wanting = pair.nodes
        return self._fleet.nodes[wanting].carrier == holder

    def make(self, directory: FilePath) -> dict[str, FilePath]:
        """Write the artifacts, random bytes each; return them by product."""
        directory.mkdir()
        made = {}
        sizes = dict.fromkeys([*self.pairs.values(), *self._alone.values()], ARTIFACT_BYTES)
        for number, (product, size) in enumerate({**sizes, _FIRST: _FIRST_BYTES}.items()):
            made[product] = directory / product
            made[product].write_bytes(random.Random(number).randbytes(size))
        return made

    def fill(self) -> None:
        """Let everybody fetch the small artifact, and then the holders what is theirs."""
        fleet = self._fleet
        fleet.deploy(_FIRST, "/")
        self._wait([(name, _FIRST) for name in fleet.nodes])
        fleet.console.post("/groups", path=_STOCK)
        for product in self._alone.values():
            fleet.deploy(product, _STOCK)
        for pair, product in self.pairs.items():
            fleet.deploy(product, fleet.nodes[pair.nodes[0]].group)

        holders = [("gateway", product) for product in self._alone.values()]
        holders += [(pair.nodes[0], product) for pair, product in self.pairs.items()]
        self._wait(holders)

    def _wait(self, holders: Iterable[tuple[str, str]]) -> None:
        for name, product in holders:
            what = f"{product} at {name}"
            self._fleet.programs.until(
                partial(_completed, self._fleet, name, product), what, patience_s=_STOCKING_S
            )

    def alone_s(self, name: str) -> float:
        """Measure once how long a device takes to fetch as much from the gateway, who alone has it.

        Raises:
            MatrixError: it does not come.
        """
        if name not in self._alone_s:
            begun, ended = _fetched(self._fleet, name, self._alone[name])
            self._alone_s[name] = ended - begun
        return self._alone_s[name]


def content(fleet: Fleet, shelf: Shelf, pair: Pair) -> Found:
    """Let one device fetch what the other one holds, beside the gateway.

    It begins when the device says that it fetches: it is about to tell its gateway, which then knows both.
    Which path it gets is seen on the wire: from where full packets come, more than a handshake has. That
    pieces came from the holder must be the device's own word, too.

    Raises:
        MatrixError: it does not come, or nobody says from where.
    """
    holder, wanting = pair.nodes
    product = shelf.pairs[pair]
    alone_s = None if shelf.is_by_gateway(pair) else shelf.alone_s(wanting)
    stand = fleet.grounds.stands[holder]
    direct = {*stand.outside, *stand.host.ipv6, *(stand.host.ipv4 if _sees(pair, stand) else ())}
    relayed = {*fleet.grounds.gateway.ipv4, *fleet.grounds.gateway.ipv6, *fleet.grounds.server.ipv4} - direct
    with _watching(fleet.programs, fleet.nodes[wanting].host, direct | relayed) as came:
        begun, ended = _fetched(fleet, wanting, product)
    after = {address: [at - begun for at in each if at >= begun] for address, each in came.items()}
    first = {
        address: seconds[_CONTENT_PACKETS - 1]
        for address, seconds in after.items()
        if len(seconds) >= _CONTENT_PACKETS
    }
    found = Found(path="relayed", seconds=None, whole_s=ended - begun, alone_s=alone_s)
    if shelf.is_by_gateway(pair) and any(fleet.logs[wanting].events("content.detour")):
        return replace(found, seconds=min(first.values(), default=None))  # inside of the link
    path = _said(fleet, wanting, product, fleet.ids[holder])
    if path is not None and direct & first.keys():
        return replace(found, path=path, seconds=min(first[address] for address in direct & first.keys()))
    return replace(found, seconds=min(first.values(), default=None))


def _sees(pair: Pair, holder: Stand) -> bool:
    """Whether the holder may be seen at its own IPv4 address: behind a NAT only in its own place."""
    return pair.right == NEIGHBOUR or not holder.outside


@contextmanager
def _watching(programs: Programs, host: Host, addresses: Collection[str]) -> Iterator[dict[str, list[float]]]:
    """Watch from where content comes to a host while the block runs; afterwards the mapping says it."""
    command = ("python", "-S", "-m", "matrix.watch", "eth0", *addresses)
    came: dict[str, list[float]] = {}
    with programs.speaking(host, *command) as (watch, said):
        said.readline()
        try:
            yield came
        finally:
            watch.close()
            came |= json.loads(said.readline())


def _fetched(fleet: Fleet, name: str, product: str) -> tuple[float, float]:
    """Order an artifact onto a device; return when it began and when it had all."""
    log = fleet.logs[name]
    mark = log.mark()
    fleet.deploy(product, fleet.nodes[name].group)
    what = f"{product} at {name}"
    fleet.programs.until(lambda: bool(_completed(fleet, name, product, mark)), what, patience_s=_PATIENCE_S)
    begun = [at for at, values in log.events("artifact.fetching", mark) if f"/{product}/" in values["target"]]
    if not begun:
        raise MatrixError(f"{name} has {product} without having said that it fetches it")
    return begun[0], _completed(fleet, name, product, mark)[0]


def _completed(fleet: Fleet, name: str, product: str, mark: int = 0) -> list[float]:
    """Return when a node has said that it has all of an artifact, if it has."""
    events = fleet.logs[name].events("artifact.complete", mark)
    return [at for at, values in events if values["info_hash"] == fleet.info_hashes[product]]


def _said(fleet: Fleet, name: str, product: str, source: str) -> Path | None:
    """Return what a device says of its path to a source, once it has told of all that it received.

    None if it received nothing from there.
    """
    told: dict[str, dict[str, Any]] = {}

    def all_told() -> bool:
        explained = fleet.explain(name, product)
        told.update({each["node"]: each for each in explained["sources"]})
        return bool(explained["held"] >= ARTIFACT_BYTES)

    fleet.programs.until(all_told, f"what {name} received", patience_s=_PATIENCE_S, every_s=0.5)
    if not told.get(source, {}).get("received"):
        return None
    return "punched" if told[source]["path"] == "punched" else "direct"
