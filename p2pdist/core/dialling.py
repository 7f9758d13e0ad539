"""Who dials whom: exactly one of two neighbours, and both know which without asking.

A gateway below dials the one above it, and a device its point. A point whose grant says that it is
*dialled* stands where nothing may be dialled from (a DMZ): it dials nobody, and whoever would be above it
dials it instead. Signed grants decide, so both sides see the same:

* below a point that is dialled there is nothing new: it is dialled from there as any other,
* above it stand the gateways that it would dial itself, without those that are dialled too: of two
  zones neither may dial, so they are no neighbours. The admin server may dial every such point, and leaves
  it to a gateway above as long as one carries it.

For content the same holds of each two nodes, whoever of them fetches.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from p2pdist.core.scope import gateways_above, grant_valid
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Dialler

Side = Literal["above", "below"]


def who_dials(above: SeedGrant | None, below: SeedGrant | None) -> Side | None:
    """Return which of two neighbours dials the other; None: neither may, and they are no neighbours.

    Args:
        above: The grant of the one above; None for the admin server.
        below: The grant of the one below; None for a device.
    """
    if below is None or not below.dialled:
        return "below"
    return None if above is not None and above.dialled else "above"


def dials(grant: SeedGrant | None) -> bool:
    """Whether a node with this grant, or without one, dials at all."""
    return grant is None or not grant.dialled


def callers_of(own: SeedGrant, grants: Iterable[SeedGrant], now: int) -> tuple[SeedGrant, ...]:
    """Return the gateways above that dial a dialled point. The admin server does while none carries it.

    Args:
        own: The point's grant.
        grants: Every grant.
        now: Unix seconds.
    """
    if not own.dialled:
        return ()
    able = (grant for grant in grants if who_dials(grant, own) == "above")
    return gateways_above(own, able, now)


def called_by(own: SeedGrant | None, grants: Iterable[SeedGrant], now: int) -> tuple[SeedGrant, ...]:
    """Return the points below that a node dials.

    Args:
        own: The node's grant; None for the admin server, which may dial every point that is dialled.
        grants: Every grant.
        now: Unix seconds.
    """
    known = tuple(grants)
    dialled = [grant for grant in known if grant.dialled and _is_point(grant, now)]
    if own is None:
        return tuple(dialled)
    return tuple(
        grant for grant in dialled if own.node in [caller.node for caller in callers_of(grant, known, now)]
    )


def content_dialler(*, receiver_dialled: bool, source_dialled: bool) -> Dialler | None:
    """Return who dials so that content can flow between two nodes; None: neither may."""
    if receiver_dialled and source_dialled:
        return None
    return "source" if receiver_dialled else "receiver" if source_dialled else "either"


def _is_point(grant: SeedGrant, now: int) -> bool:
    return grant_valid(grant, "seed", now) or grant_valid(grant, "gateway", now)
