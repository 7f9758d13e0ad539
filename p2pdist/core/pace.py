"""How often a node lets its neighbours ask it for a sign of life: as often as it can bear. Pure."""

from __future__ import annotations

from p2pdist import limits

_PACES_S = (*limits.LINK_PACES_S, limits.LINK_KEEPALIVE_S)


def pace_s(neighbours: int, before: float) -> float:
    """Return after how many seconds of silence each neighbour may ask.

    Args:
        neighbours: How many there are.
        before: What they were told last: they may ask more often only when half as many are left, so that
            some who come and go change nothing.
    """
    least = _at_least(neighbours / limits.LINK_PACE_ASKED_PER_S)
    if least > before:
        return least
    return min(before, _at_least(2 * neighbours / limits.LINK_PACE_ASKED_PER_S))


def _at_least(seconds: float) -> float:
    return next((pace for pace in _PACES_S if pace >= seconds), _PACES_S[-1])
