"""How the pieces of an artifact are divided among those who read it from mirrors. Pure arithmetic.

It is cut into *runs* of adjacent pieces, and run r is read by reader r mod n: everybody who knows the
readers knows whose each piece is, and nobody has to ask. The runs of a reader that was *given up* are
divided among the rest in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from p2pdist import limits
from p2pdist.ids import NodeId

_RUNS_EACH = 16  # at least, where the artifact has so many pieces: parts of about the same size


def place_among(readers: Sequence[NodeId], own: NodeId) -> tuple[int, int]:
    """Return which reader *own* is, from 0, and how many there are, *own* included; in whatever order."""
    ordered = sorted({*readers, own})
    return ordered.index(own), len(ordered)


class Division:
    """How an artifact's pieces are divided among its readers. The same for all of them, but who is given up.

    Args:
        pieces: How many there are.
        piece_bytes: The size of one.
        readers: How many readers.
        reader: Which of them this is.
    """

    def __init__(self, pieces: int, piece_bytes: int, *, readers: int, reader: int) -> None:
        self.reader = reader
        self.given_up: set[int] = set()
        self._pieces = pieces
        self._readers = readers
        most = max(1, limits.MIRROR_RANGE_BYTES_MAX // piece_bytes)
        self._run = min(max(1, pieces // (_RUNS_EACH * readers)), most)

    def owner(self, piece: int) -> int:
        """Return whose a piece is, if nobody is given up."""
        return piece // self._run % self._readers

    def owner_now(self, piece: int) -> int:
        """Return whose a piece is."""
        return self._owner_of_run(piece // self._run)

    def runs(self, reader: int) -> Iterator[range]:
        """Yield the runs of one reader, as if nobody were given up."""
        return map(self._pieces_of, range(reader, self._count, self._readers))

    def runs_taken_over(self) -> Iterator[range]:
        """Yield the runs of those who are given up, as far as this reader stands in for them."""
        for number in range(self._count):
            if number % self._readers in self.given_up and self._owner_of_run(number) == self.reader:
                yield self._pieces_of(number)

    def every_run(self) -> Iterator[range]:
        """Yield all of them."""
        return map(self._pieces_of, range(self._count))

    @property
    def _count(self) -> int:
        return -(-self._pieces // self._run)

    def _owner_of_run(self, number: int) -> int:
        owner = number % self._readers
        if owner in self.given_up:
            left = [reader for reader in range(self._readers) if reader not in self.given_up]
            return left[number // self._readers % len(left)]
        return owner

    def _pieces_of(self, number: int) -> range:
        return range(number * self._run, min((number + 1) * self._run, self._pieces))
