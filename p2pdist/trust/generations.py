"""A directory's content in generations: whole sets of files, of which exactly one is current.

::

    current -> sets/<name>      replaced by one rename
    sets/<name>/                the files
    lock                        held while a generation is made

A new generation is written aside and synced before it becomes current, so whenever the power goes, the
old one or the new one is there, whole. Files that stay the same are hard links; so no file in a
generation is ever written to, only replaced.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pdist.files import locked, storage_error, sync_directory


class Generations:
    """The generations below *directory*. Blocking; not safe for concurrent use within a process.

    Args:
        directory: Made if it is not there.
        what: What is kept there, for messages.

    Raises:
        Unavailable: it cannot be made.
    """

    def __init__(self, directory: Path, what: str) -> None:
        self._directory = directory
        self._what = what
        self._sets = directory / "sets"
        self._current = directory / "current"
        try:
            self._sets.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(f"{directory} could not be made", error) from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from making generations. Raises Unavailable if one does."""
        with locked(self._directory / "lock", what=f"{self._what} in {self._directory}"):
            yield

    def current(self) -> Path | None:
        """Return the current generation, or None if there is none yet."""
        try:
            return self._directory / self._current.readlink()
        except OSError:
            return None

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Make an empty generation to be filled. It vanishes unless it is committed.

        Raises:
            Unavailable: the disk is full or fails, here or in the block.
        """
        draft: Path | None = None
        try:
            self._remove_leftovers()
            draft = Path(tempfile.mkdtemp(dir=self._sets, prefix="set-"))
            yield draft
        except OSError as error:
            raise storage_error(f"{self._what} in {self._directory} could not be written", error) from error
        finally:
            if draft is not None and draft != self.current():
                shutil.rmtree(draft, ignore_errors=True)

    def commit(self, draft: Path) -> None:
        """Make *draft* current, durably. May raise OSError, which :meth:`draft` turns into ours."""
        sync_tree(draft)
        sync_directory(self._sets)
        link = self._directory / "current.new"
        link.unlink(missing_ok=True)
        link.symlink_to(draft.relative_to(self._directory))
        link.replace(self._current)
        sync_directory(self._directory)
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        current = self.current()
        for path in self._sets.iterdir():
            if path != current:
                shutil.rmtree(path, ignore_errors=True)


def link_or_copy(source: Path, destination: Path) -> None:
    """Give *source* a second name, or a copy where the file system has no hard links."""
    with suppress(FileExistsError):
        try:
            destination.hardlink_to(source)
        except PermissionError:
            shutil.copyfile(source, destination)


def sync_tree(directory: Path) -> None:
    """Make a directory and what is in it durable. Files with a second name are durable already."""
    for path in directory.iterdir():
        if path.is_symlink():
            continue
        if path.is_dir():
            sync_tree(path)
        elif path.stat().st_nlink == 1:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    sync_directory(directory)
