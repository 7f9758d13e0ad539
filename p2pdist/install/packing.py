"""What artifacts are unpacked to before they are compared for a delta, and how the result is packed again.

Two compressed files differ nearly everywhere after the first change in what they hold. So a delta compares
their content, and whoever applies it packs the result again, to the very artifact that was signed; its hash
says whether that worked. A *packing* is named for whatever its outcome depends on:

``zstd-9 1.5.7``
    A tree, as :mod:`~p2pdist.install.archive` packs it with this version of zstd: unpacked it is the tar.
``deb xz-6``
    A Debian package whose data is in an ``.xz`` as dpkg-deb writes it: unpacked it is the package up to
    there, then the tar.
(empty)
    The artifact is compared as it is.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

import zstandard

from p2pdist import limits
from p2pdist.errors import P2PDistError, TrustError
from p2pdist.install.archive import LEVEL, WINDOW_BYTES_MAX, compress_tar
from p2pdist.install.xzblocks import PRESET, XzBlocks

NONE = ""
TREE = f"zstd-{LEVEL} {'.'.join(map(str, zstandard.ZSTD_VERSION))}"
DEB = f"deb xz-{PRESET}"

PACKINGS = frozenset({NONE, TREE, DEB})
"""Those that this version knows."""

_CHUNK_BYTES = 256 * limits.KIB
_AR_MAGIC, _AR_END = b"!<arch>\n", b"`\n"
_AR_HEADER_BYTES = 60
_DATA_NAME = b"data.tar.xz"
_DEB_FRONT_BYTES_MAX = 16 * limits.MIB  # a package before its data: its scripts and its files' hashes


class Packer(Protocol):
    """Takes content in, and writes it packed."""

    def write(self, data: bytes, /) -> object:
        """Take in more."""


def unpack(path: Path, packing: str, *, length: int | None = None) -> bytes:
    """Return what an artifact is compared by. Blocking.

    Args:
        path: The artifact.
        packing: One of :data:`PACKINGS`.
        length: What is expected, in bytes; by default anything up to the limit.

    Raises:
        TrustError: it is not packed so, or it has another length.
        OSError: it cannot be read.
    """
    most = limits.DELTA_UNPACKED_BYTES_MAX if length is None else length
    with path.open("rb") as file:
        if packing == TREE:
            reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(file)
            try:
                content = _read(reader.read, most)
            except zstandard.ZstdError as error:
                raise _not_packed(packing, str(error)) from error
        elif packing == DEB:
            content = _unpack_deb(file, most)
        else:
            content = _read(file.read, most)
    if len(content) > most or (length is not None and len(content) != length):
        raise TrustError(f"the content of {path.name} has another length than {most} bytes")
    return content


@contextmanager
def packed(file: BinaryIO, packing: str) -> Iterator[Packer]:
    """Pack what is written within the block into *file*. Blocking.

    Raises:
        TrustError: what was written cannot be packed so.
        OSError: the disk is full or fails.
    """
    if packing == TREE:
        with compress_tar(file) as out:
            yield out
    elif packing == DEB:
        deb = _DebPacker(file)
        yield deb
        deb.close()
    else:
        yield file


def _read(read: Callable[[int], bytes], most: int) -> bytes:
    """Read to the end, or one byte more than *most*."""
    found = bytearray()
    while len(found) <= most and (chunk := read(min(_CHUNK_BYTES, most + 1 - len(found)))):
        found += chunk
    return bytes(found)


def _unpack_deb(file: BinaryIO, most: int) -> bytes:
    front = file.read(_DEB_FRONT_BYTES_MAX)
    begin = _data_begin(front)
    if begin is None:
        raise _not_packed(DEB, "it has no data.tar.xz")
    file.seek(begin)
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=128 * limits.MIB)
    found = bytearray(front[:begin])
    try:
        while len(found) <= most and not decompressor.eof:
            data = file.read(_CHUNK_BYTES) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                raise _not_packed(DEB, "it is cut off")
            found += decompressor.decompress(data, max_length=most + 1 - len(found))
    except lzma.LZMAError as error:
        raise _not_packed(DEB, str(error)) from error
    return bytes(found)


class _DebPacker:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._front: bytearray | None = bytearray()
        self._xz: XzBlocks | None = None
        self._begin = 0

    def write(self, data: bytes) -> None:
        if self._xz is not None:
            self._xz.write(data)
            return
        assert self._front is not None
        self._front += data
        begin = _data_begin(bytes(self._front))
        if begin is not None:
            self._file.write(self._front[:begin])
            self._begin = begin
            self._xz = XzBlocks(self._file)
            self._xz.write(bytes(self._front[begin:]))
            self._front = None
        elif len(self._front) > _DEB_FRONT_BYTES_MAX:
            raise _not_packed(DEB, "it has no data.tar.xz")

    def close(self) -> None:
        if self._xz is None:
            raise _not_packed(DEB, "it has no data.tar.xz")
        self._xz.close()
        self._file.write(b"\n" * ((self._file.tell() - self._begin) % 2))


def _data_begin(front: bytes) -> int | None:
    """Return where the data of a Debian package begins: deb(5), ar(5); None if that is not in *front*."""
    if front[: len(_AR_MAGIC)] != _AR_MAGIC[: len(front)]:
        raise _not_packed(DEB, "it is not an ar archive")
    offset = len(_AR_MAGIC)
    while len(header := front[offset : offset + _AR_HEADER_BYTES]) == _AR_HEADER_BYTES:
        name, size = header[:16].rstrip(b" /"), header[48:58].strip()
        if header[58:] != _AR_END or not size.isdigit():
            raise _not_packed(DEB, "an entry of it has no header")
        offset += _AR_HEADER_BYTES
        if name == _DATA_NAME:
            return offset
        offset += int(size) + int(size) % 2
    return None


def _not_packed(packing: str, problem: str) -> P2PDistError:
    return TrustError(f"an artifact is not packed as {packing}: {problem}")
