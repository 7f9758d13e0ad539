"""A directory tree as one artifact: a deterministic ``.tar.zst``, and back.

The same tree gives the same bytes: entries in sorted order, one time stamp, no owners, and only the
part of a mode that matters (is a file executable). Inside is a GNU tar, which any ``tar --zstd``
opens; out of it come regular files, directories and symbolic links, and nothing else.

A symbolic link must be relative, go up only at its beginning, and not above the tree. As entries are
never written through a link, the directory that a link stands in is a real one, and so no chain of
such links can leave the tree.

Unpacking trusts nothing: every name is opened relative to its directory's descriptor without
following links, sizes are counted before they are written, and the tree appears at its destination
by one rename after everything is on the disk. Memory does not grow with the tree.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from p2pdist import limits
from p2pdist.errors import P2PDistError, TrustError, UsageError
from p2pdist.files import storage_error, sync_directory
from p2pdist.install.treerules import entry_problem, file_problem, link_problem, name_problem, size_problem
from p2pdist.trust.catalog import TreeRecipe

_BLOCK = tarfile.BLOCKSIZE
_CHUNK_BYTES = 256 * limits.KIB
_MTIME = 315_532_800  # 1980-01-01: the first moment that a zip file, packed from this tree later, can hold
LEVEL = 9
"""How well trees are compressed; 12 takes twice the time for 1 % less."""
WINDOW_BYTES_MAX = 8 * limits.MIB  # what a device spends on decompression; level 9 asks for 4 MiB
_PADDING_BYTES_MAX = 64 * limits.KIB  # zeros after the end of a tar; GNU tar writes up to 10 KiB
_ZERO_BLOCK = bytes(_BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTree:
    """What a signed :class:`~p2pdist.trust.catalog.TreeRecipe` says about the archive."""

    unpacked_bytes: int
    """The sizes of all regular files together."""
    entries: int


def pack_tree(source: Path, artifact: Path) -> PackedTree:
    """Write the directory *source* to *artifact*, replacing it whole. Blocking.

    Raises:
        UsageError: the tree holds something that cannot be installed (a link that leaves it, a hard
            link, a device, a setuid file, too much), named in the message, or changes meanwhile.
        Unavailable: the disk is full or fails.

    Nothing is left behind at *artifact* in either case.
    """
    if not source.is_dir():
        raise UsageError(f"{source} is not a directory")
    if artifact.parent.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"{artifact} stands inside the tree that it is made from", hint="put it elsewhere")
    try:
        with _NewFile(artifact) as file, compress_tar(file) as out:
            return _pack_entries(source, out)
    except OSError as error:
        raise storage_error(f"{source} could not be packed to {artifact}", error) from error


def compress_tar(file: BinaryIO) -> zstandard.ZstdCompressionWriter:
    """Return what compresses a tar into *file* as an artifact is, when it is left as a context."""
    compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, threads=0)
    return compressor.stream_writer(file, closefd=False)


def unpack_tree(
    artifact: Path, destination: Path, recipe: TreeRecipe, *, checkpoint: Callable[[], None] = lambda: None
) -> PackedTree:
    """Unpack *artifact* so that *destination* appears at once and complete. Blocking.

    Args:
        destination: Must not exist; its parent must. What an earlier, killed run left beside it is
            removed.
        recipe: Its ``unpacked_bytes`` and ``entries`` are hard limits.
        checkpoint: Called between entries; what it raises ends the work, and nothing is left behind.

    Raises:
        TrustError: the archive is damaged, exceeds its limits, or holds what must not be installed.
        Unavailable: the disk is full or fails; nothing is left behind.
        UsageError: *destination* exists.
    """
    if os.path.lexists(destination):
        raise UsageError(f"{destination} exists already")
    staging = destination.parent / f".{destination.name}.unpacking"
    try:
        remove_tree(staging)
        staging.mkdir()
        try:
            with artifact.open("rb") as file:
                unpacked = _unpack_entries(_TarStream(file, str(artifact)), staging, recipe, checkpoint)
            _sync_file_system(staging)
            staging.rename(destination)
        except BaseException:
            remove_tree(staging)
            raise
        sync_directory(destination.parent)
    except OSError as error:
        raise storage_error(f"{artifact} could not be unpacked to {destination}", error) from error
    return unpacked


def remove_tree(path: Path) -> None:
    """Remove a directory tree if it is there, also one whose directories have lost their permissions."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o700)
        shutil.rmtree(path)


