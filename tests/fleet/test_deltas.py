"""Releases by deltas: who has an older one fetches the difference, and everybody has the same in the end."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fleet_logs import LogBook
from fleet_processes import Processes
from fleet_programs import DEVICES
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet

from p2pdist.store import content

pytestmark = pytest.mark.slow  # whole fleets and their timers: not in the fast subset

SIZE = 1_500_000
CHANGED = 100_000


async def second_release(fleet: Fleet, first: SignedRelease) -> SignedRelease:
    """Sign, publish and deploy a release of which all but a part is as it was, with its delta."""
    fresh = random.Random(2).randbytes(CHANGED)
    changed = first.content[:500_000] + fresh + first.content[500_000 + CHANGED :]
    release = fleet.signing.release("2.0", sequence=2, content=changed, bases=[first])
    await fleet.publish()
    await fleet.server.deploy(release.target, DEVICES)
    return release


async def received(fleet: Fleet, node: Node, release: SignedRelease) -> tuple[int, int]:
    """Content bytes that a node says to have received of a release: of its artifact, of its delta."""
    found = []
    for info_hash in (release.info_hash, *release.deltas):
        _, sources = await fleet.store.read(content.find_content, node.node, info_hash)
        found.append(sum(source.received for source in sources))
    whole, delta = found
    return whole, delta


async def reason(fleet: Fleet, node: Node, release: SignedRelease) -> str:
    return (await fleet.progress(release))[node.name].reason


async def test_devices_that_have_the_release_before_fetch_the_delta_and_a_new_one_fetches_the_whole(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=2) as fleet:
        (point,) = fleet.points
        old = list(fleet.devices)
        first = await fleet.release(size=SIZE)
        await fleet.until_reported(first)
        second = await second_release(fleet, first)
        await fleet.until_reported(second)
        assert {device.installed() for device in old} == {second.content}
        for device in old:

            async def counted(device: Node = device) -> bool:
                whole, delta = await received(fleet, device, second)
                return whole == 0 and CHANGED <= delta < 2 * CHANGED

            await fleet.until(counted, f"{device.name} says that it fetched the delta and nothing else")
            said = await reason(fleet, device, second)
            assert said.startswith("by a delta of 10") and said.endswith("instead of 1500000")
        new = await fleet.add_device()
        await fleet.until_reported(second, nodes=[new])
        assert new.installed() == second.content
        assert await reason(fleet, new, second) == ""
        assert point.has_artifact(second)
        assert (await received(fleet, point, second))[0] == 0  # it had the release before, too
        assert not any(device.has_artifact(first) for device in old)  # replaced by what is installed now


async def test_a_device_whose_older_artifact_was_altered_fetches_the_whole_and_reports_why(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (device,) = fleet.devices
        first = await fleet.release(size=SIZE)
        await fleet.until_reported(first)
        with (device.home / "artifacts" / first.info_hash).open("r+b") as file:
            file.write(b"altered ")
        second = await second_release(fleet, first)
        await fleet.until_reported(second)
        assert device.installed() == second.content
        said = await reason(fleet, device, second)
        assert said.startswith("fetched whole, the delta was not used: ") and "not what was signed" in said
        assert log_book.find("delta.not_used", who=device.name)


async def test_a_device_killed_on_the_way_to_a_delta_and_right_after_it_installs_the_release(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        (device,) = fleet.devices
        first = await fleet.release(size=SIZE)
        await fleet.until_reported(first)
        second = await second_release(fleet, first)
        for event in ("delta.fetching", "delta.applied"):
            await fleet.until_logged(event, who=device)
            await device.program.kill()
            await device.program.start()
        await fleet.until_reported(second)
        assert device.installed() == second.content
        assert list((device.home / "state" / "deltas").iterdir()) == []
