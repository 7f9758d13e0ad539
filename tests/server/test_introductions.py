"""What the admin server does so that devices attached to it exchange content, and get it at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from serverkit import PATIENCE_S, Fleet, TestDevice, enrolled_device, next_frame, open_fleet

from p2pdist.ids import InfoHash, NodeId
from p2pdist.net.link import Link
from p2pdist.wire.detours import SWARM_PATH, SwarmOpening
from p2pdist.wire.frames import Announce, AnyFrame, Candidate, Endpoint, Observe, Presence, Sources

pytestmark = pytest.mark.slow  # a whole server

TLS_ALERT = 21


@dataclass
class Neighbour:
    """A device behind the same NAT as the other one."""

    device: TestDevice
    link: Link
    frames: AsyncIterator[AnyFrame]

    async def announce(self, info_hash: InfoHash, *unreached: NodeId) -> None:
        """Say that it lacks an artifact, and which sources it does not reach."""
        lacking = Presence(info_hash=info_hash, have=0, pieces=4, complete=False, unreached=list(unreached))
        own = [Endpoint(host="192.168.1.10", port=7000)]
        await self.link.send(Announce(role="device", port=7000, artifacts=[lacking], endpoints=own))

    async def told(self, *, of: int) -> dict[str, Candidate]:
        """Return the next decision with so many candidates, by node."""
        while len((sources := await next_frame(self.frames, Sources)).candidates) != of:
            pass
        return {candidate.node: candidate for candidate in sources.candidates}


@asynccontextmanager
async def neighbours(fleet: Fleet) -> AsyncIterator[tuple[InfoHash, Neighbour, Neighbour]]:
    made = fleet.publisher.add_release("1.0", bytes(1_000))
    await fleet.operator.publish(fleet.publisher)
    first, second = await enrolled_device(fleet), await enrolled_device(fleet)
    async with first.attached() as one, second.attached() as other:
        yield (
            made.info_hash,
            Neighbour(first, one, one.frames()),
            Neighbour(second, other, other.frames()),
        )


async def test_of_two_neighbours_behind_a_nat_one_fetches_from_the_origin_until_it_is_gone(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet, neighbours(fleet) as (info_hash, first, second):
        origin = fleet.service.home.key.node
        await first.announce(info_hash)
        assert (await first.told(of=1))[origin].taken
        await second.announce(info_hash)
        told = await second.told(of=2)
        assert not told[origin].taken
        assert (told[first.device.node].taken, told[first.device.node].host) == (True, "192.168.1.10")
        await first.link.aclose()
        assert (await second.told(of=1))[origin].taken


async def test_two_that_do_not_see_each_other_are_asked_to_show_themselves_to_the_observers(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet, neighbours(fleet) as (info_hash, first, second):
        await first.announce(info_hash)
        await second.announce(info_hash, first.device.node)
        for each in (first, second):
            asked = await next_frame(each.frames, Observe)
            assert asked.info_hash == info_hash
            assert len({observer.port for observer in asked.observers}) == 2


async def test_a_stream_of_a_link_leads_to_the_origins_swarm(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet, neighbours(fleet) as (_, first, _):
        with trio.fail_after(PATIENCE_S):
            async with first.link.open_stream(SWARM_PATH, SwarmOpening()) as stream:
                await stream.send_all(b"no TLS at all")
                await stream.send_eof()
                assert (await stream.receive_some())[0] == TLS_ALERT, "the swarm takes nobody without TLS"
