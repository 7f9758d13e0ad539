"""Sealing what a run of a task needs for the node that does it."""

from __future__ import annotations

import hashlib
from typing import TypeVar

import msgspec

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import open_anonymous, seal_anonymous
from p2pdist.wire import codec
from p2pdist.wire.secrets import BoxedSecrets

S = TypeVar("S", bound=msgspec.Struct)


def seal_secrets(secrets: msgspec.Struct, *, work: bytes, public: bytes, expires: int) -> bytes:
    """Seal *secrets* so that only one node can read them, and uses them for nothing but *work*.

    Args:
        secrets: A structure that belongs to the kind of work.
        work: The packed work.
        public: The node's identity key, 32 bytes.
        expires: Unix seconds after which the node refuses them.

    Raises:
        UsageError: they are too large, or that is no key.
    """
    boxed = BoxedSecrets(
        work=hashlib.sha256(work).digest(),
        expires=expires,
        secrets=codec.encode(secrets, bytes_max=limits.SECRETS_BYTES_MAX),
    )
    return seal_anonymous(codec.encode(boxed), public)


def open_secrets(box: bytes, kind: type[S], *, work: bytes, key: IdentityKey, now: int) -> S:
    """Open what :func:`seal_secrets` made.

    Args:
        box: The sealed box.
        kind: What must be in it.
        work: The packed work that is to be done with it.
        key: This node's identity.
        now: Unix seconds.

    Raises:
        TrustError: it is for another node, other work or another kind of it, was altered, or came too late.
    """
    try:
        boxed: BoxedSecrets = codec.decode(open_anonymous(box, key=key), BoxedSecrets)
        if boxed.work != hashlib.sha256(work).digest():
            raise TrustError(
                "the secrets were sealed for other work than this",
                hint="compare the versions of p2pdist and p2pdist-server; if they are the same, the admin"
                " server has altered the work",
            )
        if now > boxed.expires + limits.CLOCK_SKEW_S:
            raise TrustError("the secrets came too late", hint="give them again, and compare the clocks")
        return codec.decode(boxed.secrets, kind, bytes_max=limits.SECRETS_BYTES_MAX)
    except PeerError:  # without its words, which may repeat what is in there
        raise TrustError(f"what was sealed are no {kind.__name__}") from None
