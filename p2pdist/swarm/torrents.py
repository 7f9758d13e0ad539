"""Torrents of artifacts: made from a file, and checked when they come from somewhere else.

The layout is BEP 52's, with one file::

    {"info": {"file tree": {NAME: {"": {"length": N, "pieces root": ROOT}}},
              "meta version": 2, "name": NAME, "piece length": P, "private": 1},
     "piece layers": {ROOT: the pieces' hashes, 32 bytes each}}

``NAME`` is the swarm. The info-hash is the SHA-256 of the bencoded ``info``. Everything else that a
torrent file could carry (trackers, web seeds, DHT nodes) is left out, and refused in one from outside.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import libtorrent as lt
import msgspec

from p2pdist import limits
from p2pdist.errors import TrustError, Unavailable, UsageError
from p2pdist.files import storage_error
from p2pdist.ids import InfoHash, SwarmName

BLOCK_BYTES = 16 * limits.KIB
"""A leaf of the hash tree, and what peers request at a time (BEP 52)."""

PIECES_WANTED = 400
"""Rarest-first needs a few hundred pieces to keep peers different from one another."""

_EMPTY_LEAF = bytes(32)


class MadeTorrent(msgspec.Struct, frozen=True, kw_only=True):
    """A torrent, and what was read from the file on the way. ``sha256`` is in hexadecimal."""

    info_hash: InfoHash
    torrent: bytes
    length: int
    sha256: str
    piece_bytes: int


def make_torrent(path: Path, *, swarm: SwarmName, piece_bytes: int | None = None) -> MadeTorrent:
    """Make the torrent of the file *path*, reading it once. Blocking; call it in a worker thread.

    The same content, swarm and piece size give the same torrent, whatever the file is called.

    Args:
        path: A regular file that nobody changes meanwhile.
        swarm: The swarm that may exchange it; becomes the torrent's name.
        piece_bytes: A power of two from 64 KiB to 4 MiB; by default one that suits the length.

    Raises:
        UsageError: it is not a readable regular file, is empty or too large, or *piece_bytes* is not
            allowed.
        Unavailable: the file changed while it was read.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            length = before.st_size
            _check_length(length, path)
            size = piece_bytes or piece_bytes_for(length)
            _check_piece_bytes(size)
            content = hashlib.sha256()
            pieces = list(_piece_hashes(file, size, content))
            after = os.fstat(file.fileno())
    except IsADirectoryError:
        raise UsageError(f"{path} is a directory", hint="pack it into one file first") from None
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist", hint="check the path") from None
    except OSError as error:
        raise storage_error(f"{path} could not be read", error) from error
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Unavailable(f"{path} changed while it was read", hint="try again when nobody writes to it")
    info, torrent = _encode(swarm, length, size, pieces)
    return MadeTorrent(
        info_hash=InfoHash(hashlib.sha256(info).hexdigest()),
        torrent=torrent,
        length=length,
        sha256=content.hexdigest(),
        piece_bytes=size,
    )


