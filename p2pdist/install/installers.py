"""The room's door: can this be installed here, and install it."""

from __future__ import annotations

from pathlib import Path

import trio

from p2pdist import ids
from p2pdist.errors import UsageError
from p2pdist.files import locked, storage_error
from p2pdist.install.agent import OwnProgram, install_agent, tidy_agent
from p2pdist.install.command import install_command
from p2pdist.install.deb import install_deb
from p2pdist.install.file import install_file, place_of, tidy_file
from p2pdist.install.platform import Machine, matches
from p2pdist.install.processes import wait_witness
from p2pdist.install.steps import InstallLayout, InstallResult, Job
from p2pdist.install.tree import install_tree
from p2pdist.trust.catalog import AgentRecipe, CommandRecipe, DebRecipe, FileRecipe, Release, TreeRecipe

__all__ = ["InstallLayout", "InstallResult", "check_installable", "install"]


def check_installable(release: Release, *, machine: Machine) -> None:
    """Refuse what *machine* cannot install, before anything is fetched.

    Raises:
        UsageError: wrong platform or architecture, no dpkg, or a recipe that makes no sense.
    """
    ids.parse_product(release.product)
    if not matches(machine.platform, release.platform):
        raise UsageError(f"{release.target} is for {release.platform}, this machine is {machine.platform}")
    match release.recipe:
        case DebRecipe(architecture=architecture):
            if not machine.deb_architectures:
                raise UsageError(f"{release.target} is a Debian package, and this machine has no dpkg")
            if architecture not in ("all", *machine.deb_architectures):
                known = ", ".join(machine.deb_architectures)
                raise UsageError(f"{release.target} is for {architecture}, dpkg here takes {known}")
        case FileRecipe() as recipe:
            place_of(Path("/"), recipe)
        case AgentRecipe():
            if not machine.guarded:
                raise UsageError(
                    f"{release.target} is the agent as one file, and this program was not installed as one",
                    hint="update it the way it was installed",
                )
        case TreeRecipe() | CommandRecipe():
            pass


async def install(
    release: Release,
    artifact: Path,
    *,
    layout: InstallLayout,
    attempt: str = "",
    own: OwnProgram | None = None,
) -> InstallResult:
    """Install *artifact*, which the caller has just checked against the signed hash.

    Call it again after a crash, with the same arguments: what was begun is finished or taken back, and
    what is done is not done twice.

    Args:
        release: What to install; :func:`check_installable` has passed it.
        artifact: The content file. It is only read.
        layout: Where it goes.
        attempt: Names this try, so that a repeated call is told from a new try. Once an attempt has
            ended, calling it again returns the same result without work. Empty: every call after an
            ended one is a new try.
        own: The program that calls, where it can be replaced by a newer version.

    Returns:
        How it ended. With a ``failure`` the machine is as it was before, as far as the recipe's kind
        can promise that.

    Raises:
        TrustError: the artifact's inside is not what its recipe allows.
        UsageError: the recipe cannot be carried out here.
        Unavailable: not now (a full disk, another installer at work); trying again later makes sense.

    Cancellation ends the program that runs, and leaves what a crash would leave.
    """
    layout = InstallLayout(root=layout.root.absolute(), state=layout.state.absolute())
    job = Job(release, artifact.absolute(), layout, attempt)
    try:
        await trio.to_thread.run_sync(lambda: layout.state.mkdir(parents=True, exist_ok=True))
        with locked(layout.state / "lock", what=f"the installer's state {layout.state}"):
            return await _install(job, own)
    except OSError as error:
        raise storage_error(f"{release.target} could not be installed", error) from error


async def _install(job: Job, own: OwnProgram | None) -> InstallResult:
    release = job.release
    ended = await trio.to_thread.run_sync(job.load)
    if ended is not None:
        if isinstance(release.recipe, FileRecipe):
            await trio.to_thread.run_sync(tidy_file, job, release.recipe)
        if isinstance(release.recipe, AgentRecipe) and own is not None:
            await trio.to_thread.run_sync(tidy_agent, job, own, ended)
        return ended
    if job.last is not None:
        await wait_witness(job.witness, timeout_s=release.recipe.timeout_s)
    await trio.to_thread.run_sync(job.clear_witness)
    match release.recipe:
        case TreeRecipe() as recipe:
            result = await install_tree(job, recipe)
        case DebRecipe() as recipe:
            result = await install_deb(job, recipe)
        case CommandRecipe() as recipe:
            result = await install_command(job, recipe)
        case FileRecipe() as recipe:
            result = await install_file(job, recipe)
        case AgentRecipe() as recipe:
            result = await install_agent(job, recipe, own)
    if not job.finished:
        await trio.to_thread.run_sync(job.finish, result)
    return result
