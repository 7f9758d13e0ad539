"""Frames on a byte stream: a four-byte big-endian length, and that many bytes of msgpack. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from p2pdist import limits
from p2pdist.errors import PeerError
from p2pdist.wire import codec
from p2pdist.wire.frames import AnyFrame

PREFIX_BYTES = 4


def pack_frame(frame: AnyFrame) -> bytes:
    """Return a frame as it stands on the stream.

    Raises:
        UsageError: it is larger than :data:`~p2pdist.limits.FRAME_BYTES_MAX`; split it.
    """
    data = codec.encode(frame)
    return len(data).to_bytes(PREFIX_BYTES, "big") + data


def unpack_frame(data: bytes) -> AnyFrame:
    """Return the frame in *data*, which is without its length. Raises PeerError."""
    frame: AnyFrame = codec.decode(data, AnyFrame)
    return frame


class FrameSplitter:
    """Cuts a byte stream into frames. Holds at most one incomplete frame.

    Args:
        frame_bytes_max: The largest frame that is taken.
    """

    __slots__ = ("_data", "_frame_bytes_max")

    def __init__(self, frame_bytes_max: int = limits.FRAME_BYTES_MAX) -> None:
        self._data = bytearray()
        self._frame_bytes_max = frame_bytes_max

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take in the next bytes; yield each frame that is complete now, still packed.

        Raises:
            PeerError: a frame says that it is empty, or larger than is taken. It is refused before its
                bytes are awaited.
        """
        self._data += data
        start = 0
        while len(self._data) - start >= PREFIX_BYTES:
            length = int.from_bytes(self._data[start : start + PREFIX_BYTES], "big")
            if not 1 <= length <= self._frame_bytes_max:
                raise PeerError(f"announces a frame of {length} bytes")
            end = start + PREFIX_BYTES + length
            if len(self._data) < end:
                break
            yield bytes(self._data[start + PREFIX_BYTES : end])
            start = end
        del self._data[:start]
