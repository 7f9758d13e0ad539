"""Content through the link, where nothing but the port of links can be reached."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.core.upstream import Upstream
from p2pdist.ids import NodeId
from p2pdist.net.link import Link
from p2pdist.net.memory import open_memory_links
from p2pdist.node.detour import Detour, own_host, swarm_streams
from p2pdist.trust.certificates import parse_certificate
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.detours import SWARM_PATH
from p2pdist.wire.frames import Candidate
from tests.node.nodes import Nodes

POINT = NodeId("p" * 32)
HERE = "127.0.0.1"


@dataclass
class Above:
    """The neighbour above, as a test says."""

    link: Link | None = None

    @property
    def upstream(self) -> Upstream | None:
        return None if self.link is None else Upstream(node=POINT, host=HERE, port=1, kind="point")


class Node:
    """A node with its detour, and the point above it with its swarm."""

    def __init__(self, swarm_port: int) -> None:
        self.swarm_port = swarm_port
        self.above = Above()
        self.changed = trio.Event()
        self.detour = Detour(self.above, HERE, lambda: self.changed.set())

    def way(self, *, port: int, node: NodeId = POINT) -> tuple[str, int]:
        return self.detour.way(
            Candidate(node=node, role="point", host=HERE, port=port, taken=True, reason="same site")
        )


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def detouring(nodes: Nodes) -> AsyncIterator[Node]:
    ours, theirs = (parse_certificate(nodes.certificate(IdentityKey.generate())) for _ in range(2))
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=HERE)
        nursery.start_soon(trio.serve_listeners, echo, listeners)
        node = Node(listeners[0].socket.getsockname()[1])
        streams = {SWARM_PATH: swarm_streams("0.0.0.0", lambda: node.swarm_port)}
        async with open_memory_links(dialler=ours, acceptor=theirs, streams=streams) as (link, _):
            node.above.link = link
            nursery.start_soon(node.detour.run)
            await trio.testing.wait_all_tasks_blocked()
            yield node
            nursery.cancel_scope.cancel()


@pytest.fixture
def closed() -> Iterator[int]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind((HERE, 0))
        yield taken.getsockname()[1]


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A socket that has no room for another connection until it listens anew, as if packets were lost."""
    server = socket.create_server((HERE, 0), backlog=0)
    with server, socket.socket() as first, socket.socket() as second:
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield server


async def found_out(node: Node, port: int) -> tuple[str, int]:
    """Ask for the way until it is another one."""
    assert node.way(port=port) == (HERE, port), "nothing is known yet"
    await node.changed.wait()
    return node.way(port=port)


async def test_a_swarm_that_answers_is_dialled_where_it_is(nodes: Nodes) -> None:
    async with detouring(nodes) as node:
        for _ in range(2):
            assert node.way(port=node.swarm_port) == (HERE, node.swarm_port)
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert not node.changed.is_set()


async def test_one_that_does_not_is_reached_through_the_link(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node:
        way = await found_out(node, closed)
        assert way != (HERE, closed)
        async with await trio.open_tcp_stream(*way) as stream:
            await stream.send_all(b"the swarm's bytes")
            await stream.send_eof()
            assert b"".join([part async for part in stream]) == b"the swarm's bytes"


@pytest.mark.parametrize(
    ("listening", "reached"),
    [
        ("*", HERE),
        ("0.0.0.0", HERE),
        ("::", "::1"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
    ],
)
def test_the_swarm_is_given_an_address_whatever_it_listens_on(listening: str, reached: str) -> None:
    assert own_host(listening) == reached


@pytest.mark.slow
async def test_one_that_answers_late_is_dialled_where_it_is_again(nodes: Nodes, deaf: socket.socket) -> None:
    async with detouring(nodes) as node:
        port = deaf.getsockname()[1]
        assert await found_out(node, port) != (HERE, port)
        node.changed = trio.Event()
        deaf.listen(8)
        await node.changed.wait()
        assert node.way(port=port) == (HERE, port)


async def test_only_the_neighbour_above_is_reached_so(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node:
        await found_out(node, closed)
        assert node.way(port=closed, node=NodeId("q" * 32)) == (HERE, closed)


async def test_with_another_link_it_is_looked_at_again(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node, detouring(nodes) as other:
        await found_out(node, closed)
        node.above.link = other.above.link
        assert node.way(port=closed) == (HERE, closed)


async def test_without_a_link_connections_end(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node:
        way = await found_out(node, closed)
        node.above.link = None
        async with await trio.open_tcp_stream(*way) as stream:
            assert await stream.receive_some() == b""


async def test_where_the_swarm_above_is_gone_too_connections_end(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node:
        way = await found_out(node, closed)
        node.swarm_port = closed
        async with await trio.open_tcp_stream(*way) as stream:
            assert await stream.receive_some() == b""


async def test_many_addresses_are_dialled_where_they_are(nodes: Nodes, closed: int) -> None:
    async with detouring(nodes) as node:
        for port in range(1, 2 * limits.DETOURS_LOOKED_AT_MAX):
            assert node.way(port=port) == (HERE, port)


@pytest.mark.parametrize(
    ("listens", "reached"), [("*", HERE), ("0.0.0.0", HERE), ("::", "::1"), ("192.0.2.1", "192.0.2.1")]
)
def test_what_listens_at_all_addresses_is_reached_at_loopback(listens: str, reached: str) -> None:
    assert own_host(listens) == reached
