"""Frames of a punched path and their flow control. No I/O.

SCTP's own receiver window bounds nothing here: the data channel takes every message off it at once. So
each side starts with credit for :data:`~p2pdist.limits.PUNCH_WINDOW_BYTES` and gets more as the other
side's reader takes data out. A data frame costs its bytes, and at least a minimum, so that the credit
bounds the number of frames too. One message of the channel is one frame::

    0x00  data      1 to PUNCH_FRAME_BYTES bytes
    0x01  credit    4 bytes, big-endian: so much more may be sent
    0x02  close     nothing: no data follows from this side
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError

_DATA, _CREDIT, _CLOSE = 0, 1, 2
_AMOUNT = struct.Struct("!I")
_GRANT_BYTES = limits.PUNCH_WINDOW_BYTES // 4
"""Credit is given back in quarters of the window: few frames, and never a sender that waits for crumbs."""

CLOSE = bytes([_CLOSE])
"""The frame that ends one direction."""


@dataclass(frozen=True, slots=True)
class Data:
    """Content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """Leave to send *amount* more."""

    amount: int


@dataclass(frozen=True, slots=True)
class Close:
    """The other side sends nothing more."""


Frame: TypeAlias = Data | Credit | Close


def parse_frame(message: bytes) -> Frame:
    """Return what *message* says.

    Raises:
        PeerError: it is empty, of an unknown kind, or has the wrong size. No other error leaves here.
    """
    kind, body = message[:1], message[1:]
    if kind == bytes([_DATA]) and 1 <= len(body) <= limits.PUNCH_FRAME_BYTES:
        return Data(body)
    if kind == bytes([_CREDIT]) and len(body) == _AMOUNT.size:
        return Credit(*_AMOUNT.unpack(body))
    if message == CLOSE:
        return Close()
    name = f"of kind {kind[0]} and {len(message)} bytes" if kind else "without a byte"
    raise PeerError(f"a frame {name} is none that we know")


def cost(size_bytes: int) -> int:
    """Return the credit that a data frame of so many bytes takes."""
    return max(size_bytes, limits.PUNCH_FRAME_COST_MIN)


class Flow:
    """The credit of one side of a path, in both directions.

    Attributes:
        peer_closed: The other side has said that it sends nothing more.
        sent_bytes: Content sent so far.
        received_bytes: Content received so far.
    """

    __slots__ = ("_credit", "_expected", "_owed", "peer_closed", "received_bytes", "sent_bytes")

    def __init__(self) -> None:
        self._credit = limits.PUNCH_WINDOW_BYTES  # what we may still send
        self._expected = limits.PUNCH_WINDOW_BYTES  # what the other side may still send
        self._owed = 0  # what was taken out and not given back yet
        self.peer_closed = False
        self.sent_bytes = 0
        self.received_bytes = 0

    @property
    def sendable_bytes(self) -> int:
        """How many bytes the next data frame may have; 0 while there is no credit."""
        if self._credit < limits.PUNCH_FRAME_COST_MIN:
            return 0
        return min(self._credit, limits.PUNCH_FRAME_BYTES)

    def send(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the frame with *data*, and count it.

        Raises:
            UsageError: it is empty, or more than :attr:`sendable_bytes`.
        """
        if not 1 <= len(data) <= self.sendable_bytes:
            raise UsageError(f"a frame of {len(data)} bytes does not fit into {self.sendable_bytes}")
        self._credit -= cost(len(data))
        self.sent_bytes += len(data)
        return bytes([_DATA]) + data

    def receive(self, frame: Frame) -> None:
        """Count what came.

        Raises:
            PeerError: data beyond the credit or after the close, or credit for what we never sent.
        """
        match frame:
            case Data(data):
                self._expect_more()
                if cost(len(data)) > self._expected:
                    raise PeerError(f"{len(data)} bytes came where credit was left for {self._expected}")
                self._expected -= cost(len(data))
                self.received_bytes += len(data)
            case Credit(amount):
                if not 0 < amount <= limits.PUNCH_WINDOW_BYTES - self._credit:
                    raise PeerError(f"credit of {amount} came for what was not sent")
                self._credit += amount
            case Close():
                self._expect_more()
                self.peer_closed = True

    def consume(self, size_bytes: int) -> bytes | None:
        """Count a data frame of so many bytes as read; return a credit frame if it is time for one."""
        self._owed += cost(size_bytes)
        if self._owed < _GRANT_BYTES or self.peer_closed:
            return None
        amount, self._owed = self._owed, 0
        self._expected += amount
        return bytes([_CREDIT]) + _AMOUNT.pack(amount)

    def _expect_more(self) -> None:
        if self.peer_closed:
            raise PeerError("something came after the end of the stream")