# Packing -----------------------------------------------------------------------------------------


class _NewFile:
    """A file that takes the place of *path* when the block ends well, and vanishes otherwise."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> BinaryIO:
        descriptor, name = tempfile.mkstemp(
            dir=self._path.parent, prefix=f".{self._path.name[:80]}.", suffix=".new"
        )
        self._temporary = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                os.fchmod(self._file.fileno(), 0o644)
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._temporary.replace(self._path)
                sync_directory(self._path.parent)
        finally:
            try:
                self._file.close()
            finally:
                self._temporary.unlink(missing_ok=True)


def _pack_entries(source: Path, out: zstandard.ZstdCompressionWriter) -> PackedTree:
    entries = unpacked_bytes = 0
    linked: set[tuple[int, int]] = set()  # only files with more than one name are in here
    for name, status in _walk(source):
        entries += 1
        path = source / name
        info = tarfile.TarInfo(name)
        info.mtime = _MTIME
        if stat.S_ISLNK(status.st_mode):
            info.type, info.mode, info.linkname = tarfile.SYMTYPE, 0o777, str(path.readlink())
            problem = link_problem(name, info.linkname)
        elif stat.S_ISDIR(status.st_mode):
            info.type, info.mode, problem = tarfile.DIRTYPE, 0o755, ""
        else:
            info.size, info.mode = status.st_size, 0o755 if status.st_mode & 0o111 else 0o644
            problem = file_problem(status, linked)
            unpacked_bytes += status.st_size
        problem = problem or name_problem(name) or size_problem(entries, unpacked_bytes)
        if problem:
            raise UsageError(f"{source} cannot be packed: {name!r} {problem}")
        out.write(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        if info.isreg():
            _copy_file(path, info.size, out)
    if not entries:
        raise UsageError(f"{source} is empty", hint="name the directory whose content is to be installed")
    out.write(_ZERO_BLOCK * 2)
    return PackedTree(unpacked_bytes=unpacked_bytes, entries=entries)


def _walk(source: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything below *source*, each directory before its content, in one order for ever."""
    waiting = [""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(source / directory) as scan:
            found = sorted(scan, key=lambda entry: os.fsencode(entry.name))
        prefix = f"{directory}/" if directory else ""
        for entry in found:
            yield prefix + entry.name, entry.stat(follow_symlinks=False)
        waiting += [prefix + e.name for e in reversed(found) if e.is_dir(follow_symlinks=False)]


def _copy_file(path: Path, size: int, out: zstandard.ZstdCompressionWriter) -> None:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        left = size
        while left:
            data = file.read(min(left, _CHUNK_BYTES))
            if not data:
                break
            out.write(data)
            left -= len(data)
        if left or file.read(1):
            raise UsageError(f"{path} changed while it was packed", hint="pack a tree that nobody writes to")
    out.write(bytes(-size % _BLOCK))


# Unpacking ---------------------------------------------------------------------------------------


class _TarStream:
    """The headers and contents of a compressed tar, read once from front to back."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        self._file = file
        self._shown = shown
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX)
        self._reader = decompressor.stream_reader(file, read_size=128 * limits.KIB, closefd=False)

    def bad(self, problem: str) -> P2PDistError:
        return TrustError(
            f"the archive {self._shown} is refused: {problem}", hint="nothing of it was installed"
        )

    def read(self, size: int) -> bytes:
        data = self.read_some(size)
        while len(data) < size:
            more = self.read_some(size - len(data))
            if not more:
                raise self.bad("it is cut off")
            data += more
        return data

    def read_some(self, size: int) -> bytes:
        try:
            return self._reader.read(size)
        except zstandard.ZstdError as error:
            raise self.bad(f"its compression is damaged ({error})") from error

    def next_entry(self) -> tarfile.TarInfo | None:
        """The next entry's header, with long names resolved; None at the archive's end."""
        names: dict[bytes, str] = {}
        while True:
            block = self.read(_BLOCK)
            if block == _ZERO_BLOCK:
                self._check_end(unused=bool(names))
                return None
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.TarError, ValueError) as error:
                raise self.bad(f"it is damaged ({error})") from error
            if info.type not in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
                break
            if info.type in names or not 0 < info.size <= limits.TREE_PATH_BYTES_MAX + 1:
                raise self.bad("it holds a name that is too long")
            data = self.read(info.size + -info.size % _BLOCK)[: info.size]
            names[info.type] = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        info.name = names.get(tarfile.GNUTYPE_LONGNAME, info.name)
        info.linkname = names.get(tarfile.GNUTYPE_LONGLINK, info.linkname)
        if info.isdir():
            info.name = info.name.removesuffix("/")
        return info

    def _check_end(self, *, unused: bool) -> None:
        padding = 0
        while data := self.read_some(_BLOCK):
            padding += len(data)
            if data.strip(b"\0") or padding > _PADDING_BYTES_MAX:
                raise self.bad("something follows its end")
        if padding < _BLOCK or unused:
            raise self.bad("it is cut off")
        if self._file.read(1):
            raise self.bad("something follows its end")


class _Staging:
    """The tree while it grows: names are resolved below one descriptor, and links are never followed."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchmod(self._root, 0o755)
        self._directory = os.dup(self._root)
        self._parts: list[str] = []

    def close(self) -> None:
        os.close(self._directory)
        os.close(self._root)

    def open_directory(self, parts: list[str]) -> int:
        """The descriptor of a directory, which stays ours. OSError if it is missing or no directory."""
        if parts != self._parts:
            descriptor = os.dup(self._root)
            for part in parts:
                try:
                    deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                finally:
                    os.close(descriptor)
                descriptor = deeper
            os.close(self._directory)
            self._directory, self._parts = descriptor, parts
        return self._directory


def _unpack_entries(
    tar: _TarStream, root: Path, recipe: TreeRecipe, checkpoint: Callable[[], None]
) -> PackedTree:
    entries = unpacked_bytes = 0
    staging = _Staging(root)
    try:
        while info := tar.next_entry():
            checkpoint()
            problem = name_problem(info.name) or entry_problem(info)
            if problem:
                raise tar.bad(f"{info.name!r} {problem}")
            entries += 1
            unpacked_bytes += info.size
            if entries > recipe.entries or unpacked_bytes > recipe.unpacked_bytes:
                raise tar.bad(
                    f"it holds more than the {recipe.entries} entries and {recipe.unpacked_bytes} bytes"
                    " that were signed"
                )
            try:
                _unpack_entry(tar, staging, info)
            except OSError as error:
                raise (_placement_problem(tar, info.name, error) or error) from error
    finally:
        staging.close()
    return PackedTree(unpacked_bytes=unpacked_bytes, entries=entries)


def _unpack_entry(tar: _TarStream, staging: _Staging, info: tarfile.TarInfo) -> None:
    *parents, name = info.name.split("/")
    directory = staging.open_directory(parents)
    if info.issym():
        os.symlink(info.linkname, name, dir_fd=directory)
    elif info.isdir():
        os.mkdir(name, dir_fd=directory)
        os.chmod(name, 0o755, dir_fd=directory)  # noqa: S103 (a directory that all users may read)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
            os.fchmod(file.fileno(), 0o755 if info.mode & 0o111 else 0o644)
            left = info.size
            while left:
                data = tar.read_some(min(left, _CHUNK_BYTES))
                if not data:
                    raise tar.bad("it is cut off")
                file.write(data)
                left -= len(data)
        if tar.read(-info.size % _BLOCK).strip(b"\0"):
            raise tar.bad("it is damaged (padding)")


def _sync_file_system(path: Path) -> None:
    """Write everything on *path*'s file system to the disk: one wait instead of one for each file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _placement_problem(tar: _TarStream, name: str, error: OSError) -> P2PDistError | None:
    problems = {
        errno.EEXIST: "stands twice in it",
        errno.ELOOP: "would be written through a link",
        errno.ENOTDIR: "would be written through something that is no directory",
        errno.ENOENT: "stands in a directory that does not come before it",
    }
    problem = problems.get(error.errno or 0)
    return tar.bad(f"{name!r} {problem}") if problem else None
