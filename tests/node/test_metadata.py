"""What a node believes as time passes, on a clock that jumps and can be set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from workshop import Workshop, grant_custom, now

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.node import metadata as metadata_module
from p2pdist.node.metadata import Metadata
from p2pdist.trust.catalog import Catalog
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.messages import Refusal
from p2pdist.wire.requests import Bundle, BundleRequest

APP = "stable/app/1.0/app.bin"
NODE = IdentityKey.generate().node


class WallClock:
    """Runs with trio's clock, and can be set."""

    def __init__(self) -> None:
        self._began = now().timestamp() - trio.current_time()

    def __call__(self) -> float:
        return self._began + trio.current_time()

    def set_ahead(self, step: timedelta) -> None:
        self._began += step.total_seconds()


class Knower:
    """A node's metadata, which its neighbour has told once."""

    def __init__(self, directory: Path, workshop: Workshop) -> None:
        self.workshop = workshop
        self.clock = WallClock()
        self.verifier = Verifier(directory, workshop.roots[0])
        self.metadata = Metadata(self.verifier, self._ask, self._refuse, unix_clock=self.clock)

    @property
    def catalog(self) -> Catalog | None:
        return self.metadata.catalog

    async def changed(self) -> Catalog | None:
        """Wait until something in what is believed has changed; return what it is then."""
        await self.metadata.newer.wait()
        return self.metadata.catalog

    async def _ask(self, request: BundleRequest) -> Bundle:
        return self.workshop.bundle()

    async def _refuse(self, refusal: Refusal) -> None:
        raise AssertionError(refusal)


@asynccontextmanager
async def knowing(directory: Path, workshop: Workshop) -> AsyncIterator[Knower]:
    workshop.sign()
    one = Knower(directory, workshop)
    one.verifier.update(workshop.bundle(), now=now())
    await one.metadata.load()
    assert one.catalog is not None
    assert not one.catalog.stale
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.metadata.follow_time)
        yield one
        nursery.cancel_scope.cancel()


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def test_a_running_node_believes_its_metadata_for_no_longer_than_its_timestamp_lives(
    tmp_path: Path, autojump_clock: Any
) -> None:
    workshop = Workshop()
    async with knowing(tmp_path, workshop) as one:
        stale = await one.changed()
        assert (
            workshop.timestamp.expires
            <= moment(one.clock())
            <= workshop.timestamp.expires + timedelta(seconds=2)
        )
        assert stale is not None
        assert stale.stale
        assert APP in stale.releases


async def test_a_running_node_believes_nothing_once_what_people_signed_has_expired(
    tmp_path: Path, autojump_clock: Any
) -> None:
    workshop = Workshop()
    workshop.targets["targets"].expires = workshop.later(3)
    async with knowing(tmp_path, workshop) as one:
        assert (await one.changed()) is not None
        assert (await one.changed()) is None
        assert moment(one.clock()) >= workshop.targets["targets"].expires


async def test_a_grant_that_expires_is_news(tmp_path: Path, autojump_clock: Any) -> None:
    workshop = Workshop()
    expires = int(now().timestamp()) + 600
    workshop.add_grant(f"points/{NODE}.grant", grant_custom(NODE, expires=expires))
    async with knowing(tmp_path, workshop) as one:
        before = one.catalog
        assert await one.changed() is before
        assert expires <= one.clock() <= expires + 2


async def test_a_clock_that_is_set_ahead_ends_what_has_expired_by_it(
    tmp_path: Path, autojump_clock: Any
) -> None:
    async with knowing(tmp_path, Workshop()) as one:
        await trio.sleep(100)
        one.clock.set_ahead(timedelta(days=2))
        started = trio.current_time()
        stale = await one.changed()
        assert stale is not None
        assert stale.stale
        assert trio.current_time() - started <= 31


