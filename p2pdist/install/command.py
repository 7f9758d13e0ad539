"""A program with arguments, as the recipe's signers wrote them.

Before it starts, that is written to the disk. If we are killed while it runs, nobody can know how far
it came: a recipe with a ``check`` is asked whether the release is installed and may run again; one
without is reported, and not run a second time in the same attempt.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

import trio

from p2pdist.files import storage_error
from p2pdist.install.archive import remove_tree
from p2pdist.install.processes import ProcessResult, environment_of, run_process
from p2pdist.install.steps import InstallResult, Job, failed_process
from p2pdist.trust.catalog import CommandRecipe

_PLACEHOLDER = "{artifact}"
_TIDY_S = 10.0  # for one file, on a disk that may have died


async def install_command(job: Job, recipe: CommandRecipe) -> InstallResult:
    """Run the command once.

    Raises:
        Unavailable: the disk is full or fails; the command was not run.
    """
    try:
        artifact = await trio.to_thread.run_sync(_stage, job, recipe)
        if recipe.check:
            checked = await _run(job, recipe, recipe.check, artifact)
            if checked.exit_code == 0 and not checked.problem:
                return InstallResult(exit_code=checked.exit_code, output=checked.output)
        elif job.resumes:
            return InstallResult(failure="the command was interrupted; not run again")
        await trio.to_thread.run_sync(job.begin)
        ran = await _run(job, recipe, recipe.arguments, artifact)
    finally:
        with trio.move_on_after(_TIDY_S, shield=True):
            await trio.to_thread.run_sync(_unstage, job, abandon_on_cancel=True)
    failed = failed_process("the command", ran, expected=tuple(recipe.expected_exit_codes))
    return failed or InstallResult(exit_code=ran.exit_code, output=ran.output)


async def _run(job: Job, recipe: CommandRecipe, arguments: list[str], artifact: Path) -> ProcessResult:
    return await run_process(
        [argument.replace(_PLACEHOLDER, str(artifact)) for argument in arguments],
        timeout_s=recipe.timeout_s,
        cwd=job.layout.root,
        environment=environment_of({**job.environment, "P2PDIST_ARTIFACT": str(artifact)}),
        witness=job.witness,
    )


def _stage(job: Job, recipe: CommandRecipe) -> Path:
    """Give the artifact the file name that it was signed under, which many programs look at.

    It is a second name of the same file where that can be had; a copy where it is to be executed, so
    that the mode of the file in the swarm stays as it is.
    """
    path = job.scratch / job.release.target.rpartition("/")[2]
    executed = any(
        arguments[0] == _PLACEHOLDER for arguments in (recipe.arguments, recipe.check) if arguments
    )
    try:
        job.layout.root.mkdir(parents=True, exist_ok=True)
        remove_tree(job.scratch)
        job.scratch.mkdir()
        if executed or not _linked(job.artifact, path):
            shutil.copyfile(job.artifact, path)
            path.chmod(0o700 if executed else 0o600)
    except OSError as error:
        raise storage_error(f"{path} could not be made", error) from error
    return path


def _unstage(job: Job) -> None:
    """Tidy up. What cannot be removed says nothing about the command, and goes before the next run."""
    with contextlib.suppress(OSError):
        remove_tree(job.scratch)


def _linked(artifact: Path, path: Path) -> bool:
    try:
        os.link(artifact, path)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
            raise
        return False
    return True
