"""What no signed release names any more goes some time later; what somebody needs stays."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio
from serverkit import Fleet, Publisher, open_fleet

from p2pdist.ids import InfoHash
from p2pdist.server.withdrawn import named_artifacts
from p2pdist.swarm.torrents import MadeTorrent
from p2pdist.wire import api as wire
from p2pdist.wire.requests import Bundle

pytestmark = pytest.mark.slow  # a whole server: not in the fast subset

DAY_S = 24 * 3_600
OLD, NEW = b"old" * 50_000, b"new" * 50_000


async def collect(fleet: Fleet, *, days: float) -> None:
    """Look as the server does, so many days from now."""
    named = named_artifacts(fleet.service.repository.export({}))
    assert named is not None
    await fleet.service.withdrawn.collect(named, int(time.time() + days * DAY_S))


async def withdrawn(fleet: Fleet) -> tuple[MadeTorrent, MadeTorrent]:
    """A release that was published and is no more, and one that is."""
    publisher = fleet.publisher
    old = publisher.add_release("1.0", OLD)
    await fleet.operator.publish(publisher)
    forget(publisher, "1.0", old)
    new = publisher.add_release("2.0", NEW, sequence=2)
    await fleet.operator.publish(publisher)
    return old, new


def forget(publisher: Publisher, version: str, made: MadeTorrent) -> None:
    del publisher.channel[f"stable/app/{version}/app.bin"]
    del publisher.torrents[made.info_hash], publisher.artifacts[made.info_hash]


def here(fleet: Fleet, made: MadeTorrent) -> tuple[bool, bool]:
    home = fleet.service.home
    return home.artifact(made.info_hash).exists(), home.torrent(made.info_hash).exists()


async def test_withdrawn_content_is_shown_kept_for_a_while_and_then_removed(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        old, new = await withdrawn(fleet)
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert status.withdrawn_bytes == len(OLD)
        await collect(fleet, days=6.9)
        assert here(fleet, old) == (True, True)
        await collect(fleet, days=7.1)
        assert here(fleet, old) == (False, False)
        assert here(fleet, new) == (True, True)
        status = await fleet.operator.ask("GET", "/status", wire.Status)
        assert status.withdrawn_bytes == 0


async def test_what_was_removed_can_be_published_again(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        await withdrawn(fleet)
        await collect(fleet, days=8)
        again = fleet.publisher.add_release("1.0", OLD, sequence=3)
        assert (await fleet.operator.publish(fleet.publisher)).releases == 2
        assert here(fleet, again) == (True, True)
        assert (await fleet.operator.ask("GET", "/status", wire.Status)).withdrawn_bytes == 0


@pytest.mark.parametrize("lost", ["artifact", "torrent"])
async def test_killed_between_two_removals_the_rest_goes_or_comes_back(tmp_path: Path, lost: str) -> None:
    async with open_fleet(tmp_path) as fleet:
        old, _ = await withdrawn(fleet)
        getattr(fleet.service.home, lost)(old.info_hash).unlink()
        fleet.publisher.add_release("1.0", OLD, sequence=3)
        assert (await fleet.operator.publish(fleet.publisher)).releases == 2
        forget(fleet.publisher, "1.0", old)
        await fleet.operator.publish(fleet.publisher)
        getattr(fleet.service.home, lost)(old.info_hash).unlink()
        await collect(fleet, days=8)
        assert here(fleet, old) == (False, False)


async def test_what_somebody_asks_for_before_publishing_is_kept_for_longer(
    tmp_path: Path,
) -> None:
    async with open_fleet(tmp_path) as fleet:
        old, _ = await withdrawn(fleet)
        state = await fleet.operator.ask("GET", f"/artifacts/{old.info_hash}", wire.ArtifactState)
        assert state.complete
        await collect(fleet, days=7.1)
        assert here(fleet, old) == (True, True)
        await collect(fleet, days=14.2)
        assert here(fleet, old) == (False, False)


async def test_an_upload_under_way_keeps_its_part_and_one_that_was_given_up_does_not(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        await withdrawn(fleet)
        info_hash = InfoHash("ab" * 32)
        part = fleet.service.uploads.part(info_hash)
        started, go_on = trio.Event(), trio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"x" * 2_000_000
            started.set()
            await go_on.wait()
            yield b"y"

        async def upload() -> None:
            async with aclosing(slow()) as chunks:
                await fleet.service.uploads.receive(
                    info_hash, chunks, offset=0, length=3_000_000, sha256="0" * 64, now=0
                )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(upload)
            await started.wait()
            os.utime(part, (0, 0))
            await collect(fleet, days=0)
            assert part.exists()
            go_on.set()
        await collect(fleet, days=0)
        assert part.stat().st_size == 2_000_001
        await collect(fleet, days=8)
        assert not part.exists()


async def test_content_that_was_uploaded_and_never_published_goes_too(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", OLD)
        await fleet.operator.publish(fleet.publisher)
        early = fleet.publisher.add_release("2.0", NEW)
        await fleet.operator.upload(early, NEW)
        stray = fleet.service.home.artifact(InfoHash("cd" * 32))
        stray.write_bytes(b"left by a crash before it was recorded")
        await collect(fleet, days=0)
        assert here(fleet, early)[0] and stray.exists()
        await collect(fleet, days=8)
        assert not here(fleet, early)[0] and not stray.exists()
        assert here(fleet, made) == (True, True)


async def test_a_delta_stays_with_its_release_and_goes_with_it(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        publisher = fleet.publisher
        old, new = publisher.add_release("1.0", OLD), publisher.add_release("2.0", NEW, sequence=2)
        delta = publisher.add_delta(old, "2.0", b"delta" * 1_000)
        await fleet.operator.publish(publisher)
        shown = await fleet.operator.ask("GET", "/releases/app@2.0", wire.ReleaseInfo)
        assert [(d.base, d.info_hash, d.length) for d in shown.deltas] == [
            (old.info_hash, delta.info_hash, 5_000)
        ]
        assert delta.info_hash in {presence.info_hash for presence in fleet.service.origin.presences()}
        await collect(fleet, days=0)
        await collect(fleet, days=8)
        assert here(fleet, delta) == (True, True)
        forget(publisher, "2.0", new)
        del publisher.torrents[delta.info_hash], publisher.artifacts[delta.info_hash]
        await fleet.operator.publish(publisher)
        assert delta.info_hash not in {presence.info_hash for presence in fleet.service.origin.presences()}
        await collect(fleet, days=8)
        assert here(fleet, delta) == (False, False)


async def test_a_publication_without_the_content_of_a_delta_is_refused(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        publisher = fleet.publisher
        old = publisher.add_release("1.0", OLD)
        publisher.add_release("2.0", NEW, sequence=2)
        delta = publisher.add_delta(old, "2.0", b"delta" * 1_000)
        del publisher.artifacts[delta.info_hash]
        with pytest.raises(AssertionError, match="is not at the server"):
            await fleet.operator.publish(publisher)


async def test_nothing_is_removed_where_a_signed_file_cannot_be_read(tmp_path: Path) -> None:
    async with open_fleet(tmp_path) as fleet:
        made = fleet.publisher.add_release("1.0", OLD)
        await fleet.operator.publish(fleet.publisher)
        bundle = fleet.service.repository.export({})
        assert named_artifacts(bundle) == {made.info_hash}
        files = {name: data for name, data in bundle.files.items() if "channel-stable" not in name}
        assert named_artifacts(Bundle(files=files)) is None
        assert named_artifacts(Bundle(files={})) is None
