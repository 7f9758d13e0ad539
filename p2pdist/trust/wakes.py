"""Sealing and opening wakes: between the admin server and one device, with a key for nothing else.

From the secret that the two identity keys agree on (X25519, as for envelopes), keyed BLAKE2b derives a key
for XSalsa20-Poly1305 and the tag by which the device knows its datagrams. Who has not seen one cannot make
one that passes the tag, and who has seen one cannot make another that opens.
"""

from __future__ import annotations

import hashlib

import nacl.exceptions
import nacl.secret

from p2pdist.errors import TrustError, UsageError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import shared_secret
from p2pdist.wire.wakes import (
    DATAGRAM_BYTES,
    MAGIC,
    NONCE_BYTES,
    TAG_BYTES,
    Wake,
    decode_wake,
    encode_wake,
)

_PURPOSE = b"p2pdist wake 1"


class WakeKey:
    """What the admin server and one device share for wakes.

    Args:
        key: The identity of one of them.
        other_public: The identity key of the other, 32 bytes.

    Raises:
        UsageError: that is no key.
    """

    def __init__(self, key: IdentityKey, other_public: bytes) -> None:
        secret = shared_secret(key, other_public)
        size = nacl.secret.SecretBox.KEY_SIZE
        derived = hashlib.blake2b(_PURPOSE, digest_size=size + TAG_BYTES, key=secret).digest()
        self._box = nacl.secret.SecretBox(derived[:size])
        self.prefix = MAGIC + derived[size:]
        """How each datagram between the two begins."""

    def seal(self, wake: Wake, nonce: bytes) -> bytes:
        """Return the datagram. *nonce*: 24 random bytes, never used twice.

        Raises:
            UsageError: the nonce has another length.
        """
        if len(nonce) != NONCE_BYTES:
            raise UsageError(f"a nonce of {len(nonce)} bytes", hint=f"it has {NONCE_BYTES}")
        return self.prefix + bytes(self._box.encrypt(encode_wake(wake), nonce))

    def open(self, datagram: bytes, *, newer_than: int, now: int) -> Wake:
        """Open a datagram; those that are not for this device cost a comparison.

        Args:
            newer_than: The largest counter that was taken; what is not above it was replayed or repeated.
            now: Unix seconds.

        Raises:
            TrustError: it is for somebody else, forged, seen before, or past its expiry.
            PeerError: it opens, and holds no wake.
        """
        if len(datagram) != DATAGRAM_BYTES or not datagram.startswith(self.prefix):
            raise TrustError("a datagram is no wake for this device")
        try:
            wake = decode_wake(self._box.decrypt(datagram[len(self.prefix) :]))
        except nacl.exceptions.CryptoError:
            raise TrustError("a wake does not open: it was altered or forged") from None
        if wake.counter <= newer_than:
            raise TrustError("a wake has come before")
        if now > wake.expires:
            raise TrustError(f"a wake expired {now - wake.expires} seconds ago")
        return wake
