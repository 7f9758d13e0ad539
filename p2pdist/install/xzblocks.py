"""The ``.xz`` that dpkg-deb writes, byte for byte.

``xz -T`` and liblzma's threaded encoder, which dpkg-deb uses, cut their input into blocks of three times the
dictionary, 24 MiB with the preset 6, and write both sizes into each block's header; Python's ``lzma`` makes
one block without. So the container is written here (the .xz file format, version 1.2.1), and only the LZMA2
data inside comes from liblzma.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import BinaryIO

from p2pdist import limits

PRESET = 6
"""dpkg-deb's own; with another one the outcome is another."""

_BLOCK_BYTES = 24 * limits.MIB
_MAGIC, _FOOTER_MAGIC = b"\xfd7zXZ\x00", b"YZ"
_FLAGS = b"\x00\x04"  # the integrity check is CRC64
_LZMA2 = b"\x21\x01\x16"  # the filter's number, the length of its properties, a dictionary of 8 MiB
_SIZES_PRESENT = 0xC0
_HEADER_BYTES = 20  # liblzma leaves room for the sizes of the largest block


class XzBlocks:
    """Compresses what is written to it; :meth:`close` writes the end. Blocking."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._waiting = bytearray()
        self._records = b""
        self._blocks = 0
        self._file.write(_MAGIC + _FLAGS + _crc32(_FLAGS))

    def write(self, data: bytes) -> None:
        """Take in more."""
        self._waiting += data
        while len(self._waiting) >= _BLOCK_BYTES:
            self._write_block(bytes(self._waiting[:_BLOCK_BYTES]))
            del self._waiting[:_BLOCK_BYTES]

    def close(self) -> None:
        """Write the last block, the index and the footer."""
        if self._waiting:
            self._write_block(bytes(self._waiting))
            self._waiting.clear()
        index = b"\x00" + _number(self._blocks) + self._records
        index += bytes(-len(index) % 4)
        index += _crc32(index)
        tail = struct.pack("<I", len(index) // 4 - 1) + _FLAGS
        self._file.write(index + _crc32(tail) + tail + _FOOTER_MAGIC)

    def _write_block(self, data: bytes) -> None:
        packed, check = _packed(data)
        fields = bytes([_SIZES_PRESENT]) + _number(len(packed)) + _number(len(data)) + _LZMA2
        header = (bytes([_HEADER_BYTES // 4 - 1]) + fields).ljust(_HEADER_BYTES - 4, b"\x00")
        header += _crc32(header)
        self._file.write(header + packed + bytes(-len(packed) % 4) + check)
        self._records += _number(len(header) + len(packed) + len(check)) + _number(len(data))
        self._blocks += 1


def _packed(data: bytes) -> tuple[bytes, bytes]:
    """Return the LZMA2 data and the CRC64 of a block, out of a whole .xz file that liblzma makes of it."""
    stream = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=PRESET)
    (backward,) = struct.unpack_from("<I", stream, len(stream) - 8)
    index = len(stream) - 12 - 4 * (backward + 1)
    begin = 12 + 4 * (stream[12] + 1)
    unpadded, _ = _read_number(stream, index + 2)  # after the index's mark and the number of blocks, 1
    return stream[begin : 12 + unpadded - 8], stream[index - 8 : index]


def _number(value: int) -> bytes:
    """Section 1.2 of the format: seven bits a byte, the lowest first."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _read_number(data: bytes, offset: int) -> tuple[int, int]:
    """Return such a number, and where it ends."""
    value = shift = 0
    while data[offset] & 0x80:
        value |= (data[offset] & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
    return value | data[offset] << shift, offset + 1


def _crc32(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))
