"""The agent itself: a new version beside the one that runs, started by the guard, kept once it has reported.

The call does not return in the version that begins it: the program ends, the guard starts the new one, and
that calls again, with the same attempt, as after a crash. It returns there once the admin server has heard of
it, or in the version before once the guard has given up the new one.

Order of steps: look whether the admin server answers now; write the new file beside the old one; see whether
it starts at all; write that down; put it on trial; have the link name it; end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.install.processes import environment_of, run_process
from p2pdist.install.steps import InstallResult, Job, failed_process
from p2pdist.install.trial import Failed, Place
from p2pdist.trust.catalog import AgentRecipe


class OwnProgram(Protocol):
    """The program that calls the installer, and runs under a guard."""

    @property
    def file(self) -> Path:
        """The version that runs: ``PLACE/versions/HASH/p2pdist-agent``."""

    async def confirm(self) -> None:
        """Return once the admin server has heard of this version, later than this call."""

    def leave(self) -> None:
        """End this program soon, so that the guard starts the version in use."""


async def install_agent(job: Job, recipe: AgentRecipe, own: OwnProgram | None) -> InstallResult:
    """Replace the program that calls.

    Raises:
        UsageError: it runs under no guard.
        Unavailable: the admin server does not answer now, or the disk is full; nothing has changed.
    """
    if own is None:
        raise UsageError("this program runs under no guard", hint="update it the way it was installed")
    place = Place(own.file, job.release.sha256)
    if own.file == place.new:
        return await _stay(job, own, place)
    number = 1
    if job.resumes and (failed := await trio.to_thread.run_sync(place.failed)) is not None:
        if not failed.slow or failed.number >= limits.TRIALS_MAX:
            return await _give_up(job, own, place, failed)
        number = failed.number + 1
    elif not job.resumes:
        await trio.to_thread.run_sync(place.clear)
    await _reach(own)
    await trio.to_thread.run_sync(place.write_new, job.artifact)
    probe = await _probe(job, place)
    if probe.failure:
        await trio.to_thread.run_sync(place.keep_only, own.file)
        return probe
    await trio.to_thread.run_sync(lambda: job.begin(previous=str(own.file)))
    await trio.to_thread.run_sync(lambda: place.begin(number=number, seconds=recipe.timeout_s))
    own.leave()
    return await trio.sleep_forever()


def tidy_agent(job: Job, own: OwnProgram, result: InstallResult) -> None:
    """Forget a trial that is over, which a kill right after its end has left. Blocking."""
    place = Place(own.file, job.release.sha256)
    place.clear()
    if not result.installed:
        place.keep_only(own.file)


async def _stay(job: Job, own: OwnProgram, place: Place) -> InstallResult:
    """The version that runs is the one that is wanted."""
    if await trio.to_thread.run_sync(place.is_on_trial):
        await own.confirm()
        if not await trio.to_thread.run_sync(place.confirm):
            await trio.sleep_forever()  # the guard has just given it up, and is ending it
    result = InstallResult()
    before = [Path(job.last.previous)] if job.last is not None and job.last.previous else []
    await trio.to_thread.run_sync(job.finish, result)
    await trio.to_thread.run_sync(lambda: place.keep_only(own.file, *before))
    await trio.to_thread.run_sync(place.clear)
    return result


async def _give_up(job: Job, own: OwnProgram, place: Place, failed: Failed) -> InstallResult:
    result = InstallResult(failure=f"the new version did not report back: {failed.reason}")
    await trio.to_thread.run_sync(job.finish, result)
    await trio.to_thread.run_sync(place.clear)
    await trio.to_thread.run_sync(place.keep_only, own.file)
    return result


async def _reach(own: OwnProgram) -> None:
    """See that this version is heard of right now: otherwise a trial of another one would show nothing."""
    with trio.move_on_after(limits.TRIAL_REACH_S) as scope:
        await own.confirm()
    if scope.cancelled_caught:
        raise Unavailable(
            "the admin server does not answer now, so that a new agent could not report",
            hint="it is tried again by itself",
        )


async def _probe(job: Job, place: Place) -> InstallResult:
    """See whether the new version starts on this machine at all."""
    ran = await run_process(
        [str(place.new), "--version"],
        timeout_s=limits.TRIAL_PROBE_S,
        cwd=job.layout.root,
        environment=environment_of({}),
        witness=job.witness,
    )
    return failed_process("the new version, asked for its number,", ran) or InstallResult(output=ran.output)
