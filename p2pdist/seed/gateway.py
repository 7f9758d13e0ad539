"""Where the nodes below a gateway are, and where it stands itself: what it hears, and whom it tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from p2pdist.core.routes import Routes
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.net.pulse import Pulse
from p2pdist.wire.frames import Attached, Way

_log = get_logger()

_GATHER_S = 0.05  # after news, until the next: a site that comes back at once is told of in few frames


class Gateway:
    """The routes of one gateway, told upwards as they change, and its own way, told downwards.

    Args:
        node: This node.
        links: The links with the neighbours below that stand, kept by the caller.
        moved: Called with each node below that may be reached another way now.
    """

    def __init__(self, node: NodeId, links: Mapping[NodeId, Link], moved: Callable[[NodeId], None]) -> None:
        self._routes = Routes(node)
        self._links = links
        self._moved = moved
        self._gateways: set[NodeId] = set()
        self._above: Link | None = None
        self._telling = trio.Lock()
        self._news = Pulse()
        self._due = False

    def next_hop(self, node: NodeId) -> NodeId | None:
        """Return the neighbour below through which *node* is reached."""
        found = self._routes.next_hop(node)
        return node if found is None and node in self._links else found

    # Above -------------------------------------------------------------------------------------------

    async def linked(self, link: Link) -> None:
        """A link to the neighbour above stands: tell it everybody below.

        Raises:
            Unavailable: the link has ended.
        """
        async with self._telling:
            self._above = link
            for frame in self._routes.whole():
                await link.send(frame)

    def unlinked(self) -> None:
        """The link to the neighbour above has ended."""
        self._above = None
        self._routes.set_above([])
        self._tell_ways()

    def stands(self, way: Way) -> None:
        """The neighbour above has told its way to the admin server.

        Raises:
            TrustError, Unavailable: it cannot be ours; the link above has to end.
        """
        try:
            self._routes.set_above([NodeId(node) for node in way.nodes])
        finally:
            self._tell_ways()

    async def run(self) -> None:
        """Tell the neighbour above what is new, until cancelled."""
        while True:
            while not self._due:
                await self._news.wait()
            self._due = False
            async with self._telling:
                await self._tell_news(self._above)
            await trio.sleep(_GATHER_S)

    async def _tell_news(self, link: Link | None) -> None:
        if link is None:
            return  # the next one hears everything
        try:
            for frame in self._routes.poll():
                await link.send(frame)
        except Unavailable:
            return  # it has ended

    # Below -------------------------------------------------------------------------------------------

    def check_gateway(self, node: NodeId) -> None:
        """Check that a gateway may be carried. Raises what :meth:`.Routes.check_gateway` does."""
        self._routes.check_gateway(node)

    def welcome(self, node: NodeId) -> None:
        """A gateway has a link now: tell it where it stands."""
        self._gateways.add(node)
        self._tell_way(node)

    def arrived(self, node: NodeId, stamp: int) -> None:
        """A neighbour is reached over its link. Raises what :meth:`.Routes.attached` does."""
        self._routes.attached(node, stamp)
        self._changed()

    def heard(self, node: NodeId, attached: Attached) -> None:
        """A gateway below has told whom it carries."""
        if node not in self._gateways:
            _log.warning("attached.refused", node=node, reason="it has no valid grant as a gateway")
            return
        try:
            self._routes.heard(node, attached)
        except Unavailable as error:
            _log.error("attached.left_out", node=node, reason=str(error))
        self._changed()

    def is_gateway(self, node: NodeId) -> bool:
        """Whether a neighbour below carries others."""
        return node in self._gateways

    def gone(self, node: NodeId) -> None:
        """A neighbour's link has ended."""
        self._gateways.discard(node)
        self._routes.detached(node)
        self._changed()

    def _changed(self) -> None:
        for node in self._routes.moved():
            self._moved(node)
        self._due = True
        self._news.fire()

    def _tell_ways(self) -> None:
        for node in list(self._gateways):
            self._tell_way(node)

    def _tell_way(self, node: NodeId) -> None:
        """Tell a gateway every way that we have, one after the other: that is how loops are found."""
        link = self._links.get(node)
        if link is None:
            return
        try:
            link.send_nowait(Way(nodes=list(self._routes.way)))
        except Unavailable as error:
            link.abort(error.what)