def check_torrent(data: bytes, *, info_hash: InfoHash, swarm: SwarmName, length: int) -> None:
    """Check a torrent from outside against what signed metadata says of the artifact.

    It must be, byte for byte, what :func:`make_torrent` makes: nothing in it is left unchecked, and
    libtorrent never parses anything else. The piece hashes need no further trust: they lead to the
    root in the info dictionary, and that to the info-hash.

    Raises:
        TrustError: it is not.
    """
    if len(data) > limits.TORRENT_BYTES_MAX:
        raise TrustError(f"a torrent of {len(data)} bytes exceeds the limit of {limits.TORRENT_BYTES_MAX}")
    info, layers = _decode(data, info_hash)
    found = hashlib.sha256(lt.bencode(info)).hexdigest()
    if found != info_hash:
        raise TrustError(f"a torrent has the info-hash {found} instead of the signed {info_hash}")
    piece_bytes = info.get(b"piece length")
    if not isinstance(piece_bytes, int) or not _piece_bytes_allowed(piece_bytes):
        raise TrustError(f"the torrent of {info_hash} has a piece size that is not allowed")
    if not 0 < length <= limits.ARTIFACT_BYTES_MAX:
        raise TrustError(f"the artifact {info_hash} is said to have {length} bytes")
    if length > piece_bytes:
        layer = b"".join(value for value in layers.values() if isinstance(value, bytes))
        pieces = [layer[offset : offset + 32] for offset in range(0, len(layer), 32)]
        if len(pieces) != -(-length // piece_bytes):
            raise TrustError(f"the torrent of {info_hash} has {len(pieces)} pieces for {length} bytes")
    else:
        pieces = [_only_root(info, swarm)]
    if _encode(swarm, length, piece_bytes, pieces)[1] != data:
        raise TrustError(
            f"the torrent of {info_hash} is not the one of {length} bytes for the swarm {swarm}",
            hint="it was made by something else than p2pdist-sign, or altered",
        )


class PieceHashes:
    """The hashes of an artifact's pieces, from its torrent, which :func:`check_torrent` has passed."""

    def __init__(self, torrent: bytes, *, swarm: SwarmName) -> None:
        decoded: Any = lt.bdecode(torrent)
        file: Any = decoded[b"info"][b"file tree"][swarm.encode()][b""]
        layers: dict[bytes, bytes] = decoded[b"piece layers"]
        self.length: int = file[b"length"]
        self.piece_bytes: int = decoded[b"info"][b"piece length"]
        self._hashes: bytes = layers.get(file[b"pieces root"], file[b"pieces root"])

    def is_right(self, piece: int, data: bytes) -> bool:
        """Whether *data* is the piece, all of it."""
        rest = self.length - piece * self.piece_bytes
        if len(data) != min(rest, self.piece_bytes):
            return False
        alone = self.length < self.piece_bytes
        expected = self._hashes[32 * piece : 32 * piece + 32]
        return _piece_hash(data, self.piece_bytes, alone=alone) == expected


def piece_bytes_for(length: int) -> int:
    """Choose the piece size for an artifact of *length* bytes: at least :data:`PIECES_WANTED` pieces."""
    size = limits.PIECE_BYTES_MIN
    while size < limits.PIECE_BYTES_MAX and length // (2 * size) >= PIECES_WANTED:
        size *= 2
    return size


def _piece_hashes(file: BinaryIO, piece_bytes: int, content: hashlib._Hash) -> Iterator[bytes]:
    """Yield each piece's hash (the root of its blocks), and feed every byte to *content*.

    A file of one piece at most has a tree of its blocks alone; in a larger one the last piece's tree
    is filled up with empty leaves.
    """
    first = True
    while piece := file.read(piece_bytes):
        content.update(piece)
        yield _piece_hash(piece, piece_bytes, alone=first and len(piece) < piece_bytes)
        first = False


def _piece_hash(piece: bytes, piece_bytes: int, *, alone: bool) -> bytes:
    leaves = [
        hashlib.sha256(piece[offset : offset + BLOCK_BYTES]).digest()
        for offset in range(0, len(piece), BLOCK_BYTES)
    ]
    return _root(leaves, _power_of_two(len(leaves)) if alone else piece_bytes // BLOCK_BYTES, _EMPTY_LEAF)


def _root(hashes: list[bytes], width: int, filler: bytes) -> bytes:
    """Return the root of the binary tree over *hashes*, filled up to *width* (a power of two)."""
    level = hashes
    while width > 1:
        if len(level) % 2:
            level = [*level, filler]
        level = [hashlib.sha256(level[i] + level[i + 1]).digest() for i in range(0, len(level), 2)]
        filler = hashlib.sha256(filler + filler).digest()
        width //= 2
    return level[0]


def _power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


def _encode(swarm: SwarmName, length: int, piece_bytes: int, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return the bencoded info dictionary and the whole torrent."""
    filler = _root([_EMPTY_LEAF], piece_bytes // BLOCK_BYTES, _EMPTY_LEAF)
    root = _root(pieces, _power_of_two(len(pieces)), filler)
    info: dict[bytes, Any] = {
        b"file tree": {swarm.encode(): {b"": {b"length": length, b"pieces root": root}}},
        b"meta version": 2,
        b"name": swarm.encode(),
        b"piece length": piece_bytes,
        b"private": 1,
    }
    layers: dict[bytes, Any] = {root: b"".join(pieces)} if len(pieces) > 1 else {}
    torrent: dict[bytes, Any] = {b"info": info, b"piece layers": layers}
    return lt.bencode(info), lt.bencode(torrent)


def _decode(data: bytes, info_hash: InfoHash) -> tuple[dict[bytes, Any], dict[bytes, Any]]:
    """Return the info dictionary and the piece layers."""
    try:
        torrent: Any = lt.bdecode(data)
        info, layers = torrent[b"info"], torrent[b"piece layers"]
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
        raise TrustError(f"the torrent of {info_hash} is not valid ({error})") from None
    if not isinstance(info, dict) or not isinstance(layers, dict):
        raise TrustError(f"the torrent of {info_hash} is not valid (no dictionaries in it)")
    return info, layers


def _only_root(info: dict[bytes, Any], swarm: SwarmName) -> bytes:
    """Return the root of a file of one piece, or nothing that would pass."""
    try:
        root = info[b"file tree"][swarm.encode()][b""][b"pieces root"]
    except (TypeError, KeyError, IndexError):
        return b""
    return root if isinstance(root, bytes) else b""


def _check_length(length: int, path: Path) -> None:
    if length == 0:
        raise UsageError(f"{path} is empty", hint="an artifact has at least one byte")
    if length > limits.ARTIFACT_BYTES_MAX:
        raise UsageError(f"{path} has {length} bytes, more than {limits.ARTIFACT_BYTES_MAX}", hint="split it")


def _piece_bytes_allowed(size: int) -> bool:
    return limits.PIECE_BYTES_MIN <= size <= limits.PIECE_BYTES_MAX and size & (size - 1) == 0


def _check_piece_bytes(size: int) -> None:
    if not _piece_bytes_allowed(size):
        raise UsageError(
            f"pieces of {size} bytes are not allowed", hint="use a power of two from 64 KiB to 4 MiB"
        )
