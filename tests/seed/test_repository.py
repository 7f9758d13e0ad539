"""A point's content, as work about it sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist.errors import Unavailable
from p2pdist.ids import ChannelName, InfoHash, ProductName, TargetPath
from p2pdist.node.mirrorsettings import MirrorSettings
from p2pdist.seed.repository import StockRepository
from p2pdist.trust.catalog import FileRecipe, Mirror, Release


def release(version: int) -> Release:
    return Release(
        target=TargetPath(f"stable/app/{version}/app.bin"),
        channel=ChannelName("stable"),
        product=ProductName("app"),
        version=str(version),
        sequence=version,
        platform="any",
        length=1,
        sha256="0" * 64,
        info_hash=InfoHash(f"{version:064}"),
        recipe=FileRecipe(path="/opt/app"),
        mirrors=(Mirror(url="https://vendor.example/app"),),
    )


OLD, NEW = release(1), release(2)


def repository(*prefetch: Release) -> tuple[StockRepository, Any]:
    """A repository that knows the older release, of a point that is to hold *prefetch*."""
    member: Any = SimpleNamespace(
        metadata=SimpleNamespace(catalog=SimpleNamespace(releases={OLD.target: OLD}), newer=trio.Event()),
        desired=SimpleNamespace(prefetch=[each.target for each in prefetch]),
        content=SimpleNamespace(statistics=lambda info_hash: None),
    )
    stock: Any = SimpleNamespace(refused={OLD.info_hash: "its quota is full"})
    return StockRepository(member, stock, MirrorSettings()), member


async def test_a_pattern_waits_for_the_release_that_the_server_has_found_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    own, member = repository(NEW)

    async def arrive() -> None:
        await trio.sleep(3)
        member.metadata.catalog.releases[NEW.target] = NEW
        before, member.metadata.newer = member.metadata.newer, trio.Event()
        before.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(arrive)
        assert (await own.choose(["stable/app/*"])).releases == (NEW,)


async def test_what_does_not_come_is_not_waited_for_long(autojump_clock: trio.testing.MockClock) -> None:
    own, _ = repository()
    assert (await own.choose(["stable/app/*"])).releases == (OLD,)
    assert trio.current_time() < 1
    assert (await own.choose([NEW.target])).unknown == (NEW.target,)
    assert trio.current_time() > 1


async def test_what_has_no_room_is_refused_at_once_with_the_reason() -> None:
    own, _ = repository(OLD)
    with pytest.raises(Unavailable, match="its quota is full"):
        async with own.open(OLD):
            pass
