"""From structures to msgpack bytes and back, with every byte of input checked.

``msgpack`` parses within hard size limits; ``msgspec`` then checks the result against the type.
Unknown fields are ignored, so that a newer node can talk to an older one; missing or mistyped ones
are refused.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import msgpack
import msgspec

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError

T = TypeVar("T")

_NESTING_ITEMS_MAX = 100_000


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
        raw = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=bytes_max,
            max_bin_len=bytes_max,
            max_array_len=_NESTING_ITEMS_MAX,
            max_map_len=_NESTING_ITEMS_MAX,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise PeerError(f"a {name} is not valid msgpack ({error})") from error
    try:
        return cast(T, msgspec.convert(raw, kind, strict=True))
    except (msgspec.ValidationError, RecursionError, P2PValidation) as error:
        raise PeerError(f"a {name} is not valid: {error}") from error


P2PValidation = UsageError
"""What identifier parsers raise from a structure's ``__post_init__``."""
