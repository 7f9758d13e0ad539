"""What all messages between a node and the admin server have in common; they stand in the modules beside."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

Identifier = Annotated[str, Meta(min_length=1, max_length=64)]
UnixSeconds = Annotated[int, Meta(ge=0, le=2**40)]


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="message"):
    """Base of every message."""
