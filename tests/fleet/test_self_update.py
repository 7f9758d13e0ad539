"""The agent replaces itself: a release of it goes through the ordinary channel, and stays if it reports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from fleet_guarded import FIRST, GuardedDevices, GuardedProgram, version
from fleet_logs import LogBook
from fleet_programs import DEVICES
from fleet_signing import SignedRelease
from harness import Fleet, Node, open_fleet

pytestmark = pytest.mark.slow  # real processes, which start several times

MUTE = """
from p2pdist.node.reports import Heart
async def say_nothing(self):
    pass
Heart.beat = say_nothing
"""
AFTER = """
import os
import time
while 'run' in sys.argv and not os.path.exists("{file}"):
    time.sleep(0.05)
"""
CRASH = "if 'run' in sys.argv: sys.exit(3)"
LONG_S = 600
SHORT_S = 5  # half a second


@asynccontextmanager
async def one_device(directory: Path, log: LogBook, *, points: int = 0) -> AsyncIterator[tuple[Fleet, Node]]:
    form = partial(GuardedDevices, log=log)
    async with open_fleet(directory, log, points=points, devices=1, form=form) as fleet:
        yield fleet, fleet.devices[0]


def program_of(device: Node) -> GuardedProgram:
    assert isinstance(device.program, GuardedProgram)
    return device.program


async def order(fleet: Fleet, content: bytes, *, within_s: int = LONG_S) -> SignedRelease:
    """Sign a version of the agent, publish it, and deploy it to all devices."""
    recipe = {"kind": "agent", "timeout_s": within_s}
    release = fleet.signing.release(
        "2.0.0", sequence=2, product="p2pdist-agent", content=content, recipe=recipe
    )
    await fleet.publish()
    await fleet.server.deploy(release.target, DEVICES)
    return release


async def reported(fleet: Fleet, release: SignedRelease, device: Node, stage: str) -> str:
    """Wait for a report of this stage; return its reason."""
    await fleet.until_reported(release, stage)
    return (await fleet.progress(release))[device.name].reason


async def until_it_runs(fleet: Fleet, device: Node, number: str) -> None:
    async def runs() -> bool:
        return (await fleet.device(device)).program == f"p2pdist {number}"

    await fleet.until(runs, f"the admin server hears of {number}")


async def test_a_version_that_reports_through_a_point_stays(tmp_path: Path, log_book: LogBook) -> None:
    async with one_device(tmp_path, log_book, points=1) as (fleet, device):
        program = program_of(device)
        await until_it_runs(fleet, device, FIRST)
        before = program.agents()
        release = await order(fleet, version("2.0.0") + b"#" * 2_000_000)
        assert await reported(fleet, release, device, "installed") == ""
        await until_it_runs(fleet, device, "2.0.0")
        assert program.agents() != before and program.running
        assert not program.on_trial
        assert (program.place / "p2pdist-agent").read_bytes() == release.content
        assert len(program.versions) == 2, "the one before stays, to go back to by hand"
        assert (await fleet.received(release))["device", "point"] < 1.1 * len(release.content)


@pytest.mark.parametrize(
    ("before", "within_s", "why"),
    [
        (MUTE, SHORT_S, "it ran for 5 s, and the admin server did not hear of it"),
        (
            CRASH,
            LONG_S,
            "it ended 3 times before the admin server heard of it, the last time with exit code 3",
        ),
    ],
    ids=["runs and says nothing", "ends at once"],
)
async def test_one_that_does_not_report_makes_way_for_the_one_before_which_says_why(
    tmp_path: Path, log_book: LogBook, before: str, within_s: int, why: str
) -> None:
    async with one_device(tmp_path, log_book) as (fleet, device):
        program = program_of(device)
        release = await order(fleet, version("2.0.0", before), within_s=within_s)
        reason = await reported(fleet, release, device, "failed")
        assert reason == f"the new version did not report back: {why}"
        await until_it_runs(fleet, device, FIRST)
        assert [path.read_bytes() for path in program.versions] == [version(FIRST)]
        assert not list(program.place.glob("trial*"))


async def test_one_whose_trial_fell_into_an_outage_is_tried_again_after_it(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with one_device(tmp_path, log_book) as (fleet, device):
        program = program_of(device)
        gone = tmp_path / "the server is away"
        release = await order(fleet, version("2.0.0", AFTER.format(file=gone)), within_s=200)
        await fleet.until(lambda: program.on_trial, "it is on trial")
        await fleet.server.stop()
        gone.touch()
        program.seconds_are("0.001")
        await fleet.until((program.place / "trial.failed").exists, "it is given up")
        program.seconds_are("0.1")
        await fleet.server.start()
        await reported(fleet, release, device, "installed")
        await until_it_runs(fleet, device, "2.0.0")


async def test_kills_of_the_agent_and_of_both_cost_nothing(tmp_path: Path, log_book: LogBook) -> None:
    async with one_device(tmp_path, log_book) as (fleet, device):
        program = program_of(device)
        release = await order(fleet, version("2.0.0"))
        await fleet.until_logged("release.installing", who=device)
        program.kill_agent()
        await fleet.until(lambda: not program.running, "the guard ends as the agent did")
        await program.start()  # as the supervisor does then
        await fleet.until(lambda: program.on_trial, "it is on trial")
        await program.kill()
        await program.start()
        await reported(fleet, release, device, "installed")
        await until_it_runs(fleet, device, "2.0.0")


async def test_an_agent_that_was_not_installed_as_one_file_refuses_before_it_fetches(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1) as fleet:
        (device,) = fleet.devices
        release = await order(fleet, version("2.0.0"))
        reason = await reported(fleet, release, device, "refused")
        assert "this program was not installed as one" in reason
        assert device.held_bytes(release) == 0
