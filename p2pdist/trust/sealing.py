"""Sealed envelopes between a node and the admin server, and sealed boxes from strangers.

An envelope's box is PyNaCl's ``crypto_box`` between the two identity keys (converted to X25519). Inside,
before the data, stands the header again::

    sender (32 characters)  recipient (32 characters)  counter (8 bytes)  expires (8 bytes)  data

so that who changes the header outside, or turns an envelope around, gets it refused. Integers are
big-endian. The box is the nonce (24 bytes), the tag (16 bytes) and the ciphertext.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Annotated

import msgspec
import nacl.exceptions
from msgspec import Meta
from nacl.public import Box, PublicKey, SealedBox
from nacl.signing import VerifyKey

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import node_id_of
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.envelope import Envelope, Opened

_HEADER = struct.Struct(">32s32sQQ")


def seal(
    data: bytes,
    *,
    key: IdentityKey,
    recipient_public: bytes,
    counter: int,
    expires: int,
    nonce: bytes,
) -> Envelope:
    """Seal *data* so that only the recipient can read it, and knows that *key* sealed it.

    Args:
        data: An encoded message.
        key: The sender's identity.
        recipient_public: The recipient's identity key, 32 bytes.
        counter: Larger than in any envelope from this sender to this recipient before.
        expires: Unix seconds after which the recipient refuses it.
        nonce: 24 random bytes, never used twice.

    Raises:
        UsageError: the result is too large, or the recipient's key is not a key.
    """
    sender, recipient = key.node, node_id_of(recipient_public)
    header = _HEADER.pack(sender.encode(), recipient.encode(), counter, expires)
    box = bytes(_box(key, recipient_public, UsageError).encrypt(header + data, nonce))
    if len(box) > limits.ENVELOPE_BYTES_MAX:
        raise UsageError(f"a message of {len(data)} bytes does not fit into an envelope", hint="split it")
    return Envelope(sender=sender, recipient=recipient, counter=counter, expires=expires, box=box)


def open_envelope(envelope: Envelope, *, key: IdentityKey, sender_public: bytes, now: int) -> bytes:
    """Open an envelope for *key* from the holder of *sender_public*.

    Whether its counter was seen before is for the caller's :class:`ReplayWindow` to say.

    Args:
        now: Unix seconds.

    Raises:
        TrustError: it is for somebody else, from somebody else, altered, or past its expiry.
    """
    sender = node_id_of(sender_public)
    if envelope.recipient != key.node:
        raise TrustError(f"an envelope for {envelope.recipient} was opened by {key.node}")
    if envelope.sender != sender:
        raise TrustError(f"an envelope says that it is from {envelope.sender}, expected was {sender}")
    try:
        opened = _box(key, sender_public, TrustError).decrypt(envelope.box)
    except (nacl.exceptions.CryptoError, ValueError):
        raise TrustError(f"an envelope from {sender} does not open: it was altered or forged") from None
    header = _HEADER.pack(sender.encode(), key.node.encode(), envelope.counter, envelope.expires)
    if opened[: _HEADER.size] != header:
        raise TrustError(f"the header of an envelope from {sender} was altered")
    if now > envelope.expires + limits.CLOCK_SKEW_S:
        raise TrustError(
            f"an envelope from {sender} expired {now - envelope.expires} seconds ago",
            hint="if this happens again, compare the clocks",
        )
    return opened[_HEADER.size :]


def seal_anonymous(data: bytes, recipient_public: bytes) -> bytes:
    """Seal *data* for the holder of *recipient_public*; who sealed it does not show.

    Raises:
        UsageError: the recipient's key is not a key.
    """
    return bytes(SealedBox(_exchange_key(recipient_public, UsageError)).encrypt(data))


def open_anonymous(data: bytes, *, key: IdentityKey) -> bytes:
    """Open what :func:`seal_anonymous` made for *key*. Raises TrustError if it does not open."""
    try:
        return bytes(SealedBox(key.for_boxes().to_curve25519_private_key()).decrypt(data))
    except (nacl.exceptions.CryptoError, ValueError):
        raise TrustError("a sealed message does not open: it is for another key, or altered") from None


def shared_secret(key: IdentityKey, other_public: bytes) -> bytes:
    """Return the 32 bytes that *key* and the holder of *other_public* agree on, to derive keys from.

    Raises:
        UsageError: that is no key.
    """
    return bytes(_box(key, other_public, UsageError).shared_key())


class ReplayWindow:
    """Accepts each counter of one sender once, also out of order within the last *size* counters.

    What is older than the window counts as seen. Bounded: one integer of *size* bits.
    """

    def __init__(self, size: int = limits.REPLAY_WINDOW) -> None:
        self._size = size
        self._highest = 0
        self._seen = 0  # bit n: the counter `highest - n` was accepted

    def accept(self, counter: int) -> bool:
        """Take *counter*, and return whether it is new."""
        if counter > self._highest:
            shift = counter - self._highest
            self._seen = ((self._seen << shift) & self._mask if shift < self._size else 0) | 1
            self._highest = counter
            return True
        if not self.is_new(counter):
            return False
        self._seen |= 1 << (self._highest - counter)
        return True

    def is_new(self, counter: int) -> bool:
        """Whether :meth:`accept` would take *counter*."""
        offset = self._highest - counter
        return counter >= 1 and offset < self._size and (offset < 0 or not self._seen >> offset & 1)

    def opened(self) -> Opened:
        """Return what was accepted, to be told to the sender."""
        size = (self._seen.bit_length() + 7) // 8
        return Opened(highest=self._highest, seen=self._seen.to_bytes(size, "big"))

    @property
    def highest(self) -> int:
        """The largest counter that was accepted; 0 before the first."""
        return self._highest

    @property
    def _mask(self) -> int:
        return (1 << self._size) - 1

    def snapshot(self) -> bytes:
        """Return the window as bytes, to be kept on disk."""
        seen = self._seen.to_bytes(self._size // 8 + 1, "big")
        return msgspec.msgpack.encode(_Window(highest=self._highest, seen=seen))

    def restore(self, snapshot: bytes) -> None:
        """Take up where a :meth:`snapshot` left off. Raises UsageError if it is damaged."""
        try:
            window = msgspec.msgpack.decode(snapshot, type=_Window)
        except msgspec.DecodeError as error:
            raise UsageError(f"a saved replay window is damaged ({error})") from None
        self._highest = window.highest
        self._seen = int.from_bytes(window.seen, "big") & self._mask


class _Window(msgspec.Struct, frozen=True, kw_only=True):
    highest: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    seen: Annotated[bytes, Meta(max_length=64 * limits.KIB)]


@lru_cache(maxsize=limits.SEALING_BOXES_KEPT_MAX)  # agreeing on a key takes ten times as long as using it
def _box(key: IdentityKey, other_public: bytes, kind: type[UsageError] | type[TrustError]) -> Box:
    try:
        return Box(key.for_boxes().to_curve25519_private_key(), _exchange_key(other_public, kind))
    except nacl.exceptions.CryptoError:
        raise kind("a node's public key cannot be used for sealing") from None


def _exchange_key(public: bytes, kind: type[UsageError] | type[TrustError]) -> PublicKey:
    try:
        return VerifyKey(public).to_curve25519_public_key()
    except (nacl.exceptions.CryptoError, ValueError, TypeError):
        raise kind("a node's public key cannot be used for sealing") from None
