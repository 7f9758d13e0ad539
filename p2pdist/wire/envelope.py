"""Envelopes: a message for one node, sealed so that the nodes on the way can route but not read it.

The box is PyNaCl's ``crypto_box`` (X25519, XSalsa20-Poly1305) between the two nodes' identity keys,
over the msgpack bytes of a message preceded by the header's fields, so that a changed header does
not open. Sealing and opening live in :mod:`p2pdist.trust.sealing`; here is only what is on the wire.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits

_NodeIdText = Annotated[str, Meta(pattern=r"^[a-z2-7]{32}$", max_length=32)]


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """Which envelopes of one sender a node has opened and dealt with, by their counters.

    ``seen`` is a number, big-endian: its bit n says that ``highest - n`` was opened. What is older than
    :data:`p2pdist.limits.REPLAY_WINDOW` counters will not be opened any more.
    """

    highest: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    seen: Annotated[bytes, Meta(max_length=limits.REPLAY_WINDOW // 8)]

    def has(self, counter: int) -> bool:
        """Whether the envelope with this counter was opened."""
        return counter <= self.highest and bool(self._bits >> (self.highest - counter) & 1)

    def is_past(self, counter: int) -> bool:
        """Whether the envelope with this counter would be refused as too old."""
        return counter <= self.highest - limits.REPLAY_WINDOW

    @property
    def _bits(self) -> int:
        return int.from_bytes(self.seen, "big")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A sealed message.

    ``counter`` grows with every envelope of one sender to one recipient and never repeats: the
    recipient refuses what it has already seen. ``expires`` is in Unix seconds.
    """

    sender: _NodeIdText
    recipient: _NodeIdText
    counter: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    expires: Annotated[int, Meta(ge=0, le=2**40)]
    box: Annotated[bytes, Meta(min_length=40, max_length=limits.ENVELOPE_BYTES_MAX)]
