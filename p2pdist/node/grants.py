"""Who may serve content to this node, by the seed grants that it has verified."""

from __future__ import annotations

import time

from p2pdist.core.scope import are_alternatives, grant_valid
from p2pdist.core.sources import objection
from p2pdist.ids import GroupPath, NodeId
from p2pdist.node.home import Home
from p2pdist.node.metadata import Metadata
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Candidate


class Grants:
    """The grants in the newest verified metadata.

    Args:
        home: Which node this is, and of which fleet.
        metadata: Where the catalog is.
    """

    def __init__(self, home: Home, metadata: Metadata) -> None:
        self._home = home
        self._metadata = metadata

    def own(self) -> SeedGrant | None:
        """Return this node's own grant, valid or not."""
        catalog = self._metadata.catalog
        return catalog.grants.get(self._home.node) if catalog is not None else None

    def point(self, node: NodeId) -> SeedGrant | None:
        """Return the grant by which *node* may serve content now."""
        catalog = self._metadata.catalog
        grant = catalog.grants.get(node) if catalog is not None else None
        return grant if grant_valid(grant, "seed", int(time.time())) else None

    def is_alternative(self, node: NodeId) -> bool:
        """Whether *node* and this one are points that stand in for each other."""
        return are_alternatives(self.point(self._home.node), self.point(node))

    def objection(self, candidate: Candidate, *, group: GroupPath | None) -> str | None:
        """Say why a source is refused, whatever the tracker says: no valid grant names it. None if it is not.

        Args:
            candidate: The source.
            group: The group in which this node stands, if it is a device.
        """
        return objection(
            candidate,
            node=self._home.node,
            origin=self._home.enrolment.server_node,
            grant=self.point(NodeId(candidate.node)),
            group=group,
        )
