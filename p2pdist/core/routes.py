"""The way to every node below a gateway, when gateways stand in a chain.

Each gateway *claims* the nodes that it has links with, each with the stamp that the node brought along,
which grows with each of its links. Claims travel upwards as they are, so that everybody above knows, of
each node below, which gateway carries it; the way down is found by asking for the carrier's carrier, and
so on. This is the storing-less downward routing of RPL (RFC 6550, section 9), with its path sequence as
the stamp and gateways that remember.

* Of several claims of one node the newest stamp counts, from wherever it was heard: what an old gateway
  still says of a node that has left it changes nothing.
* A gateway that attaches anew tells all anew. So when the claim of a gateway changes, everything that it
  said before is forgotten, with everything below it; nobody lists what is lost.
* A neighbour is believed about itself and what is below it, and about nothing else.

Downwards, each gateway is told its :attr:`Routes.way` to the admin server. Whoever is on it is above, and
is not carried; a gateway that finds itself on its own way has found a loop that formed while two moved at
once, and leaves. The admin server is the gateway without a way above it. Pure; the driver owns the links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pdist import limits
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.wire.frames import Attached


class Routes:
    """What one gateway knows of the nodes above and below it.

    Args:
        node: Its own id.
        top: Whether it is the admin server.
        nodes_max: How many claims are remembered.
    """

    def __init__(self, node: NodeId, *, top: bool = False, nodes_max: int = limits.NODES_BELOW_MAX) -> None:
        self._node = node
        self._top = top
        self._nodes_max = nodes_max
        self._claims: dict[NodeId, dict[NodeId, int]] = {}  # by carrier: what it carries
        self._claimants: dict[NodeId, dict[NodeId, int]] = {}  # by node: who carries it
        self._news: dict[tuple[NodeId, NodeId], int | None] = {}  # carrier, node: its stamp, or gone
        self._moved: dict[NodeId, None] = {}
        self._count = 0
        self._above: tuple[NodeId, ...] = ()

    # Above -------------------------------------------------------------------------------------------

    @property
    def way(self) -> tuple[NodeId, ...]:
        """The nodes from this one to the admin server, both included; empty while there is no way."""
        return (self._node, *self._above) if self._above or self._top else ()

    def set_above(self, way: Sequence[NodeId]) -> None:
        """The neighbour above has told its own way; empty when it or our link to it is gone.

        Raises:
            TrustError: this node is on it: the link above closes a loop. There is no way then.
            Unavailable: too many gateways stand in a row. There is no way then.
        """
        self._above = ()
        if self._node in way:
            raise TrustError(
                f"a loop of gateways: {_arrows([self._node, *way[: way.index(self._node) + 1]])}",
                hint="this one looks for another way",
            )
        if len(way) > limits.GATEWAYS_IN_A_ROW_MAX:
            raise Unavailable(
                f"{len(way)} gateways in a row stand above this one", hint="let it reach a nearer one"
            )
        self._above = tuple(way)

    def check_gateway(self, node: NodeId) -> None:
        """Check that a gateway that asks for it may be carried.

        Raises:
            TrustError: it would be carried by itself.
            Unavailable: this gateway has no way to the admin server now, or too long a one.
        """
        if node == self._node or node in self._above:
            path = self.way[: self.way.index(node) + 1] if node in self.way else (node,)
            raise TrustError(f"a loop of gateways: {_arrows([node, *path])}", hint="it looks for another way")
        if not self.way:
            raise Unavailable("this gateway has no way to the admin server now", hint="try another one")
        if len(self.way) > limits.GATEWAYS_IN_A_ROW_MAX - 1:
            raise Unavailable(
                f"{len(self.way)} gateways in a row stand above already", hint="let it reach a nearer one"
            )

    # Below -------------------------------------------------------------------------------------------

    def attached(self, node: NodeId, stamp: int) -> None:
        """A node is reached over its own link with this gateway.

        Raises:
            TrustError: it stands above this gateway: a loop.
        """
        if node in (path := (self._node, *self._above)):
            loop = _arrows([node, *path[: path.index(node) + 1]])
            raise TrustError(f"a loop of gateways: {loop}", hint="it looks for another way")
        self._claim(self._node, node, stamp)

    def detached(self, node: NodeId) -> None:
        """The link with a node is gone, and so is everything below it that has no newer way."""
        self._drop(self._node, node)

    def heard(self, neighbour: NodeId, attached: Attached) -> None:
        """A neighbour tells who is below it.

        That it names this gateway, or one above it, is no loop yet: one of them may have left it just
        now. Such claims are passed over.

        Raises:
            Unavailable: there are more nodes below than can be remembered; the first are.
        """
        carrier = NodeId(attached.carrier)
        path = self.path(carrier)
        if len(path) < 2 or path[-2] != neighbour:
            return  # it has moved: its new neighbour tells
        for node in attached.gone:
            self._drop(carrier, NodeId(node))
        above = {*path, *self._above}
        kept = [
            self._claim(carrier, NodeId(node), stamp)
            for node, stamp in attached.nodes.items()
            if node not in above
        ]
        if not all(kept):
            raise Unavailable(
                f"{carrier} carries too many nodes, or more than {self._nodes_max} are below this gateway",
                hint="let some use another one",
            )

    def carrier(self, node: NodeId) -> NodeId | None:
        """Return the gateway that has the node's link, by the newest claim."""
        claimants = self._claimants.get(node)
        if not claimants:
            return None
        return max(claimants, key=lambda carrier: (claimants[carrier], carrier))

    def next_hop(self, node: NodeId) -> NodeId | None:
        """Return the neighbour below through which *node* is reached; None when it is not below."""
        path = self.path(node)
        return path[-2] if len(path) > 1 else None

    def path(self, node: NodeId) -> list[NodeId]:
        """Return the way up from *node* to this gateway, both included; empty when it is not below."""
        path = [node]
        while path[-1] != self._node:
            carrier = self.carrier(path[-1])
            if carrier is None or len(path) > limits.GATEWAYS_IN_A_ROW_MAX:
                return []
            path.append(carrier)
        return path

    def moved(self) -> tuple[NodeId, ...]:
        """Return the nodes whose carrier may have changed since the last call."""
        moved, self._moved = self._moved, {}
        return tuple(moved)

    def claimed(self) -> Iterator[tuple[NodeId, NodeId]]:
        """Yield every node below and who says that it carries it: several, while it moves or is a clone."""
        for node, claimants in self._claimants.items():
            for carrier in claimants:
                yield node, carrier

    # What is told upwards ----------------------------------------------------------------------------

    def poll(self) -> list[Attached]:
        """Return what is new since the last call, to be told to the neighbour above in this order."""
        news, self._news = self._news, {}
        return list(_frames(news))

    def whole(self) -> list[Attached]:
        """Return everything, for a neighbour above that knows nothing yet; it is not news any more."""
        self._news = {}
        everything: dict[tuple[NodeId, NodeId], int | None] = {}
        carriers = [self._node]
        for carrier in carriers:
            for node, stamp in self._claims.get(carrier, {}).items():
                everything[carrier, node] = stamp
                if node in self._claims and self.carrier(node) == carrier:
                    carriers.append(node)
        return list(_frames(everything))

    # ------------------------------------------------------------------------------------------------

    def _claim(self, carrier: NodeId, node: NodeId, stamp: int) -> bool:
        known = self._claims.get(carrier, {}).get(node)
        if known == stamp:
            return True
        if known is None:
            crowded = (
                self._count >= self._nodes_max
                or len(self._claims.get(carrier, ())) >= limits.NODES_CARRIED_MAX
            )
            if crowded and carrier != self._node:
                return False  # a direct neighbour has a link, and links are counted elsewhere
            self._count += 1
        before = self._place(node)
        self._claims.setdefault(carrier, {})[node] = stamp
        self._claimants.setdefault(node, {})[carrier] = stamp
        self._tell(carrier, node, stamp)
        self._placed(node, before)
        return True

    def _drop(self, carrier: NodeId, node: NodeId) -> None:
        if node in self._claims.get(carrier, {}):
            before = self._place(node)
            self._remove(carrier, node)
            self._tell(carrier, node, None)
            self._placed(node, before)

    def _placed(self, node: NodeId, before: tuple[NodeId, int] | None) -> None:
        """If *node* is elsewhere or attached anew: forget what it said, and whom. It tells all anew."""
        if self._place(node) == before:
            return
        moved = [node]
        for carrier in moved:
            self._moved[carrier] = None
            for each in list(self._claims.get(carrier, ())):
                if self.carrier(each) == carrier:
                    moved.append(each)
                self._remove(carrier, each)
                self._news.pop((carrier, each), None)

    def _remove(self, carrier: NodeId, node: NodeId) -> None:
        self._count -= 1
        for outer, inner, table in ((carrier, node, self._claims), (node, carrier, self._claimants)):
            del table[outer][inner]
            if not table[outer]:
                del table[outer]

    def _place(self, node: NodeId) -> tuple[NodeId, int] | None:
        carrier = self.carrier(node)
        return (carrier, self._claimants[node][carrier]) if carrier is not None else None

    def _tell(self, carrier: NodeId, node: NodeId, stamp: int | None) -> None:
        self._news.pop((carrier, node), None)
        if not self._top:
            self._news[carrier, node] = stamp


def _frames(news: dict[tuple[NodeId, NodeId], int | None]) -> Iterator[Attached]:
    """Yield as few frames as the order allows, none of them too large."""
    carrier: NodeId | None = None
    nodes: dict[str, int] = {}
    gone: list[str] = []
    for (by, node), stamp in news.items():
        if carrier is not None and (by != carrier or len(nodes) + len(gone) >= limits.ATTACHED_MAX):
            yield Attached(carrier=carrier, nodes=nodes, gone=gone)
            nodes, gone = {}, []
        carrier = by
        if stamp is None:
            gone.append(node)
        else:
            nodes[node] = stamp
    if carrier is not None:
        yield Attached(carrier=carrier, nodes=nodes, gone=gone)


def _arrows(nodes: Sequence[NodeId]) -> str:
    return " → ".join(nodes)
