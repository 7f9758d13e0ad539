"""What a node can be given to do besides installing and serving: one structure for each kind of work.

An assignment carries its work as packed bytes, and only who is to do it parses them: a node that does not
know a kind refuses that one assignment, and takes in the rest of its desired state. To add a kind: a
structure in a module of its own, and its name in :data:`AnyWork`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.wire import codec
from p2pdist.wire.following import Follow
from p2pdist.wire.installing import Install
from p2pdist.wire.mirroring import ReadMirrors
from p2pdist.wire.polling import Poll

AnyWork: TypeAlias = Poll | ReadMirrors | Install | Follow


class _Named(msgspec.Struct, frozen=True):
    """What names its kind; of one structure alone msgspec does not ask for its tag."""

    work: str


def kind_of(work: AnyWork) -> str:
    """Return the name of a kind of work, as it is on the wire."""
    return str(type(work).__struct_config__.tag)


def encode_work(work: AnyWork) -> bytes:
    """Pack a piece of work. Raises UsageError when it is larger than an assignment may be."""
    try:
        return codec.encode(work, bytes_max=limits.WORK_BYTES_MAX)
    except UsageError as error:
        raise UsageError(error.what, hint="split it into several tasks") from None


def decode_work(data: bytes) -> AnyWork:
    """Unpack and check a piece of work.

    Raises:
        PeerError: it is not valid, or of a kind that this version does not know.
    """
    codec.decode(data, _Named, bytes_max=limits.WORK_BYTES_MAX)
    work: AnyWork = codec.decode(data, AnyWork, bytes_max=limits.WORK_BYTES_MAX)
    return work
