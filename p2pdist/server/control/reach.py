"""Over which link each node of the fleet is reached, and who carries it.

Gateways claim the nodes below them; the newest claim counts. But a claim is only said, and an envelope
that opens is proof: whoever brought a node's newest envelope is believed, until somebody else claims it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import trio

from p2pdist import limits
from p2pdist.core.routes import Routes
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.exchange import Exchange
from p2pdist.net.link import Link
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Attached

_log = get_logger()


class Reach:
    """See the module.

    Args:
        node: The admin server.
        links: The links that stand, by node; kept by the caller.
    """

    def __init__(self, node: NodeId, links: Mapping[NodeId, Link]) -> None:
        self._node = node
        self._links = links
        self._routes = Routes(node, top=True)
        self._proven: dict[NodeId, NodeId] = {}
        self._exchanges: dict[NodeId, Exchange] = {}

    async def run(self) -> None:
        """Look again at what a full link did not take, now and then, until cancelled."""
        while True:
            await trio.sleep(limits.MAILBOX_LOOK_S)
            for exchange in list(self._exchanges.values()):
                exchange.look()

    def neighbour(self, node: NodeId) -> NodeId | None:
        """Return over whose link *node* is reached; None when it is not."""
        proven = self._proven.get(node)
        if proven in self._links:
            return proven
        found = self._routes.next_hop(node)
        return node if found is None and node in self._links else found

    def link(self, node: NodeId) -> Link | None:
        """Return the link over which *node* is reached."""
        neighbour = self.neighbour(node)
        return self._links.get(neighbour) if neighbour is not None else None

    def carrier(self, node: NodeId) -> NodeId | None:
        """Return who has the link with *node*, if that is not the admin server itself."""
        found = self.neighbour(node)
        if found in (None, node):
            return None
        return self._routes.carrier(node) if self._routes.next_hop(node) == found else found

    def carriers(self, node: NodeId) -> Sequence[NodeId]:
        """Return who passes on to *node*, the nearest to it first; empty for one that has a link with us."""
        first = self.neighbour(node)
        if first in (None, node):
            return ()
        *between, _ = self._routes.path(node)[1:] or (node,)
        return between if between and between[-1] == first else [first]

    def send(self, envelope: Envelope) -> bool:
        """Send an envelope on its way; False when there is none, or too much waits on it."""
        neighbour = self.neighbour(NodeId(envelope.recipient))
        exchange = self._exchanges.get(neighbour) if neighbour is not None else None
        if exchange is None:
            return False
        try:
            exchange.send(envelope, for_others=neighbour != envelope.recipient)
        except Unavailable as error:
            _log.warning("envelope.not_sent", node=envelope.recipient, by=neighbour, reason=str(error))
            return False
        return True

    def linked(self, neighbour: NodeId, link: Link) -> Exchange:
        """A link with a neighbour stands: it is there, whatever was said of it before."""
        self._proven[neighbour] = neighbour
        exchange = self._exchanges[neighbour] = Exchange(link)
        return exchange

    def proved(self, node: NodeId, neighbour: NodeId) -> None:
        """The newest that was heard of *node*, and is sealed by it, came over the link of *neighbour*."""
        self._proven[node] = neighbour

    def arrived(self, node: NodeId, stamp: int) -> None:
        """A neighbour says when it came. Raises what :meth:`.Routes.attached` does."""
        self._routes.attached(node, stamp)

    def heard(self, neighbour: NodeId, attached: Attached) -> None:
        """A gateway says whom it carries."""
        try:
            self._routes.heard(neighbour, attached)
        except Unavailable as error:
            _log.error("attached.left_out", node=neighbour, reason=str(error))

    def gone(self, neighbour: NodeId) -> None:
        """The link with a neighbour has ended."""
        self._proven.pop(neighbour, None)
        self._exchanges.pop(neighbour, None)
        self._routes.detached(neighbour)

    def moved(self) -> tuple[NodeId, ...]:
        """Return who may be reached another way since the last call."""
        moved = self._routes.moved()
        for node in moved:
            if node not in self._links or self._routes.carrier(node) != self._node:
                self._proven.pop(node, None)
        return moved

    def claimed(self) -> Iterator[NodeId]:
        """Yield every node once for each place in which it is said to be."""
        yield from self._links
        for node, carrier in self._routes.claimed():
            if carrier != self._node:
                yield node
