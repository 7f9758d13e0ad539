"""Over which link the admin server reaches each node, and whom it believes."""

from __future__ import annotations

from typing import Any

from p2pdist.ids import NodeId
from p2pdist.server.control.reach import Reach
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Attached, Routed

SERVER, G, H, D, E = (NodeId(letter * 32) for letter in "sghde")
LIE = 2**63 - 1


class FakeLink:
    """A link's end that keeps what is sent on it."""

    def __init__(self) -> None:
        self.frames: list[AnyFrame] = []

    def send_nowait(self, frame: AnyFrame) -> None:
        self.frames.append(frame)


class Server:
    """The admin server's knowledge, and its links."""

    def __init__(self) -> None:
        self.links: dict[NodeId, Any] = {}
        self.reach = Reach(SERVER, self.links)

    def link(self, node: NodeId, stamp: int) -> FakeLink:
        link = self.links[node] = FakeLink()
        self.reach.linked(node, link)  # type: ignore[arg-type]  # all that is used of it
        self.reach.arrived(node, stamp)
        self.reach.moved()
        return link

    def end(self, node: NodeId) -> None:
        del self.links[node]
        self.reach.gone(node)
        self.reach.moved()

    def hear(self, gateway: NodeId, node: NodeId, stamp: int) -> None:
        self.reach.heard(gateway, Attached(carrier=gateway, nodes={node: stamp}))
        self.reach.moved()


def envelope(recipient: NodeId) -> Envelope:
    return Envelope(sender=SERVER, recipient=recipient, counter=1, expires=1, box=bytes(40))


def test_a_node_is_reached_over_its_own_link_or_through_the_gateway_that_carries_it() -> None:
    server = Server()
    server.link(G, 1)
    server.link(D, 2)
    server.hear(G, E, 3)
    assert [server.reach.neighbour(node) for node in (G, D, E, H)] == [G, D, G, None]
    assert [server.reach.carrier(node) for node in (G, D, E, H)] == [None, None, G, None]


def test_a_device_that_went_behind_a_gateway_is_reached_there_while_its_old_link_still_stands() -> None:
    server = Server()
    server.link(G, 1)
    server.link(D, 2)
    server.hear(G, D, 3)
    assert server.reach.neighbour(D) == G
    server.end(D)
    assert server.reach.neighbour(D) == G


def test_a_device_that_came_back_from_a_gateway_is_reached_over_its_own_link() -> None:
    server = Server()
    server.link(G, 1)
    server.hear(G, D, 3)
    server.link(D, 4)
    assert server.reach.neighbour(D) == D
    server.end(D)
    assert server.reach.neighbour(D) == G, "as far as anybody says"


def test_an_envelope_that_opens_counts_more_than_what_a_gateway_says() -> None:
    server = Server()
    server.link(G, 1)
    server.link(H, 2)
    server.hear(H, D, 3)
    server.hear(G, D, LIE)
    assert server.reach.neighbour(D) == G
    server.reach.proved(D, H)
    assert (server.reach.neighbour(D), server.reach.carrier(D)) == (H, H)
    server.hear(G, E, LIE)
    assert server.reach.neighbour(D) == H
    server.end(H)
    assert server.reach.neighbour(D) == G


def test_a_node_of_which_only_envelopes_come_is_reached_where_they_came_from() -> None:
    server = Server()
    server.link(G, 1)
    server.reach.proved(D, G)
    assert (server.reach.neighbour(D), server.reach.carrier(D)) == (G, G)


def test_an_envelope_goes_over_the_link_that_reaches_its_recipient_and_nowhere_without_one() -> None:
    server = Server()
    link = server.link(G, 1)
    server.hear(G, D, 3)
    assert server.reach.send(envelope(D))
    assert not server.reach.send(envelope(E))
    assert link.frames == [Routed(envelope=envelope(D))]


def test_who_is_claimed_in_two_places_is_named_twice() -> None:
    server = Server()
    server.link(G, 1)
    server.link(H, 2)
    server.hear(G, D, 3)
    server.hear(H, D, 4)
    server.hear(H, E, 5)
    assert sorted(server.reach.claimed()) == sorted([G, H, D, D, E])


def test_the_way_to_a_node_goes_through_the_gateways_that_say_so() -> None:
    server = Server()
    server.link(G, 1)
    server.link(D, 2)
    server.reach.heard(G, Attached(carrier=G, nodes={H: 3}))
    server.reach.heard(G, Attached(carrier=H, nodes={E: 4}))
    server.reach.moved()
    assert list(server.reach.carriers(E)) == [H, G]
    assert list(server.reach.carriers(H)) == [G]
    assert [list(server.reach.carriers(node)) for node in (G, D, NodeId("x" * 32))] == [[], [], []]


def test_who_brought_the_newest_envelope_is_on_the_way_whatever_others_claim() -> None:
    server = Server()
    server.link(G, 1)
    server.link(H, 2)
    server.hear(G, E, LIE)
    server.reach.proved(E, H)
    assert list(server.reach.carriers(E)) == [H]
