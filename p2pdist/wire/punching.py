"""What the two ends of a session say to each other to find a better path. Inside of the session's TLS.

One end leads, the initiator. It numbers the attempts::

    leader     Begin(n)                      both gather their candidates (RFC 8445, section 5.1)
    follower   Described(n, held_s)          how it can be reached, and how long that took it
    leader     Described(n)                  how *it* can be reached; the follower starts to call when this
                                             comes, the leader half a round trip after it has gone

So both start at about the same moment, as they must: a NAT that hears the other side before its own may lose
the attempt. A new attempt ends the one before.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.wire.frames import Text

Number = Annotated[int, Meta(ge=1, le=2**31)]


class Punching(msgspec.Struct, frozen=True, kw_only=True, tag_field="signal"):
    """Base of every signal."""

    attempt: Number


class Begin(Punching, frozen=True, kw_only=True, tag="begin"):
    """Leader to follower: a new attempt."""


class Described(Punching, frozen=True, kw_only=True, tag="described"):
    """How the sender can be reached, and how long it had the other side's word before it said so."""

    description: Annotated[bytes, Meta(min_length=1, max_length=limits.PUNCH_DESCRIPTION_BYTES_MAX)]
    held_s: Annotated[float, Meta(ge=0, le=60)] = 0.0


class GivenUp(Punching, frozen=True, kw_only=True, tag="given-up"):
    """Follower to leader: nothing will come of it."""

    reason: Text


PunchSignal: TypeAlias = Begin | Described | GivenUp
