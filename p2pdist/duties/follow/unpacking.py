"""Indexes are unpacked while they come, checked, and never held as a whole. Blocking, for a thread."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from collections.abc import Iterator
from typing import Final, Protocol

from p2pdist import limits
from p2pdist.core.aptindexes import Listed
from p2pdist.errors import PeerError, TrustError

_PIECE_BYTES: Final = 256 * limits.KIB
_GZIP: Final = 16 + zlib.MAX_WBITS


class _Unpacker(Protocol):
    def unpack(self, data: bytes) -> Iterator[bytes]: ...
    def finish(self) -> None: ...


class IndexStream:
    """One index: takes its bytes as they come, and gives what is in it.

    What it gives is not to be believed before :meth:`finish` has returned.

    Args:
        listed: What the signed ``InRelease`` says of it.
    """

    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._hash = hashlib.sha256()
        self._received = 0
        self._given = 0
        self._unpacker: _Unpacker = (
            _Xz() if listed.path.endswith(".xz") else _Gzip() if listed.path.endswith(".gz") else _Plain()
        )

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what is in *data*, in pieces.

        Raises:
            TrustError: it is larger than it must be.
            PeerError: it cannot be unpacked, or is too large then.
        """
        self._received += len(data)
        if self._received > self._listed.size_bytes:
            raise TrustError(f"{self._listed.path} is larger than the signed {self._listed.size_bytes} bytes")
        self._hash.update(data)
        try:
            for piece in self._unpacker.unpack(data):
                self._given += len(piece)
                if self._given > limits.PACKAGES_BYTES_MAX:
                    raise PeerError(
                        f"{self._listed.path} has more than {limits.PACKAGES_BYTES_MAX} bytes unpacked"
                    )
                yield piece
        except (lzma.LZMAError, zlib.error) as error:
            raise PeerError(f"{self._listed.path} cannot be unpacked ({str(error)[:100]})") from None

    def finish(self) -> None:
        """Check that it was all, and what was signed.

        Raises:
            TrustError: it is something else.
            PeerError: what is packed in it does not end.
        """
        if self._received != self._listed.size_bytes or self._hash.hexdigest() != self._listed.sha256:
            raise TrustError(
                f"{self._listed.path} is not what the signed InRelease says",
                hint="the repository changes right now, or somebody altered it; the next run looks again",
            )
        self._unpacker.finish()


class _Plain:
    def unpack(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Xz:
    def __init__(self) -> None:
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=limits.PACKAGES_MEMORY_BYTES_MAX)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        if self._stream.eof and data:
            raise PeerError("something follows the end of a packed index")
        yield self._stream.decompress(data, _PIECE_BYTES)
        while not self._stream.needs_input and not self._stream.eof:
            yield self._stream.decompress(b"", _PIECE_BYTES)

    def finish(self) -> None:
        if not self._stream.eof or self._stream.unused_data:
            raise PeerError("a packed index does not end where it should")


class _Gzip:
    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def unpack(self, data: bytes) -> Iterator[bytes]:
        if self._stream.eof and data:
            raise PeerError("something follows the end of a packed index")
        while data or not self._stream.eof:
            piece = self._stream.decompress(data, _PIECE_BYTES)
            data = self._stream.unconsumed_tail
            yield piece
            if not data and len(piece) < _PIECE_BYTES:
                return

    def finish(self) -> None:
        if not self._stream.eof or self._stream.unused_data:
            raise PeerError("a packed index does not end where it should")
