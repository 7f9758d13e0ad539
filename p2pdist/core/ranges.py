"""Ranges of numbers, and bytes with holes between them: what a session has to send, what has come early."""

from __future__ import annotations

from collections.abc import Iterator

from p2pdist.errors import PeerError


class Ranges:
    """A set of whole numbers as ``[start, stop)`` ranges, in order and apart from one another.

    Made for a handful of ranges: every operation looks at all of them.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[int, int]] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(tuple(self._ranges))

    def first(self) -> tuple[int, int] | None:
        """Return the lowest range, or None."""
        return self._ranges[0] if self._ranges else None

    def add(self, start: int, stop: int) -> None:
        """Put the numbers from *start* to before *stop* in."""
        if start >= stop:
            return
        apart = [(a, b) for a, b in self._ranges if b < start or a > stop]
        touched = [(a, b) for a, b in self._ranges if not (b < start or a > stop)]
        merged = min([start, *(a for a, _ in touched)]), max([stop, *(b for _, b in touched)])
        self._ranges = sorted([*apart, merged])

    def remove(self, start: int, stop: int) -> None:
        """Take the numbers from *start* to before *stop* out."""
        if start >= stop:
            return
        left = [(a, min(b, start)) for a, b in self._ranges]
        right = [(max(a, stop), b) for a, b in self._ranges]
        self._ranges = sorted({(a, b) for a, b in left + right if a < b})


class Gaps:
    """Bytes that have come before those in front of them.

    Args:
        pieces_max: How many pieces with gaps between them there may be.
    """

    __slots__ = ("_pieces", "_pieces_max")

    def __init__(self, pieces_max: int) -> None:
        self._pieces: list[tuple[int, bytearray]] = []
        self._pieces_max = pieces_max

    def put(self, offset: int, data: bytes) -> None:
        """Keep bytes, the first of which has the number *offset*. Of those that come twice the first stay.

        Raises:
            PeerError: there would be too many pieces.
        """
        for start, piece in (*self._pieces, (offset + len(data), bytearray())):
            before = data[: max(0, start - offset)]
            if before:
                self._insert(offset, before)
            taken = min(len(data), max(0, start + len(piece) - offset))
            data, offset = data[taken:], offset + taken
            if not data:
                break
        if len(self._pieces) > self._pieces_max:
            raise PeerError(f"a stream in more than {self._pieces_max} pieces")

    def take(self, offset: int) -> bytes:
        """Return the bytes from the number *offset* on, as far as there is no gap, and forget them."""
        if not self._pieces or self._pieces[0][0] > offset:
            return b""
        start, piece = self._pieces.pop(0)
        return bytes(piece[offset - start :])

    def _insert(self, offset: int, data: bytes) -> None:
        """Keep bytes that touch no others, next to those that they continue or come before."""
        pieces: list[tuple[int, bytearray]] = []
        for start, piece in sorted([*self._pieces, (offset, bytearray(data))], key=lambda each: each[0]):
            if pieces and pieces[-1][0] + len(pieces[-1][1]) == start:
                pieces[-1][1].extend(piece)
            else:
                pieces.append((start, piece))
        self._pieces = pieces
