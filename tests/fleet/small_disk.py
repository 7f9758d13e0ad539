"""A small file system of its own, which a test can fill up and empty again."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needs_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a small file system: needs root"
)


class SmallDisk:
    """A mounted file system, with a ballast file that takes its space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free_bytes(self) -> int:
        """What is free now."""
        return shutil.disk_usage(self.path).free

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take everything but so much. Others may write meanwhile: what they took first is theirs."""
        page = bytes(4_096)
        with self._ballast.open("ab", buffering=0) as file:
            while self.free_bytes >= leave_bytes + len(page):
                try:
                    file.write(page)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    return

    def relieve(self) -> None:
        """Give it all back."""
        self._ballast.unlink()


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """Mount *size* bytes of memory at *path* for as long as the block runs."""
    path.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)
