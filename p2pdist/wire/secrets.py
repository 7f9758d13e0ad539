"""What a run of a task needs and nobody may read but the node that does it: a password, a private key.

The operator's command line seals it for the node, together with what it is for. The admin server keeps the
box in its memory, and hands it out when the node asks; neither writes it down.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.message import UnixSeconds

Box = Annotated[bytes, Meta(max_length=limits.SECRETS_BOX_BYTES_MAX)]


class BoxedSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a box. ``work`` is the SHA-256 of the packed work that it is for, and for no other."""

    work: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expires: UnixSeconds
    secrets: Box
    """A structure that belongs to the kind of work, packed."""

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return f"BoxedSecrets(expires={self.expires}, …)"
