"""Which pieces a distribution point fetches first.

Points that all pick the rarest pieces, which only the origin has, pick the same ones where few are left,
and the origin sends those more than once. So the points of an artifact divide its pieces among themselves:
each prefers a part of its own, and so has something that the others lack, until the end. It is a preference
only: what a point's own part does not keep busy fetches the rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from p2pdist.ids import NodeId
from p2pdist.swarm.model import Source

OWN_PART: Final = 7
OTHER_PART: Final = 4
"""libtorrent's piece priorities: 7 is the highest, 4 the usual."""


def points_among(node: NodeId, sources: Iterable[Source]) -> tuple[NodeId, ...]:
    """Return the points that divide an artifact: *node*, itself one, and those among its sources."""
    return tuple(sorted({node, *(source.node for source in sources if source.role == "point")}))


def priorities(node: NodeId, points: tuple[NodeId, ...], pieces: int) -> list[int]:
    """Return *node*'s priority for each piece, given the result of :func:`points_among`."""
    mine = points.index(node)
    return [OWN_PART if piece % len(points) == mine else OTHER_PART for piece in range(pieces)]