async def test_a_clock_that_is_set_right_again_makes_what_was_fresh_fresh_again(
    tmp_path: Path, autojump_clock: Any
) -> None:
    async with knowing(tmp_path, Workshop()) as one:
        await trio.sleep(100)
        one.clock.set_ahead(timedelta(days=400))
        assert await one.changed() is None
        one.clock.set_ahead(timedelta(days=-400))
        catalog = await one.changed()
        assert catalog is not None
        assert not catalog.stale


async def test_a_newer_timestamp_makes_it_fresh_again(tmp_path: Path, autojump_clock: Any) -> None:
    workshop = Workshop()
    async with knowing(tmp_path, workshop) as one, trio.open_nursery() as nursery:
        stale = await one.changed()
        assert stale is not None
        assert stale.stale
        workshop.timestamp.expires += timedelta(days=1)
        workshop.sign()
        nursery.start_soon(lambda: one.metadata.run(relayed=lambda: False))
        one.metadata.offer({})
        catalog = await one.changed()
        assert catalog is not None
        assert not catalog.stale
        nursery.cancel_scope.cancel()


async def test_a_node_that_starts_with_stale_metadata_knows_it_as_such(tmp_path: Path) -> None:
    workshop = Workshop()
    workshop.timestamp.expires = workshop.later(0.5)
    workshop.sign()
    one = Knower(tmp_path, workshop)
    one.verifier.update(workshop.bundle(), now=now())
    one.clock.set_ahead(timedelta(days=1))
    await one.metadata.load()
    assert one.catalog is not None
    assert one.catalog.stale


async def test_metadata_that_cannot_be_read_when_it_expires_counts_as_stale_and_is_read_again_soon(
    tmp_path: Path, autojump_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with knowing(tmp_path, Workshop()) as one:
        recall, failures = one.verifier.recall, []

        def fail(*, now: datetime) -> Catalog | None:
            failures.append(now)
            if len(failures) < 3:
                raise Unavailable("the disk is full")
            return recall(now=now)

        monkeypatch.setattr(one.verifier, "recall", fail)
        stale = await one.changed()
        assert stale is not None
        assert stale.stale
        while one.catalog is not None and one.catalog.expires < one.clock() + 3_600:
            await one.changed()
        assert len(failures) == 3
        assert failures[2] - failures[0] <= timedelta(seconds=65)


async def test_neighbours_that_lack_the_same_are_answered_from_memory_until_there_is_something_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop()
    async with knowing(tmp_path, workshop) as one:
        read: list[Any] = []
        export = one.verifier.export
        monkeypatch.setattr(one.verifier, "export", lambda have: read.append(have) or export(have))
        first = await one.metadata.export({})
        assert await one.metadata.export({}) == first
        assert len(read) == 1
        workshop.sign()
        one.verifier.update(workshop.bundle(), now=now())
        await one.metadata.load()
        assert await one.metadata.export({}) != first
        assert len(read) == 2


async def test_a_neighbour_with_many_different_versions_does_not_fill_the_memory(tmp_path: Path) -> None:
    async with knowing(tmp_path, Workshop()) as one:
        for number in range(3 * limits.EXPORTS_KEPT_MAX):
            await one.metadata.export({"stable": number})
        assert len(one.metadata._exports) <= limits.EXPORTS_KEPT_MAX


async def test_what_was_offered_is_asked_for_until_the_neighbour_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_module, "_AGAIN_FIRST_S", 0.02)
    workshop = Workshop()
    workshop.sign()
    one = Knower(tmp_path, workshop)
    answers = [Bundle(files={}), Bundle(files={}), workshop.bundle()]
    asked: list[bool] = []

    async def ask(request: BundleRequest) -> Bundle:
        asked.append(request.relay)
        return answers.pop(0)

    metadata = Metadata(one.verifier, ask, one._refuse, unix_clock=one.clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(metadata.run, relayed=lambda: True))
        newer = metadata.newer
        metadata.offer({"timestamp": 1})
        with trio.fail_after(60):
            await newer.wait()
        nursery.cancel_scope.cancel()
    assert metadata.catalog is not None
    assert asked == [False, True, False]
