"""Who answers for an envelope while it crosses a link: the receipts that neighbours give each other.

Each side of a link numbers the envelopes that it sends on it, from 1; the numbers are not on the wire,
because a link keeps the order. The receiver says how many of them, counted from the first, it answers
for: ``Taken(count=n)``. That is cumulative, so one receipt is good for many envelopes, as in XMPP's
stream management (XEP-0198). What is not taken when the link ends is sent again over the next one.

:class:`Receipts` is the receiver's side, :class:`Dispatch` the sender's. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from p2pdist import limits
from p2pdist.errors import PeerError
from p2pdist.wire.frames import Taken


class Receipts:
    """What has come over one link, and how much of it we answer for. Bounded by the sender's window."""

    __slots__ = ("_arrived", "_count", "_refused", "_settled", "_told")

    def __init__(self) -> None:
        self._arrived = 0
        self._settled: dict[int, bool] = {}  # beyond the count; whether it was refused
        self._refused: list[int] = []
        self._count = self._told = 0

    def arrived(self) -> int:
        """The next envelope has come; return its number on this link.

        Raises:
            PeerError: the sender does not wait for receipts.
        """
        if self._arrived - self._told >= limits.MAILBOX_FLIGHT_ENVELOPES_MAX:
            raise PeerError(
                f"sends more than {limits.MAILBOX_FLIGHT_ENVELOPES_MAX} envelopes ahead of their receipts"
            )
        self._arrived += 1
        return self._arrived

    def settle(self, number: int, *, refused: bool = False) -> None:
        """We answer for an envelope from now on, or there is no room for it and its sender still does."""
        self._settled[number] = refused
        while (following := self._settled.pop(self._count + 1, None)) is not None:
            self._count += 1
            if following:
                self._refused.append(self._count)

    def due(self) -> Taken | None:
        """Return what is to be told to the sender, if there is anything new."""
        return Taken(count=self._count, refused=list(self._refused)) if self._count > self._told else None

    def told(self, receipt: Taken) -> None:
        """The sender has been told."""
        self._told = receipt.count
        self._refused = [number for number in self._refused if number > receipt.count]


class Dispatch:
    """What was sent over one link and not taken yet.

    Args:
        envelopes_max: How many may be under way at once.
        size_bytes_max: The same in bytes; one envelope may always be.
    """

    __slots__ = ("_envelopes_max", "_size_bytes", "_size_bytes_max", "_taken", "_under_way")

    def __init__(
        self,
        envelopes_max: int = limits.MAILBOX_FLIGHT_ENVELOPES_MAX,
        size_bytes_max: int = limits.MAILBOX_FLIGHT_BYTES_MAX,
    ) -> None:
        self._envelopes_max = envelopes_max
        self._size_bytes_max = size_bytes_max
        self._under_way: deque[tuple[int, int]] = deque()
        self._size_bytes = 0
        self._taken = 0

    def has_room(self, size: int) -> bool:
        """Whether an envelope of *size* bytes may be sent now."""
        return not self._under_way or (
            len(self._under_way) < self._envelopes_max and self._size_bytes + size <= self._size_bytes_max
        )

    def sent(self, letter: int, size: int) -> None:
        """The letter with this number in the mailbox was sent."""
        self._under_way.append((letter, size))
        self._size_bytes += size

    @property
    def taken_count(self) -> int:
        """How many envelopes the neighbour has answered for."""
        return self._taken

    def under_way(self) -> tuple[int, ...]:
        """Return the letters that were sent and are not taken, in the order in which they were sent."""
        return tuple(letter for letter, _ in self._under_way)

    def taken(self, receipt: Taken) -> tuple[Sequence[int], Sequence[int]]:
        """Take in a receipt; return the letters that the neighbour has, and those that it refused.

        Raises:
            PeerError: it is for envelopes that were not sent, or that it was for before.
        """
        first, last = self._taken + 1, self._taken + len(self._under_way)
        if not first <= receipt.count <= last or not all(
            first <= n <= receipt.count for n in receipt.refused
        ):
            raise PeerError(f"gives a receipt for {receipt.count} envelopes; {self._taken} to {last} are due")
        refused = frozenset(receipt.refused)
        theirs: list[int] = []
        ours: list[int] = []
        while self._taken < receipt.count:
            letter, size = self._under_way.popleft()
            self._size_bytes -= size
            self._taken += 1
            (ours if self._taken in refused else theirs).append(letter)
        return theirs, ours
