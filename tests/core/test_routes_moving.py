"""Gateways and devices that move about over links that delay and lose: what everybody then knows."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.core.routes import Routes
from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId
from p2pdist.wire.frames import Arrived, Attached, Way

SERVER = NodeId("s" * 32)
GATEWAYS = [NodeId(letter * 32) for letter in "ghijk"]
DEVICES = [NodeId(letter * 32) for letter in "abcde"]

END = "the end of the link"


class Link:
    """What is on its way between a node and the one above it. Each side hears of the end in its time."""

    def __init__(self, lower: NodeId, upper: NodeId) -> None:
        self.lower, self.upper = lower, upper
        self.up: deque[Arrived | Attached | str] = deque()
        self.down: deque[Way | str] = deque()


class Network:
    """Nodes with links; everything happens when the script says so."""

    def __init__(self) -> None:
        self.routes = {node: Routes(node, top=node == SERVER) for node in [SERVER, *GATEWAYS]}
        self.above: dict[NodeId, Link] = {}
        self.below: dict[NodeId, dict[NodeId, Link]] = {node: {} for node in self.routes}
        self.links: list[Link] = []
        self.told: dict[Link, tuple[NodeId, ...]] = {}
        self.stamps = 0

    def move(self, node: NodeId, upper: NodeId) -> None:
        """A node leaves where it is and asks *upper* to carry it."""
        self.leave(node, lost=0)
        if node in self.routes:
            try:
                self.routes[upper].check_gateway(node)
            except P2PDistError:
                return
        link = Link(node, upper)
        self.links.append(link)
        self.above[node] = link
        self.below[upper][node] = link
        if node in self.routes or node in DEVICES[:3]:
            self.arrive(link, 1)
        self.stamps += 1
        link.up.append(Arrived(stamp=self.stamps))
        if node in self.routes:
            link.up += self.routes[node].whole()
            self.tell_way(link)

    def leave(self, node: NodeId, lost: int) -> None:
        """A node's link ends, as it sees it; the last frames that it sent may be lost."""
        link = self.above.pop(node, None)
        if link is None:
            return
        for _ in range(min(lost, len(link.up))):
            link.up.pop()
        link.up.append(END)
        link.down.clear()
        if node in self.routes:
            self.routes[node].set_above([])
            self.tell_everybody_below(node)

    def deliver_up(self, link: Link) -> None:
        if not link.up:
            return
        frame, routes = link.up.popleft(), self.routes[link.upper]
        if self.below[link.upper].get(link.lower) is not link:
            return  # a newer link has taken over
        match frame:
            case Arrived(stamp=stamp):
                self.arrive(link, stamp)
            case Attached():
                routes.heard(link.lower, frame)
            case _:
                del self.below[link.upper][link.lower]
                routes.detached(link.lower)
        self.tell_above(link.upper)

    def arrive(self, link: Link, stamp: int) -> None:
        try:
            self.routes[link.upper].attached(link.lower, stamp)
        except P2PDistError:
            del self.below[link.upper][link.lower]
            self.routes[link.upper].detached(link.lower)
            link.down.append(END)
        self.tell_above(link.upper)

    def tell_above(self, node: NodeId) -> None:
        if node in self.above:
            self.above[node].up += self.routes[node].poll()

    def deliver_down(self, link: Link) -> None:
        if not link.down:
            return
        frame = link.down.popleft()
        if self.above.get(link.lower) is not link:
            return
        if not isinstance(frame, Way):
            self.leave(link.lower, lost=0)
            return
        try:
            self.routes[link.lower].set_above([NodeId(node) for node in frame.nodes])
        except P2PDistError:
            self.leave(link.lower, lost=0)
        self.tell_everybody_below(link.lower)

    def tell_everybody_below(self, node: NodeId) -> None:
        for link in self.below[node].values():
            if link.lower in self.routes:
                self.tell_way(link)

    def tell_way(self, link: Link) -> None:
        way = self.routes[link.upper].way
        if self.told.get(link) != way:
            self.told[link] = way
            link.down.append(Way(nodes=list(way)))

    def settle(self) -> None:
        """Deliver everything that is on its way."""
        for _ in range(10_000):
            busy = [link for link in self.links if link.up or link.down]
            if not busy:
                return
            for link in busy:
                self.deliver_down(link)
                self.deliver_up(link)
        raise AssertionError("it never comes to rest")

    def path(self, node: NodeId) -> list[NodeId]:
        """The truth: everybody above *node*, by the links that stand."""
        path = [node]
        while (link := self.above.get(path[-1])) is not None:
            assert link.upper not in path, f"a loop: {path}"
            path.append(link.upper)
        return path


NODES = [*GATEWAYS, *DEVICES]


def wander(network: Network, rng: random.Random, steps: int) -> Iterator[None]:
    """Let nodes move and leave, and frames arrive in any order that links allow; yield after each step."""
    for node in NODES:
        network.move(
            node, rng.choice([SERVER, *GATEWAYS[: GATEWAYS.index(node)]] if node in GATEWAYS else GATEWAYS)
        )
        network.settle()
    for _ in range(steps):
        kind = rng.random()
        if kind < 0.12:
            node, upper = rng.choice(NODES), rng.choice([SERVER, *GATEWAYS])
            if node != upper:
                network.move(node, upper)
        elif kind < 0.16:
            network.leave(rng.choice(NODES), lost=rng.randrange(4))
        elif kind < 0.17:
            network.settle()
        else:
            link = rng.choice([link for link in network.links if link.up or link.down] or network.links)
            for _ in range(rng.randrange(1, 4)):
                network.deliver_up(link) if rng.random() < 0.5 else network.deliver_down(link)
        yield


@given(st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_once_everything_has_arrived_every_gateway_knows_the_truth_and_nothing_else(seed: int) -> None:
    network = Network()
    for _ in wander(network, random.Random(seed), 150):
        pass
    network.settle()
    for gateway, routes in network.routes.items():
        expected = {}
        for node in NODES:
            path = network.path(node)
            if node != gateway and gateway in path:
                expected[node] = path[path.index(gateway) - 1]
        assert {node: hop for node in NODES if (hop := routes.next_hop(node))} == expected
        assert {node for node, _ in routes.claimed()} == set(expected)
        path = network.path(gateway)
        assert routes.way == (tuple(path) if path[-1] == SERVER else ())


@given(st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_at_no_moment_is_the_way_to_a_node_through_a_gateway_that_is_above(seed: int) -> None:
    network = Network()
    for _ in wander(network, random.Random(seed), 150):
        for gateway, routes in network.routes.items():
            for node in [SERVER, *NODES]:
                hop = routes.next_hop(node)
                assert hop is None or hop in network.below[gateway]
                assert hop != gateway


def test_a_loop_that_forms_because_a_gateway_has_old_news_is_found_and_left() -> None:
    network = Network()
    g, h, i, j, _ = GATEWAYS
    for node, upper in ((g, SERVER), (h, g), (i, h), (j, SERVER)):
        network.move(node, upper)
        network.settle()
    network.move(h, j)  # i is below j from now on, and has not heard of it
    network.move(j, i)
    assert network.above[j].upper == i, "nobody could know better"
    network.settle()
    for node in GATEWAYS:
        assert network.path(node), "and there is no loop in it"
    network.move(j, SERVER)
    network.settle()
    assert network.path(j) == [j, SERVER]
