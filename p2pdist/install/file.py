"""One file, replaced atomically; the old one comes back when its program does not take the new one.

Order of steps: write the new file beside its place; give the old one a second name; write that down;
rename the new one into place; reload; remove the second name. A crash after the rename is resumed with
the reload, one while the old file is being brought back with that.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path, PurePosixPath

import trio

from p2pdist.errors import UsageError
from p2pdist.files import make_directories, storage_error, sync_directory
from p2pdist.install.processes import environment_of, run_process
from p2pdist.install.steps import InstallResult, Job, failed_process, require_below
from p2pdist.trust.catalog import FileRecipe

_OLD, _NONE = "old", "none"
"""What a step remembers as the state before: a file that has a second name, or no file."""


async def install_file(job: Job, recipe: FileRecipe) -> InstallResult:
    """Replace the file and reload. A failed reload brings the old file back, and reloads that.

    Raises:
        UsageError: the path would leave the install root.
        Unavailable: the disk is full or fails; the old file is in place.
    """
    place = _Place(job, recipe)
    last = job.last
    if last is not None and last.phase == "undoing":
        await trio.to_thread.run_sync(place.restore, last.previous)
        if job.resumes:
            await _reload(job, recipe)
            return last.result()
        last = None
    await trio.to_thread.run_sync(place.write_new)
    previous = last.previous if last is not None else await trio.to_thread.run_sync(place.keep_old)
    await trio.to_thread.run_sync(lambda: job.begin(previous=previous))
    await trio.to_thread.run_sync(place.replace)
    result = await _reload(job, recipe)
    if result.failure:
        await trio.to_thread.run_sync(lambda: job.undo(result, previous=previous))
        await trio.to_thread.run_sync(place.restore, previous)
        await _reload(job, recipe)  # with the old file; the failure to report is the first one
    else:
        await trio.to_thread.run_sync(job.finish, result)  # first: then the old file is not wanted any more
        await trio.to_thread.run_sync(place.drop_old)
    return result


def tidy_file(job: Job, recipe: FileRecipe) -> None:
    """Remove the second name that a kill right after the end has left. Blocking."""
    _Place(job, recipe).drop_old()


async def _reload(job: Job, recipe: FileRecipe) -> InstallResult:
    if not recipe.reload:
        return InstallResult()
    ran = await run_process(
        recipe.reload,
        timeout_s=recipe.timeout_s,
        cwd=job.layout.root,
        environment=environment_of(job.environment),
        witness=job.witness,
    )
    failed = failed_process("the reload command", ran)
    return failed or InstallResult(exit_code=ran.exit_code, output=ran.output)


def place_of(root: Path, recipe: FileRecipe) -> Path:
    """Where the file goes. Raises :class:`~p2pdist.errors.UsageError` for a path that climbs."""
    path = PurePosixPath(recipe.path)
    if ".." in path.parts or path == PurePosixPath("/") or recipe.path.endswith("/"):
        raise UsageError(f"{recipe.path!r} is not the path of a file below the install root")
    return root / path.relative_to("/")


class _Place:
    """The file's directory, and what stands there for a moment. Blocking."""

    def __init__(self, job: Job, recipe: FileRecipe) -> None:
        self._artifact = job.artifact
        self._mode = recipe.mode
        self._path = place_of(job.layout.root, recipe)
        self._root = job.layout.root
        short = os.fsdecode(os.fsencode(self._path.name)[:200])
        self._new = self._path.with_name(f".{short}.p2pdist-new")
        self._old = self._path.with_name(f".{short}.p2pdist-old")

    def write_new(self) -> None:
        """Write the new file beside its place, whole and synced."""
        try:
            self._make_directory()
            self._new.unlink(missing_ok=True)
            try:
                with self._artifact.open("rb") as source, self._new.open("xb") as file:
                    os.fchmod(file.fileno(), 0o600)
                    shutil.copyfileobj(source, file)
                    self._take_owner(file.fileno())
                    os.fchmod(file.fileno(), self._mode)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                self._new.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise storage_error(f"{self._path} could not be written", error) from error

    def keep_old(self) -> str:
        """Give the old file a second name, if there is one; return what the step has to remember."""
        try:
            self._old.unlink(missing_ok=True)
            if not os.path.lexists(self._path):
                return _NONE
            try:
                os.link(self._path, self._old, follow_symlinks=False)
            except OSError:
                shutil.copy2(self._path, self._old, follow_symlinks=False)  # a file system without links
            sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(f"{self._path} could not be kept", error) from error
        return _OLD

    def replace(self) -> None:
        """Put the new file in its place."""
        self._rename(self._new)

    def restore(self, previous: str | None) -> None:
        """Put the old file, or its absence, back in its place. Safe to repeat."""
        if previous == _OLD:
            if os.path.lexists(self._old):
                self._rename(self._old)
        else:
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                raise storage_error(f"{self._path} could not be taken back", error) from error
            self.drop_old()

    def drop_old(self) -> None:
        """Forget the old file."""
        try:
            if os.path.lexists(self._old):
                self._old.unlink()
                sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(f"{self._old} could not be removed", error) from error

    def _rename(self, source: Path) -> None:
        try:
            source.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise storage_error(f"{self._path} could not be replaced", error) from error

    def _make_directory(self) -> None:
        require_below(self._root, self._path.parent)
        make_directories(self._path.parent)
        if self._path.is_dir() and not self._path.is_symlink():
            raise UsageError(f"{self._path} is a directory")

    def _take_owner(self, descriptor: int) -> None:
        """The service that reads the old file can read the new one. Only root may give files away."""
        with contextlib.suppress(FileNotFoundError, PermissionError):
            old = self._path.lstat()
            os.fchown(descriptor, old.st_uid, old.st_gid)
