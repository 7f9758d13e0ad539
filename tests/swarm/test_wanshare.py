"""One limit of the WAN for mirrors and for peers."""

from __future__ import annotations

import trio
import trio.testing

from p2pdist.swarm.wanshare import WanShare
from p2pdist.wire.messages import RateLimits

LIMIT = 1_000_000


class Case:
    def __init__(self) -> None:
        self.peers: list[RateLimits] = []
        self.share = WanShare(self.peers.append)
        self.passed = 0

    async def pass_bytes(self, seconds: float, *, tasks: int = 8) -> None:
        """As many tasks as there are requests, each as fast as it is let."""

        async def one() -> None:
            while True:
                await self.share.pass_bytes(65_536)
                self.passed += 65_536
                await trio.sleep(0.001)

        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(one)


async def test_mirrors_get_nine_tenths_of_the_limit_however_many_are_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    case = Case()
    case.share.set_rates(RateLimits(wan_down=LIMIT))
    with case.share.reading():
        await case.pass_bytes(20)
        assert 0.85 * LIMIT < case.passed / 20 < 0.95 * LIMIT
        assert LIMIT // 10 <= case.peers[-1].wan_down < 0.3 * LIMIT


async def test_without_a_limit_nothing_waits(autojump_clock: trio.testing.MockClock) -> None:
    case = Case()
    with case.share.reading():
        await case.pass_bytes(0.5)
    assert case.passed > 100 * 65_536
    assert all(rates.wan_down == 0 for rates in case.peers)


async def test_peers_get_what_mirrors_do_not_take(autojump_clock: trio.testing.MockClock) -> None:
    case = Case()
    case.share.set_rates(RateLimits(wan_down=LIMIT, wan_up=5, site_down=7))
    with case.share.reading():
        for _ in range(40):
            await case.share.pass_bytes(25_000)
            await trio.sleep(0.1)
        assert 0.7 * LIMIT < case.peers[-1].wan_down < 0.8 * LIMIT
        assert (case.peers[-1].wan_up, case.peers[-1].site_down) == (5, 7)


async def test_when_nothing_is_read_any_more_peers_have_the_whole_limit(
    autojump_clock: trio.testing.MockClock,
) -> None:
    case = Case()
    with case.share.reading():
        with case.share.reading():
            await case.pass_bytes(3)
        case.share.set_rates(RateLimits(wan_down=LIMIT))
        await case.pass_bytes(3)
        assert case.peers[-1].wan_down < LIMIT
    assert case.peers[-1].wan_down == LIMIT
