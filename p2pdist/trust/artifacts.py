"""Artifacts' content: hashed afresh whenever it matters."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import TrustError
from p2pdist.files import storage_error

_CHUNK_BYTES = 1 * limits.MIB


def hash_file(path: Path, *, progress: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
    """Return the length and the SHA-256 (hexadecimal) of a file. Blocking.

    Args:
        progress: Called with the number of bytes of each part read; what it raises ends the work.

    Raises:
        Unavailable: the file cannot be read.
    """
    digest = hashlib.sha256()
    length = 0
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                length += len(chunk)
                progress(len(chunk))
    except OSError as error:
        raise storage_error(f"{path} could not be read", error) from error
    return length, digest.hexdigest()


def check_file(
    path: Path, *, length: int, sha256: str, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Check that a file is what signed metadata says.

    Raises:
        TrustError: its length or hash differ.
        Unavailable: it cannot be read.
    """
    found_length, found_sha256 = hash_file(path, progress=progress)
    if (found_length, found_sha256) != (length, sha256):
        raise TrustError(
            f"{path} is not what was signed: it has {found_length} bytes and SHA-256 {found_sha256},"
            f" signed are {length} bytes and {sha256}",
            hint="it was damaged or altered; fetch it again",
        )
