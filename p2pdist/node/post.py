"""The envelopes of a node on their way over its uplink: none is forgotten before somebody answers for it."""

from __future__ import annotations

from typing import Protocol

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.exchange import Exchange, Outlet
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Taken

_log = get_logger()


class Post(Protocol):
    """Who keeps the envelopes that go over a node's uplink, and those that come over it."""

    def linked(self, neighbour: NodeId, outlet: Outlet) -> None:
        """A link to a neighbour stands."""

    def unlinked(self) -> None:
        """It has ended. Calling it again does nothing."""

    def send(self, envelope: Envelope) -> None:
        """Send an envelope of this node. Raises Unavailable when it can neither be sent nor kept."""

    async def receive(self, envelope: Envelope) -> None:
        """An envelope for somebody else has come. Raises PeerError when the neighbour breaks the protocol."""

    def settle(self) -> None:
        """An envelope for this node has come and was dealt with. Raises what :meth:`receive` does."""

    def taken(self, receipt: Taken) -> None:
        """The neighbour answers for what it got. Raises what :meth:`receive` does."""

    def owed(self) -> int | None:
        """While the neighbour owes receipts: for how many envelopes it has given some. None: it owes none."""


class OwnPost:
    """The post of a node that carries nobody. In memory: what matters is repeated until it is answered."""

    def __init__(self) -> None:
        self._exchange: Exchange | None = None
        self._kept: list[Envelope] = []

    def linked(self, neighbour: NodeId, outlet: Outlet) -> None:
        """Send again what the neighbour before this one did not answer for."""
        self._exchange = Exchange(outlet)
        for envelope in self._kept:
            self._exchange.send(envelope)
        self._kept = []

    def unlinked(self) -> None:
        """Keep for the next neighbour what this one does not answer for."""
        if self._exchange is not None:
            self._kept = self._exchange.untaken()
        self._exchange = None

    def send(self, envelope: Envelope) -> None:
        """Send an envelope of this node. Raises Unavailable between links, and when too many wait."""
        if self._exchange is None:
            raise Unavailable("no link to a distribution point or the admin server")
        if self._exchange.open >= limits.POST_ENVELOPES_MAX:
            raise Unavailable("the neighbour answers for too few of this node's envelopes")
        self._exchange.send(envelope)

    def owed(self) -> int | None:
        """While the neighbour owes receipts: for how many envelopes it has given some. None: it owes none."""
        return self._exchange.owed() if self._exchange is not None else None

    async def receive(self, envelope: Envelope) -> None:
        """An envelope for somebody else is a mistake of the neighbour's; it is not kept."""
        _log.warning("envelope.misrouted", sender=envelope.sender, recipient=envelope.recipient)
        self.settle()

    def settle(self) -> None:
        """An envelope for this node has come and was dealt with."""
        if self._exchange is not None:
            self._exchange.settle(self._exchange.arrived())

    def taken(self, receipt: Taken) -> None:
        """The neighbour answers for what it got. What it had no room for is said again when it matters."""
        if self._exchange is not None:
            refused = self._exchange.taken(receipt)
            if refused:
                _log.info("envelope.refused", count=refused, reason="the neighbour has no room for them")
