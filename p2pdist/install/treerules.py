"""What may stand in a tree that is packed or unpacked.

Each function answers with the rest of a sentence that begins with the entry's name, or with an empty
string when there is nothing to say against it.
"""

from __future__ import annotations

import os
import stat
import tarfile

from p2pdist import limits

_NAME_BYTES_MAX = 255  # one component: what Linux file systems take


def name_problem(name: str) -> str:
    """A path inside the tree: relative, without ``..``, of a length that file systems take."""
    parts = name.split("/")
    if not name or name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in parts):
        return "is not a name inside the tree"
    if len(os.fsencode(name)) > limits.TREE_PATH_BYTES_MAX:
        return f"is longer than {limits.TREE_PATH_BYTES_MAX} bytes"
    if any(len(os.fsencode(part)) > _NAME_BYTES_MAX for part in parts):
        return f"has a part of more than {_NAME_BYTES_MAX} bytes"
    return ""


def link_problem(name: str, link: str) -> str:
    """A symbolic link at *name*, which is already known to lie inside the tree.

    Only ``..`` at its beginning is followed from a known place, the directory that the link stands in.
    A later one would be followed from wherever another link leads.
    """
    if not link or "\0" in link or len(os.fsencode(link)) > limits.TREE_PATH_BYTES_MAX:
        return "is a symbolic link to nothing"
    if link.startswith("/"):
        return f"is a symbolic link to {link!r}, outside the tree; links must be relative"
    parts = [part for part in link.split("/") if part not in ("", ".")]
    up = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    if up > name.count("/"):
        return f"is a symbolic link to {link!r}, outside the tree"
    if ".." in parts[up:]:
        return f"is a symbolic link to {link!r}, which goes up after going down; write it shorter"
    return ""


def file_problem(status: os.stat_result, linked: set[tuple[int, int]]) -> str:
    """A file on disk; *linked* collects those with several names, to notice a second one in the tree."""
    if not stat.S_ISREG(status.st_mode):
        return "is neither a file, a directory nor a symbolic link"
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "is setuid or setgid"
    if status.st_nlink > 1:
        if (status.st_dev, status.st_ino) in linked:
            return "is a hard link to another file of the tree; copy it, or make it a symbolic link"
        linked.add((status.st_dev, status.st_ino))
    return ""


def size_problem(entries: int, unpacked_bytes: int) -> str:
    """The tree with this entry in it."""
    if entries > limits.TREE_ENTRIES_MAX:
        return f"is one entry more than the {limits.TREE_ENTRIES_MAX} that a tree may have"
    if unpacked_bytes > limits.TREE_BYTES_MAX:
        return f"makes the tree larger than {limits.TREE_BYTES_MAX} bytes"
    return ""


def entry_problem(info: tarfile.TarInfo) -> str:
    """One entry of an archive."""
    if info.type not in (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE):
        kind = "hard link" if info.islnk() else "device, a pipe or something unknown"
        return f"is a {kind}"
    if info.mode & 0o7000:
        return "is setuid, setgid or sticky"
    if info.size < 0 or (info.size and info.type != tarfile.REGTYPE):
        return "has an impossible size"
    return link_problem(info.name, info.linkname) if info.issym() else ""
