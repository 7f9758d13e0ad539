"""What the two ends of a session say to each other on each of its paths.

A session is one byte stream in each direction, numbered from 0; the end of a direction has the number after
its last byte. On a path every frame is a four-byte big-endian length and that many bytes of msgpack.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.frames import NodeIdText, SessionIdText, Text

SESSION_PATH: Final = "/session"
"""Where a stream of a link that is a path of a session, or a part of one, is served."""

Offset = Annotated[int, Meta(ge=0, le=2**60)]


class PathOpening(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream of a link is opened with: whose path it is to be. Gateways on the way pass it on."""

    to: NodeIdText
    session: SessionIdText


class OnPath(msgspec.Struct, frozen=True, kw_only=True, tag_field="frame"):
    """Base of every frame on a path."""


class Hello(OnPath, frozen=True, kw_only=True, tag="hello"):
    """The first frame on every path, from both sides: what the sender has received and is ready to take.

    ``received`` is the number of the first byte that it lacks (the end counts as one byte), ``limit`` the
    number of the first byte that it does not take yet.
    """

    received: Offset
    limit: Offset


class Data(OnPath, frozen=True, kw_only=True, tag="data"):
    """Bytes of the stream, the first of them with the number ``offset``."""

    offset: Offset
    data: Annotated[bytes, Meta(min_length=1, max_length=limits.SESSION_CHUNK_BYTES)]


class End(OnPath, frozen=True, kw_only=True, tag="end"):
    """The stream ends before the number ``offset``."""

    offset: Offset


class Ack(OnPath, frozen=True, kw_only=True, tag="ack"):
    """As :class:`Hello`, at any later moment."""

    received: Offset
    limit: Offset


class Reset(OnPath, frozen=True, kw_only=True, tag="reset"):
    """The session is over at once; what is under way is thrown away."""

    reason: Text


class Ping(OnPath, frozen=True, kw_only=True, tag="ping"):
    """Asks for a :class:`Pong` with the same number on the same path, after any :class:`Hello`."""

    number: Offset


class Pong(OnPath, frozen=True, kw_only=True, tag="pong"):
    """The answer to a :class:`Ping`."""

    number: Offset


StreamFrame: TypeAlias = Hello | Data | End | Ack | Reset
"""What concerns the stream."""

PathFrame: TypeAlias = StreamFrame | Ping | Pong
