"""The post of a node that carries others: through its mailbox, in both directions."""

from __future__ import annotations

from contextlib import ExitStack

from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.exchange import Outlet
from p2pdist.net.mailbox import Hop, Mailbox
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Taken

_log = get_logger()


class GatewayPost:
    """See :class:`~p2pdist.node.post.Post`.

    Args:
        node: This node.
        server: The admin server, to whom everything from below goes, and from whom everything comes.

    Attributes:
        above: The neighbour over whose link the admin server is reached now.
    """

    def __init__(self, node: NodeId, server: NodeId) -> None:
        self.mailbox: Mailbox
        self.above: NodeId | None = None
        self._node = node
        self._server = server
        self._hop: Hop | None = None
        self._stack = ExitStack()

    def linked(self, neighbour: NodeId, outlet: Outlet) -> None:
        """Send what waits for the admin server."""
        self.unlinked()
        self._hop = self._stack.enter_context(self.mailbox.hop(neighbour, outlet))
        self.above = neighbour
        self.mailbox.look(self._server)

    def unlinked(self) -> None:
        """What is under way waits for the next link."""
        self._hop = self.above = None
        self._stack.close()

    def send(self, envelope: Envelope) -> None:
        """Send an envelope of this node. Raises Unavailable when the mailbox has no room."""
        self.mailbox.post(envelope, sender=self._node)

    def owed(self) -> int | None:
        """While the neighbour owes receipts: for how many envelopes it has given some. None: it owes none."""
        if self._hop is None or not self._hop.dispatch.under_way():
            return None
        return self._hop.dispatch.taken_count

    async def receive(self, envelope: Envelope) -> None:
        """An envelope for somebody below has come."""
        if self._hop is None:
            return
        if envelope.sender == self._server:
            await self._hop.receive(envelope)
        else:
            _log.warning("envelope.misrouted", sender=envelope.sender, recipient=envelope.recipient)
            self._hop.settle()

    def settle(self) -> None:
        """An envelope for this node has come and was dealt with."""
        if self._hop is not None:
            self._hop.settle()

    def taken(self, receipt: Taken) -> None:
        """The neighbour answers for what it got."""
        if self._hop is None:
            raise Unavailable("the link has ended")
        self._hop.taken(receipt)
