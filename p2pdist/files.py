"""Files that survive a crash: atomic replacement, directory syncs, locks.

Everything that p2pdist must not lose is written through here. A reader of a path sees either the old
content or the new one, whole, whatever happened in between (power included: file and directory are
synced before the call returns).
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from p2pdist.errors import P2PDistError, Unavailable, UsageError


class DiskFull(Unavailable):
    """There is no space, or the quota is used up. A service tries again by itself, a command cannot."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace *path* by *data*. Blocking; call it in a worker thread from trio.

    Raises:
        Unavailable: the disk is full or fails. The old content is still there.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".new")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(f"{path} could not be written", error) from error


def write_secret(path: Path, data: bytes) -> None:
    """Like :func:`write_atomic`, readable by the owner only from the first byte on."""
    write_atomic(path, data, mode=0o600)


def make_directories(path: Path) -> None:
    """Make *path* and what is missing above it, open to all users whatever the umask; leave others alone.

    Raises:
        OSError: the disk is full or fails, or something else is in the place of one.
    """
    missing = [directory for directory in (path, *path.parents) if not directory.is_dir()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


def sync_directory(path: Path) -> None:
    """Make the names in *path* durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_bounded(path: Path, *, bytes_max: int) -> bytes:
    """Read a file that somebody else may have written.

    Raises:
        UsageError: it is not there, not a regular file, not readable, or larger than *bytes_max*.
    """
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:  # a zero byte, or half a character
        raise UsageError(f"{str(path)!r} is not the name of a file") from error
    if len(data) > bytes_max:
        raise UsageError(f"{path} is larger than {bytes_max} bytes", hint="this is not the right file")
    return data


@contextmanager
def locked(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file *path* for as long as the block runs; the kernel frees it if we are killed.

    Raises:
        Unavailable: another process holds it, or it cannot be made. *what* names the resource.
    """
    try:
        opened = path.open("a+b")
    except OSError as error:
        raise storage_error(f"{path} could not be opened", error) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(
                f"{what} is in use by another process", hint="end that one first, or wait for it"
            ) from None
        yield


def storage_error(what: str, error: OSError) -> P2PDistError:
    """Turn an error of the file system into ours, with a hint that fits its cause."""
    words = f"{what} ({error.strerror})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(words, hint="free some space; the work goes on by itself")
    hints = {
        errno.EROFS: "the file system is read-only; check the disk",
        errno.EACCES: "check the owner and permissions",
        errno.EPERM: "check the owner and permissions",
    }
    return Unavailable(words, hint=hints.get(error.errno or 0, "check the disk"))
