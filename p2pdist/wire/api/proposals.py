"""What the API says of versions that vendors offer."""

from __future__ import annotations

from p2pdist.wire.api.base import Answer
from p2pdist.wire.following import ProposalState


class ProposalInfo(Answer, frozen=True, kw_only=True):
    """A version that a vendor offers. Nothing is distributed before the fleet's own keys have signed it.

    ``task`` follows the repository. ``signed`` says that the vendor has signed its index, which has
    ``size_bytes`` (0: it does not say) and ``sha256`` (empty: it does not say). ``first`` and ``last`` are
    when it was on offer. ``release`` is the signed release that it has become.
    """

    id: str
    product: str
    version: str
    architecture: str
    state: ProposalState
    file: str
    url: str
    size_bytes: int
    sha256: str
    signed: bool
    task: str
    first: int
    last: int
    release: str


class ProposalList(Answer, frozen=True, kw_only=True):
    """Proposals, by their ids. ``next`` is what to ask for the rest with; empty: that was all."""

    proposals: list[ProposalInfo]
    next: str
