"""What a gateway tells the neighbour above of those below, and the gateways below of its own way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.seed.gateway import Gateway
from p2pdist.wire.frames import AnyFrame, Attached, Way

SERVER, G, H, D, E = (NodeId(letter * 32) for letter in "sghde")


class FakeLink:
    """A link's end that keeps what is sent on it."""

    def __init__(self) -> None:
        self.frames: list[AnyFrame] = []
        self.full = False
        self.aborted = ""

    async def send(self, frame: AnyFrame) -> None:
        await trio.lowlevel.checkpoint()
        self.frames.append(frame)

    def send_nowait(self, frame: AnyFrame) -> None:
        if self.full:
            raise Unavailable("it does not read fast enough")
        self.frames.append(frame)

    def abort(self, reason: str) -> None:
        self.aborted = reason


class Site:
    """A gateway and its links."""

    def __init__(self) -> None:
        self.links: dict[NodeId, Any] = {}
        self.moved: list[NodeId] = []
        self.gateway = Gateway(G, self.links, self.moved.append)

    def attach(self, node: NodeId, stamp: int) -> FakeLink:
        link = self.links[node] = FakeLink()
        self.gateway.arrived(node, stamp)
        return link

    async def linked(self, link: FakeLink) -> None:
        await self.gateway.linked(link)  # type: ignore[arg-type]  # all that is used of it


@asynccontextmanager
async def running() -> AsyncIterator[Site]:
    site = Site()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.gateway.run)
        yield site
        nursery.cancel_scope.cancel()


async def test_a_new_neighbour_above_hears_everything_and_then_only_what_changes(autojump_clock: Any) -> None:
    async with running() as site:
        site.attach(D, 5)
        above = FakeLink()
        await site.linked(above)
        await trio.sleep(1)
        assert above.frames == [Attached(carrier=G, nodes={D: 5})]
        site.attach(E, 6)
        await trio.sleep(1)
        del site.links[D]
        site.gateway.gone(D)
        await trio.sleep(1)
        assert above.frames[1:] == [
            Attached(carrier=G, nodes={E: 6}),
            Attached(carrier=G, nodes={}, gone=[D]),
        ]
        site.gateway.unlinked()
        after = FakeLink()
        await site.linked(after)
        assert after.frames == [Attached(carrier=G, nodes={E: 6})]


async def test_a_site_that_comes_back_at_once_is_told_of_in_few_frames(autojump_clock: Any) -> None:
    async with running() as site:
        above = FakeLink()
        await site.linked(above)
        for number in range(100):
            site.attach(NodeId(f"{number:032b}".replace("0", "a").replace("1", "b")), number + 1)
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert len(above.frames) <= 2


async def test_what_a_gateway_below_says_is_passed_on_and_what_a_device_says_is_not() -> None:
    site = Site()
    site.attach(H, 1)
    site.attach(D, 2)
    site.gateway.welcome(H)
    site.gateway.heard(H, Attached(carrier=H, nodes={E: 7}))
    site.gateway.heard(D, Attached(carrier=D, nodes={SERVER: 7}))
    assert site.gateway.next_hop(E) == H
    assert site.gateway.next_hop(SERVER) is None
    above = FakeLink()
    await site.linked(above)
    assert above.frames == [Attached(carrier=G, nodes={H: 1, D: 2}), Attached(carrier=H, nodes={E: 7})]
    assert E in site.moved


def test_gateways_below_are_told_every_way_and_devices_none() -> None:
    site = Site()
    below, device = site.attach(H, 1), site.attach(D, 2)
    site.gateway.welcome(H)
    site.gateway.stands(Way(nodes=[SERVER]))
    site.gateway.unlinked()
    assert below.frames == [Way(nodes=[]), Way(nodes=[G, SERVER]), Way(nodes=[])]
    assert device.frames == []


def test_a_way_that_leads_over_this_gateway_is_left_and_those_below_hear_that_there_is_none() -> None:
    site = Site()
    below = site.attach(H, 1)
    site.gateway.welcome(H)
    site.gateway.stands(Way(nodes=[E, SERVER]))
    with pytest.raises(TrustError, match=f"a loop of gateways: {G} → {E} → {H} → {G}"):
        site.gateway.stands(Way(nodes=[E, H, G, SERVER]))
    assert below.frames[-1] == Way(nodes=[])


def test_a_gateway_that_cannot_be_told_of_a_way_loses_its_link() -> None:
    site = Site()
    below = site.attach(H, 1)
    below.full = True
    site.gateway.welcome(H)
    assert "fast enough" in below.aborted
