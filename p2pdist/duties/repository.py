"""What work about content is given of its node: what is signed, and a place in its swarm for each release."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from p2pdist.core.mirrored import Chosen
from p2pdist.ids import NodeId
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.swarm.session import Artifact, Swarm
from p2pdist.trust.catalog import Release
from p2pdist.trust.enrolment import EnrolmentBundle


class Place(NamedTuple):
    """An artifact in the node's swarm. ``complete``: it is all here already."""

    artifact: Artifact
    complete: bool


class Repository(Protocol):
    """The content of one node: a distribution point's stock, or what the admin server serves."""

    @property
    def node(self) -> NodeId:
        """Whose it is."""

    @property
    def swarm(self) -> Swarm:
        """The node's swarm."""

    @property
    def settings(self) -> MirrorSettings:
        """What its operator says about the way to mirrors."""

    @property
    def dials(self) -> bool:
        """Whether this node may dial anybody: one that may not reads no mirror."""

    async def choose(self, targets: Iterable[str]) -> Chosen:
        """Find releases by what this node knows to be signed; waits a little for what may be on its way."""

    def bundle(self) -> EnrolmentBundle:
        """Return what a new machine beside this node needs to find the fleet and believe it.

        Its addresses may be none, where they are not known here.
        """

    def open(self, release: Release) -> AbstractAsyncContextManager[Place]:
        """Have a release's artifact in the swarm for as long as the block runs, and longer if all is here.

        Raises:
            Unavailable: there is no room for it, or it does not come into the swarm.
        """
