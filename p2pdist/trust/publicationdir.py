"""The directory of a publication, which the admin server (or a person with a USB stick) takes as it is.

::

    metadata/     1.root.json … N.root.json, timestamp.json, and N.<role>.json for everything else
    torrents/<info_hash>.torrent
    artifacts/<info_hash>
    grants/<sha256>.<node>.grant
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, storage_error, sync_directory
from p2pdist.trust.generations import link_or_copy, sync_tree

METADATA, TORRENTS, ARTIFACTS, GRANTS = "metadata", "torrents", "artifacts", "grants"
FIRST_ROOT = "1.root.json"
_STAGING = ".metadata.new"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def read_metadata(directory: Path) -> dict[str, bytes]:
    """Read the metadata files of a publication by name; nothing is verified.

    Raises:
        UsageError: there is no publication, or a file is too large.
    """
    metadata = directory / METADATA
    paths = sorted(metadata.glob("*.json"))
    if not (metadata / FIRST_ROOT).exists():
        raise UsageError(f"{directory} holds no publication", hint="make one: p2pdist-sign publish DIR")
    if len(paths) > limits.BUNDLE_FILES_MAX:
        raise UsageError(f"{metadata} holds more than {limits.BUNDLE_FILES_MAX} files")
    return {path.name: read_bounded(path, bytes_max=limits.TARGETS_BYTES_MAX) for path in paths}


def check_directory(directory: Path, first_root: bytes) -> None:
    """Refuse a directory that holds something else than this fleet's publication."""
    if not directory.exists():
        return
    held = directory / METADATA / FIRST_ROOT
    if held.exists():
        if held.read_bytes() != first_root:
            raise UsageError(f"{directory} holds the publication of another fleet", hint="choose another")
        return
    strange = {path.name for path in directory.iterdir()} - {TORRENTS, ARTIFACTS, GRANTS, _STAGING}
    if strange:
        raise UsageError(
            f"{directory} is not empty and holds no publication", hint="choose another directory"
        )


def put_file(source: Path, destination: Path) -> None:
    """Give an artifact a second name, or copy it durably to another file system."""
    staging = destination.with_name(f".{destination.name}.new")
    try:
        link_or_copy(source, staging)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, staging)
    with staging.open("rb") as file:
        os.fsync(file.fileno())
    staging.replace(destination)


def put_metadata(directory: Path, files: Mapping[str, bytes]) -> None:
    """Replace the metadata directory by one that holds *files*, at once."""
    staging, final = directory / _STAGING, directory / METADATA
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        for name, data in files.items():
            (staging / name).write_bytes(data)
        sync_tree(staging)
        if not final.exists():
            staging.rename(final)
        elif not _exchange(staging, final):
            _replace_one_by_one(staging, final)
        sync_directory(directory)
        shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        raise storage_error(f"the metadata could not be written to {directory}", error) from error


def _exchange(first: Path, second: Path) -> bool:
    """Let two directories change places in one step; False where the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        return False
    result = library.renameat2(
        _AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)
    )
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number))


def _replace_one_by_one(staging: Path, final: Path) -> None:
    """The order in which a TUF repository changes safely: the timestamp last, as it names the rest."""
    names = sorted(path.name for path in staging.iterdir())
    for name in sorted(names, key=lambda name: name == "timestamp.json"):
        (staging / name).replace(final / name)
    for path in final.glob("*.json"):
        if path.name not in names:
            path.unlink()
