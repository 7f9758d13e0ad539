"""The link to the neighbour that carries a node, with real links on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from p2pdist.core.upstream import Upstream
from p2pdist.errors import TrustError, Unavailable
from p2pdist.net.link import Link, open_link, serve_links
from p2pdist.node import uplink
from p2pdist.node.uplink import Uplink
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import AnyFrame, MetadataVersions
from tests.node.nodes import Nodes


class Neighbour:
    """Accepts links, greets each with one frame, and can be switched off."""

    def __init__(self, nodes: Nodes, number: int) -> None:
        self.key = IdentityKey.generate()
        self._nodes = nodes
        self._number = number
        self.port = 0
        self.scope = trio.CancelScope()

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        identity = self._nodes.identity(self.key)
        with trio.CancelScope() as self.scope:
            async with trio.open_nursery() as nursery:
                address = await nursery.start(
                    partial(
                        serve_links,
                        host="127.0.0.1",
                        port=self.port,
                        identity=lambda: identity,
                        requests={},
                        on_link=self._greet,
                        revoked=lambda node: False,
                    )
                )
                self.port = address[1]
                task_status.started()

    def upstream(self, kind: str) -> Upstream:
        return Upstream(
            node=self.key.node,
            host="127.0.0.1",
            port=self.port,
            kind="point" if kind == "point" else "server",
        )

    async def _greet(self, link: Link) -> None:
        await link.send(MetadataVersions(versions={"root": self._number}))
        async for _ in link.frames():
            pass


class Carried:
    """An uplink and what it has seen."""

    def __init__(self, nodes: Nodes) -> None:
        self.identity = identity = nodes.identity(IdentityKey.generate())
        self.greetings, self._seen = trio.open_memory_channel[int](100)
        self.uplink = Uplink(
            identity=lambda: identity,
            spread=0.0,
            local_host=None,
            on_up=self._up,
            on_frame=self._frame,
            on_down=lambda: None,
            while_up=self._beside,
        )

    async def greeted_by(self) -> int:
        with trio.fail_after(20):
            return await self._seen.receive()

    async def _beside(self, link: Link) -> None:
        assert link is self.uplink.link
        await trio.sleep_forever()

    async def _up(self, upstream: Upstream, link: Link) -> None:
        assert self.uplink.upstream == upstream

    async def _frame(self, frame: AnyFrame) -> None:
        assert isinstance(frame, MetadataVersions)
        await self.greetings.send(frame.versions["root"])


@asynccontextmanager
async def running(nodes: Nodes, *neighbours: Neighbour) -> AsyncIterator[tuple[Carried, trio.Nursery]]:
    carried = Carried(nodes)
    async with trio.open_nursery() as nursery:
        for neighbour in neighbours:
            await nursery.start(neighbour.serve)
        nursery.start_soon(carried.uplink.run)
        yield carried, nursery
        nursery.cancel_scope.cancel()


async def test_a_node_links_to_its_best_neighbour(nodes: Nodes) -> None:
    point, server = Neighbour(nodes, 1), Neighbour(nodes, 2)
    async with running(nodes, point, server) as (carried, _):
        carried.uplink.set_candidates([point.upstream("point"), server.upstream("server")])
        assert await carried.greeted_by() == 1


async def test_when_its_point_dies_a_node_moves_to_the_alternative(nodes: Nodes) -> None:
    point, spare = Neighbour(nodes, 1), Neighbour(nodes, 2)
    async with running(nodes, point, spare) as (carried, _):
        carried.uplink.set_candidates([point.upstream("point"), spare.upstream("point")])
        assert await carried.greeted_by() == 1
        point.scope.cancel()
        assert await carried.greeted_by() == 2


@pytest.mark.slow
async def test_a_node_without_points_falls_back_to_the_server_and_returns_to_a_point(nodes: Nodes) -> None:
    point, server = Neighbour(nodes, 1), Neighbour(nodes, 2)
    async with running(nodes, point, server) as (carried, nursery):
        candidates = [point.upstream("point"), server.upstream("server")]
        point.scope.cancel()
        carried.uplink.set_candidates(candidates)
        assert await carried.greeted_by() == 2
        await nursery.start(point.serve)
        carried.uplink.set_candidates(candidates)
        assert await carried.greeted_by() == 1


async def test_between_links_sending_says_so(nodes: Nodes) -> None:
    carried = Carried(nodes)
    assert carried.uplink.link is None
    assert carried.uplink.upstream is None


async def test_a_neighbour_that_is_not_who_was_expected_is_not_believed(nodes: Nodes) -> None:
    liar, honest = Neighbour(nodes, 1), Neighbour(nodes, 2)
    async with running(nodes, liar, honest) as (carried, _):
        expected = Upstream(node=IdentityKey.generate().node, host="127.0.0.1", port=liar.port, kind="point")
        carried.uplink.set_candidates([expected, honest.upstream("point")])
        assert await carried.greeted_by() == 2


class Caller:
    """A neighbour above that dials a node which dials nobody."""

    def __init__(self, nodes: Nodes, name: int) -> None:
        self.key = IdentityKey.generate()
        self.name = name
        self._nodes = nodes

    @property
    def upstream(self) -> Upstream:
        return Upstream(node=self.key.node, host="127.0.0.1", port=9, kind="point")

    @asynccontextmanager
    async def dialled(self, carried: Carried) -> AsyncIterator[tuple[Link, Link]]:
        """Both ends of a link that it has dialled: its own, and the one that the node may be offered."""
        accepted, coming = trio.open_memory_channel[Link](1)

        async def accept(link: Link) -> None:
            await accepted.send(link)
            await link.wait_ended()

        async with trio.open_nursery() as nursery:
            host, port = await nursery.start(
                partial(
                    serve_links,
                    host="127.0.0.1",
                    port=0,
                    identity=lambda: carried.identity,
                    requests={},
                    on_link=accept,
                    revoked=lambda node: False,
                )
            )
            identity = self._nodes.identity(self.key)
            async with open_link(host, port, identity=identity, expect=None) as ours:
                await ours.send(MetadataVersions(versions={"root": self.name}))
                yield ours, await coming.receive()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def being_called(nodes: Nodes, *callers: Caller) -> AsyncIterator[Carried]:
    """A node that dials nobody, and knows these neighbours above, the best first."""
    carried = Carried(nodes)
    carried.uplink.set_dials(False)
    carried.uplink.set_candidates([caller.upstream for caller in callers])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carried.uplink.run)
        yield carried
        nursery.cancel_scope.cancel()


async def test_a_node_that_dials_nobody_takes_the_link_that_it_is_offered(nodes: Nodes) -> None:
    caller = Caller(nodes, 1)
    async with being_called(nodes, caller) as carried, caller.dialled(carried) as (_, offered):
        await carried.uplink.offer(offered)
        assert await carried.greeted_by() == 1
        assert carried.uplink.link is offered


async def test_a_better_neighbour_takes_over_and_a_worse_one_is_told_who_carries_the_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "_REPRIEVE_S", 0.05)
    best, spare = Caller(nodes, 1), Caller(nodes, 2)
    async with (
        being_called(nodes, best, spare) as carried,
        best.dialled(carried) as (_, from_best),
        spare.dialled(carried) as (of_spare, from_spare),
    ):
        await carried.uplink.offer(from_spare)
        assert await carried.greeted_by() == 2
        await carried.uplink.offer(from_best)
        assert await carried.greeted_by() == 1
        with trio.fail_after(20):
            await of_spare.wait_ended()
        async with spare.dialled(carried) as (_, again):
            with pytest.raises(Unavailable, match=f"{best.key.node} carries this node"):
                await carried.uplink.offer(again)


async def test_who_waits_in_reserve_takes_over_the_moment_that_the_better_one_is_gone(nodes: Nodes) -> None:
    best, spare = Caller(nodes, 1), Caller(nodes, 2)
    async with (
        being_called(nodes, best, spare) as carried,
        best.dialled(carried) as (of_best, from_best),
        spare.dialled(carried) as (_, from_spare),
        trio.open_nursery() as nursery,
    ):
        await carried.uplink.offer(from_best)
        assert await carried.greeted_by() == 1
        nursery.start_soon(carried.uplink.offer, from_spare)
        of_best.abort("for the test")
        assert await carried.greeted_by() == 2


async def test_a_newer_link_of_the_same_neighbour_takes_over(nodes: Nodes) -> None:
    caller = Caller(nodes, 1)
    async with (
        being_called(nodes, caller) as carried,
        caller.dialled(carried) as (_, first),
        caller.dialled(carried) as (_, second),
    ):
        await carried.uplink.offer(first)
        assert await carried.greeted_by() == 1
        await carried.uplink.offer(second)
        assert await carried.greeted_by() == 1
        assert carried.uplink.link is second


async def test_somebody_who_is_not_above_by_signed_grants_is_refused(nodes: Nodes) -> None:
    caller, stranger = Caller(nodes, 1), Caller(nodes, 2)
    async with being_called(nodes, caller) as carried, stranger.dialled(carried) as (_, offered):
        with pytest.raises(TrustError, match="not above this node"):
            await carried.uplink.offer(offered)


async def test_a_node_that_learns_that_it_is_dialled_ends_the_link_that_it_has_dialled(nodes: Nodes) -> None:
    point = Neighbour(nodes, 1)
    async with running(nodes, point) as (carried, _):
        carried.uplink.set_candidates([point.upstream("point")])
        assert await carried.greeted_by() == 1
        link = carried.uplink.link
        assert link is not None
        assert carried.uplink.set_dials(False)
        with trio.fail_after(20):
            await link.wait_ended()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert carried.uplink.link is None
