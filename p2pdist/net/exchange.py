"""Envelopes over one link, for the ends of their way: who seals them, and who opens them.

What is sent is kept in memory until the neighbour answers for it; what arrives gets its receipt once it
has been dealt with. A gateway in between uses :mod:`~p2pdist.net.mailbox` instead.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from p2pdist import limits
from p2pdist.core.receipts import Dispatch, Receipts
from p2pdist.errors import Unavailable
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Routed, Taken

_RECEIPT_EVERY: Final = 32  # envelopes, while more are being dealt with


class Outlet(Protocol):
    """What is needed of a link."""

    def send_nowait(self, frame: AnyFrame) -> None:
        """Queue a frame. Raises Unavailable when the queue is full, or the link has ended."""


class Exchange:
    """See the module.

    Args:
        outlet: The link.
    """

    __slots__ = (
        "_arrived",
        "_dealt_with",
        "_dispatch",
        "_kept",
        "_last",
        "_outlet",
        "_receipts",
        "_unsaid",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._dispatch = Dispatch()
        self._receipts = Receipts()
        self._kept: dict[int, Envelope] = {}  # under way
        self._waiting: deque[Envelope] = deque()
        self._waiting_bytes = 0
        self._last = self._arrived = self._dealt_with = self._unsaid = 0

    # Sending -----------------------------------------------------------------------------------------

    def send(self, envelope: Envelope, *, for_others: bool = False) -> None:
        """Send an envelope, or have it wait for room on the link; it is kept until it is taken.

        Args:
            envelope: The envelope.
            for_others: Whether it is for nodes that the neighbour carries: many may wait then.

        Raises:
            Unavailable: too many wait already. It was not sent, and is not kept.
        """
        size, share = len(envelope.box), 1 if for_others else limits.EXCHANGE_OWN_SHARE
        if (
            len(self._waiting) >= limits.EXCHANGE_ENVELOPES_MAX // share
            or self._waiting_bytes + size > limits.EXCHANGE_BYTES_MAX // share
        ):
            raise Unavailable(
                f"{len(self._waiting)} envelopes of {self._waiting_bytes} bytes wait for a neighbour already",
                hint="send it again later",
            )
        self._waiting.append(envelope)
        self._waiting_bytes += size
        self.look()

    def taken(self, receipt: Taken) -> int:
        """The neighbour answers for envelopes; return how many of them it had no room for.

        Those are not sent again by themselves. Raises PeerError when the receipt is for what was not sent.
        """
        theirs, refused = self._dispatch.taken(receipt)
        for number in (*theirs, *refused):
            del self._kept[number]
        self.look()
        return len(refused)

    @property
    def open(self) -> int:
        """How many envelopes the neighbour does not answer for yet."""
        return len(self._kept) + len(self._waiting)

    def owed(self) -> int | None:
        """While the neighbour owes receipts: for how many envelopes it has given some. None: it owes none."""
        return self._dispatch.taken_count if self._kept else None

    def untaken(self) -> list[Envelope]:
        """Return what the neighbour does not answer for yet, in order."""
        return [*self._kept.values(), *self._waiting]

    def look(self) -> None:
        """Send what waits and give the receipt that is due, if the link was full when they came up."""
        if self._unsaid:
            self._give_receipt()
        self._pump()

    def _pump(self) -> None:
        """Send what waits, as far as the window and the link's queue go."""
        while self._waiting:
            envelope = self._waiting[0]
            size = len(envelope.box)
            if not self._dispatch.has_room(size):
                return
            try:
                self._outlet.send_nowait(Routed(envelope=envelope))
            except Unavailable:
                return  # the next look tries again
            self._waiting.popleft()
            self._waiting_bytes -= size
            self._last += 1
            self._dispatch.sent(self._last, size)
            self._kept[self._last] = envelope

    # Receiving ---------------------------------------------------------------------------------------

    def arrived(self) -> int:
        """An envelope has come; return its number, for :meth:`settle`. Raises PeerError: too many at once."""
        self._arrived += 1
        return self._receipts.arrived()

    def settle(self, number: int) -> None:
        """An envelope has been dealt with: its sender may forget it, and is told so in a moment."""
        self._receipts.settle(number)
        self._dealt_with += 1
        self._unsaid += 1
        if self._dealt_with == self._arrived or self._unsaid >= _RECEIPT_EVERY:
            self._give_receipt()

    def _give_receipt(self) -> None:
        """Tell the sender what has been dealt with; if its link is full, with the next look."""
        receipt = self._receipts.due()
        if receipt is None:
            return
        try:
            self._outlet.send_nowait(receipt)
        except Unavailable:
            return
        self._receipts.told(receipt)
        self._unsaid = 0
