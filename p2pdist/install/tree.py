"""Directory trees: versions side by side, switched atomically, back at once when one does not work.

Below the install root::

    opt/<product>/versions/<sequence>-<version>/    one unpacked tree each, complete or absent
    opt/<product>/versions/.<directory>.artifact    the SHA-256 that it was unpacked from
    opt/<product>/current -> versions/…             what is in use; replaced by one rename

Order of steps: unpack aside and rename; write down what is current; switch; check; drop old versions.
A crash before the switch leaves the old version current, one after it is resumed with the check.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.files import make_directories, read_bounded, storage_error, sync_directory, write_atomic
from p2pdist.install.archive import remove_tree, unpack_tree
from p2pdist.install.processes import environment_of, run_process
from p2pdist.install.steps import InstallResult, Job, failed_process, require_below
from p2pdist.trust.catalog import TreeRecipe

_LINK_BYTES_MAX = limits.KIB
_TRASH = ".trash-"
_UNPACKING = re.compile(r"\..*\.unpacking")


async def install_tree(job: Job, recipe: TreeRecipe) -> InstallResult:
    """Unpack, switch, check. The version before is current again if the check fails.

    Raises:
        TrustError: the archive is refused.
        UsageError: a symbolic link leads the product's directory out of the install root.
        Unavailable: the disk is full or fails; the version before is current.
    """
    versions = _Versions(job)
    last = job.last
    if last is not None and last.phase == "undoing":
        await trio.to_thread.run_sync(versions.switch, last.previous)
        if job.resumes:
            await trio.to_thread.run_sync(versions.remove, {versions.choose()} - {last.previous})
            return last.result()
    name = await trio.to_thread.run_sync(versions.unpack, recipe)
    if last is None and versions.current() == name:
        return InstallResult()
    previous = last.previous if last is not None else versions.current()
    await trio.to_thread.run_sync(lambda: job.begin(previous=previous))
    await trio.to_thread.run_sync(versions.switch, name)
    result = await _check(job, recipe, versions.path / name)
    if result.failure:
        await trio.to_thread.run_sync(lambda: job.undo(result, previous=previous))
        await trio.to_thread.run_sync(versions.switch, previous)
        await trio.to_thread.run_sync(versions.remove, {name} - {previous})
    else:
        await trio.to_thread.run_sync(job.finish, result)  # first: nothing can bring the old ones back
        await trio.to_thread.run_sync(versions.prune, name, previous, recipe.keep)
    return result


async def _check(job: Job, recipe: TreeRecipe, directory: Path) -> InstallResult:
    if not recipe.health_check:
        return InstallResult()
    ran = await run_process(
        recipe.health_check,
        timeout_s=recipe.timeout_s,
        cwd=directory,
        environment=environment_of(job.environment),
        witness=job.witness,
    )
    failed = failed_process("the health check", ran)
    return failed or InstallResult(exit_code=ran.exit_code, output=ran.output)


class _Versions:
    """The versions of one product on the disk. Blocking."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._base = job.layout.root / "opt" / job.release.product
        self.path = self._base / "versions"

    def unpack(self, recipe: TreeRecipe) -> str:
        """Have the release's tree on the disk, complete; return its directory's name."""
        require_below(self._job.layout.root, self.path)
        try:
            make_directories(self.path)
            sync_directory(self._base)
            for path in self.path.iterdir():
                if path.name.startswith((_TRASH, "..")) or _UNPACKING.fullmatch(path.name):
                    remove_tree(path)  # of a run that was killed
            name = self.choose()
            if not (self.path / name).exists():
                write_atomic(self._marker(name), self._job.release.sha256.encode())
        except OSError as error:
            raise storage_error(f"{self.path} could not be prepared", error) from error
        if not (self.path / name).exists():
            checkpoint = trio.from_thread.check_cancelled
            unpack_tree(self._job.artifact, self.path / name, recipe, checkpoint=checkpoint)
        return name

    def current(self) -> str | None:
        """The directory that is in use now; None if there is none."""
        link = self._base / "current"
        try:
            name = Path(os.readlink(link)).name  # noqa: PTH115 (the text of the link is wanted)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable(
                f"{link} is not a symbolic link", hint="move it away; it was not made by an installer"
            ) from error
        return name if (self.path / name).is_dir() else None

    def switch(self, name: str | None) -> None:
        """Make a version current, or none."""
        link = self._base / "current"
        try:
            if name is None:
                link.unlink(missing_ok=True)
            else:
                fresh = self._base / ".current.new"
                fresh.unlink(missing_ok=True)
                fresh.symlink_to(Path("versions") / name)
                fresh.replace(link)
            sync_directory(self._base)
        except OSError as error:
            raise storage_error(f"{link} could not be switched", error) from error

    def prune(self, current: str, previous: str | None, keep: int) -> None:
        """Remove all but *current* and *keep* others: the version before first, then by sequence."""
        others = [p.name for p in self.path.iterdir() if not p.name.startswith(".") and p.name != current]
        others.sort(key=lambda name: (name == previous, _sequence_of(name), name), reverse=True)
        self.remove(others[keep:])

    def choose(self) -> str:
        """The name of the release's directory, there or not."""
        release = self._job.release
        plain = f"{release.sequence}-{re.sub(r'[^A-Za-z0-9._+~-]', '_', release.version)}"
        for name in (plain, f"{plain}-{release.sha256[:12]}"):
            if not (self.path / name).exists() or self._unpacked_from(name) == release.sha256:
                return name
        raise Unavailable(
            f"{self.path / plain} holds something else than this release",
            hint="move it away; it was not made by an installer",
        )

    def remove(self, names: Iterable[str]) -> None:
        """Remove versions. One that is half removed does not look like a version any more."""
        try:
            for name in names:
                trash = self.path / f"{_TRASH}{name}"
                remove_tree(trash)
                if (self.path / name).exists():
                    (self.path / name).rename(trash)
                    sync_directory(self.path)
                self._marker(name).unlink(missing_ok=True)
                remove_tree(trash)
        except OSError as error:
            raise storage_error(f"an old version in {self.path} could not be removed", error) from error

    def _unpacked_from(self, name: str) -> str:
        try:
            return read_bounded(self._marker(name), bytes_max=_LINK_BYTES_MAX).decode("ascii", "replace")
        except UsageError:
            return ""

    def _marker(self, name: str) -> Path:
        return self.path / f".{name}.artifact"


def _sequence_of(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0
