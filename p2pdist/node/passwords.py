"""Passwords that a node keeps: each in a file of its own, which only its owner can read."""

from __future__ import annotations

from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded


def read_password(path: Path) -> str:
    """Return the password in a file. Blocking.

    Raises:
        UsageError: it cannot be read, others than its owner can read it, too, or it is not text.
    """
    data = read_bounded(path, bytes_max=limits.KEY_FILE_BYTES_MAX)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} can be read by others than its owner", hint=f"chmod 600 {path}")
    try:
        return data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text", hint="write the password") from None
