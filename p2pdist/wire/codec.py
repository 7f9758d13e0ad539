"""From structures to msgpack bytes and back, with every byte of input checked.

Bytes from outside are parsed *as* the type that is expected: a length that the type does not allow is
refused before memory is spent on it, and nothing nests deeper than the type does. (A parser that builds
plain lists first takes seconds for a few kilobytes of nested array headers; see
``docs/decisions/0021``.) Unknown fields are ignored, so that a newer node can talk to an older one;
missing or mistyped ones are refused.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from typing import Any, TypeVar, cast

import msgpack
import msgspec

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError

T = TypeVar("T")


def encode(value: Any, *, bytes_max: int = limits.FRAME_BYTES_MAX) -> bytes:
    """Pack a structure.

    Raises:
        UsageError: the result is larger than *bytes_max*: the caller should have split it.
    """
    data = cast(bytes, msgpack.packb(msgspec.to_builtins(value, builtin_types=(bytes,)), use_bin_type=True))
    if len(data) > bytes_max:
        raise UsageError(f"a {type(value).__name__} of {len(data)} bytes exceeds the limit of {bytes_max}")
    return data


def decode(data: bytes, kind: type[T] | Any, *, bytes_max: int = limits.FRAME_BYTES_MAX) -> T:
    """Unpack and validate *data* as *kind* (a structure type or a tagged union of them).

    Raises:
        PeerError: too large, not msgpack, or not a valid *kind*. No other error leaves here.
    """
    name = getattr(kind, "__name__", "message")
    if len(data) > bytes_max:
        raise PeerError(f"a {name} of {len(data)} bytes exceeds the limit of {bytes_max}")
    try:
        return cast(T, _decoder(cast(Hashable, kind)).decode(data))
    except (msgspec.ValidationError, P2PValidation) as error:
        raise PeerError(f"a {name} is not valid: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"a {name} is not valid msgpack ({error})") from error


@functools.cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    """Return the parser for one type; there are as many as there are types in the code."""
    return msgspec.msgpack.Decoder(cast(Any, kind), strict=True)


P2PValidation = UsageError
"""What identifier parsers raise from a structure's ``__post_init__``."""
