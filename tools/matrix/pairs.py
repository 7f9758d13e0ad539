"""Which pairs there are, what is expected of each, and whether what was found is right. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from laboratory.kinds import KINDS
from laboratory.theory import Traffic, direct_path_possible, neighbours_path_possible, reachable

Path = Literal["direct", "punched", "relayed", "none"]
Expected = Literal["direct", "relayed", "none"]

NEIGHBOUR = "neighbour"
"""The right of a pair whose devices stand in one place, the one of the left's kind."""

ZONE = "dmz"
"""The kind of place in which a gateway stands that may dial nobody."""

DIRECT_S_MAX = 2.0
"""From the moment when both sides are known to a direct path, punched or not."""

RELAYED_S_MAX = {Traffic.SESSION: 1.0, Traffic.CONTENT: 2.0}
"""The same to a relayed one, where there is no direct one."""

SLOWER_MAX, SLOWER_S_MAX = 1.1, 0.5
"""Content is not slower than through the gateway alone, within what two such measurements differ by."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two devices, and what they have for each other.

    ``left`` and ``right`` are kinds of places; ``right`` is :data:`NEIGHBOUR` for two in one place.
    """

    left: str
    right: str
    traffic: Traffic

    def __str__(self) -> str:
        return f"{self.left} and {self.right}, {self.traffic}"

    @property
    def nodes(self) -> tuple[str, str]:
        """The nodes that take part, ``KIND-ROLE``: who opens the session or holds the artifact comes first.

        What stands in a demilitarised zone is dialled by others, and carries those in its scope: there the
        gateway in the zone holds the artifact, and a caller of its scope wants it.
        """
        if self.right == ZONE and self.left != ZONE and self.traffic is Traffic.CONTENT:
            return f"{ZONE}-right", f"{self.left}-caller"
        there = f"{self.left}-beside" if self.right == NEIGHBOUR else f"{self.right}-right"
        return f"{self.left}-left", there

    @property
    def expected(self) -> Expected:
        """What the theory says: ``direct`` is a path without a third party, punched or not."""
        left = KINDS[self.left]
        if self.right == NEIGHBOUR:
            return "direct" if neighbours_path_possible(left) else "relayed"
        right = KINDS[self.right]
        if direct_path_possible(left, right, self.traffic):
            return "direct"
        return "relayed" if reachable(left, right) else "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a pair went.

    ``seconds`` are those to the path, ``relayed_s`` those to the relayed one that a session begins with;
    ``whole_s`` and ``alone_s``, for content, those that all of it took, and that as much takes through the
    gateway alone. ``note`` is what the programs say to it.
    """

    path: Path
    seconds: float | None
    relayed_s: float | None = None
    whole_s: float | None = None
    alone_s: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A pair, and how it went; ``before`` is how it had gone when it had to be run again."""

    pair: Pair
    found: Found
    before: Found | None = None

    @property
    def reached(self) -> Expected:
        """The path in the theory's words, in which a punched one is direct."""
        match self.found.path:
            case "direct" | "punched":
                return "direct"
            case "relayed" | "none" as path:
                return path

    @property
    def is_off(self) -> bool:
        """Whether the path is another one than the theory's."""
        return self.reached != self.pair.expected

    @property
    def objections(self) -> list[str]:
        """Say what is not as it must be; nothing if all is."""
        said = []
        pair, found = self.pair, self.found
        if self.is_off:
            why = f" ({found.note})" if found.note else ""
            said.append(f"{found.path}, expected {pair.expected}{why}")
        elif self.reached != "none":
            most = DIRECT_S_MAX if self.reached == "direct" else RELAYED_S_MAX[pair.traffic]
            if found.seconds is None or found.seconds > most:
                said.append(f"later than {most:g} s")
            elif found.relayed_s is not None and found.relayed_s > RELAYED_S_MAX[pair.traffic]:
                said.append(f"begun after {found.relayed_s:.1f} s")
        if pair.traffic is Traffic.CONTENT and found.alone_s is not None:
            if found.whole_s is None:
                said.append("not whole")
            elif found.whole_s > found.alone_s * SLOWER_MAX + SLOWER_S_MAX:
                said.append(f"{found.whole_s:.1f} s, {found.alone_s:.1f} s through the gateway alone")
        return said

    @property
    def ok(self) -> bool:
        """Whether all is as it must be."""
        return not self.objections


def all_pairs(
    traffics: Collection[Traffic] = tuple(Traffic), only: Collection[tuple[str, str]] = ()
) -> list[Pair]:
    """Return every unordered pair of kinds, also each with itself, and neighbours in each kind of place.

    Args:
        traffics: Only these.
        only: Only these pairs, whoever stands left; all if there are none.
    """
    named = [*itertools.combinations_with_replacement(KINDS, 2), *((kind, NEIGHBOUR) for kind in KINDS)]
    wanted = {frozenset(pair) for pair in only}
    return [
        Pair(left, right, traffic)
        for traffic in Traffic
        if traffic in traffics
        for left, right in named
        if not wanted or frozenset((left, right)) in wanted
    ]
