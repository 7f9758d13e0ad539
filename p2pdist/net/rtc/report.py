"""What was tried to connect two nodes directly, for whoever asks why a session is relayed."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from p2pdist.core.paths import CandidateKind, PairOutcome
from p2pdist.errors import Unavailable


class Phase(enum.StrEnum):
    """The steps on the way to an open path, in their order."""

    GATHER = "gather"
    EXCHANGE = "exchange"
    ICE = "ice"
    DTLS = "dtls"
    SCTP = "sctp"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedCandidate:
    """An address of one side."""

    kind: CandidateKind
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.endpoint} ({self.kind})"

    @property
    def endpoint(self) -> str:
        """Address and port, as people write them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedPair:
    """An address of each side between which a packet was sent, or would have been."""

    local: TriedCandidate
    remote: TriedCandidate
    outcome: PairOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class PunchReport:
    """What one attempt did."""

    local: Sequence[TriedCandidate] = ()
    """Our candidates. A server-reflexive one is how the NAT shows us to the STUN server."""
    remote: Sequence[TriedCandidate] = ()
    """The other side's, with those that were found out while connecting."""
    pair: tuple[TriedCandidate, TriedCandidate] | None = None
    """Ours and theirs that were nominated; each is what the other side sees, not what its owner calls it."""
    pairs: Sequence[TriedPair] = ()
    """What became of each pair, at most :data:`~p2pdist.limits.PUNCH_PAIRS_TOLD_MAX`."""
    seconds: Mapping[Phase, float] = field(default_factory=dict)
    """How long each phase took that was finished."""
    failure: str = ""
    """Why there is no path, in a sentence for people; empty when there is one."""


class PunchFailed(Unavailable):
    """No punched path came about. Stay relayed; another attempt later uses new ports."""

    def __init__(self, report: PunchReport) -> None:
        super().__init__(report.failure, hint="the session stays relayed")
        self.report = report
