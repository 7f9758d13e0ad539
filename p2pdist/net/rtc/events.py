"""What a path tells trio, and what it is told. No asyncio, aioice or aiortc type crosses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from p2pdist.net.rtc.description import Description
from p2pdist.net.rtc.report import Phase, TriedCandidate, TriedPair


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished:
    """A phase took so long; with the last one, the data channel is open."""

    phase: Phase
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Our side is known and can be described to the other."""

    description: Description


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """ICE has found a pair that works. *local* is what the other side sees of us on it."""

    local: TriedCandidate
    remote: TriedCandidate
    tried: Sequence[TriedCandidate]
    """Every address of the other side, with those that nobody had named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """ICE has ended, or was ended: what became of the pairs."""

    pairs: Sequence[TriedPair]


@dataclass(frozen=True, slots=True)
class Received:
    """A message came."""

    message: bytes


Event: TypeAlias = PhaseFinished | Gathered | Checked | Connected | Received


@dataclass(frozen=True, slots=True)
class Connect:
    """Call the other side now."""

    remote: Description


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """Let what was sent arrive, and end."""


Order: TypeAlias = Connect | Send | Finish
