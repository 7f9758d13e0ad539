"""Header blocks of a link's streams (RFC 9113, 8): what asks, what answers, and why a stream broke off.

    asks     ``:method``, ``:scheme``, ``:authority``, ``:path``; ``opening`` where a byte stream is wanted
    answers  ``:status``
    breaks   trailers: ``problem``

``opening`` and ``problem`` are msgpack in base64; HPACK keeps neither in its tables.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Final, TypeAlias

from hpack import NeverIndexedHeaderTuple

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_PATH_CHARS_MAX: Final = 128


def asking(path: str, opening: bytes) -> list[tuple[bytes, bytes]]:
    """Return what opens a stream on *path*."""
    headers = [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":authority", b"p2pdist"),
        (b":path", path.encode()),
    ]
    return headers + ([_carrying(b"opening", opening)] if opening else [])


def answering(status: int) -> list[tuple[bytes, bytes]]:
    """Return what begins an answer."""
    return [(b":status", str(status).encode())]


def breaking(problem: bytes) -> list[tuple[bytes, bytes]]:
    """Return what ends a stream that was broken off."""
    return [_carrying(b"problem", problem)]


def path_of(headers: Headers) -> str:
    """Return what is asked for; empty where that makes no sense."""
    fields = dict(headers)
    path = fields.get(b":path", b"")
    if fields.get(b":method") != b"POST" or len(path) > _PATH_CHARS_MAX or not path.isascii():
        return ""
    text = path.decode()
    return text if text.isprintable() else ""


def opening_of(headers: Headers) -> bytes:
    """Return what a byte stream is for; empty where nothing is said, or nonsense."""
    return _carried(headers, b"opening")


def status_of(headers: Headers) -> int:
    """Return how a question was taken; 0 where that makes no sense."""
    status = dict(headers).get(b":status", b"")
    return int(status) if status.isdigit() and len(status) == 3 else 0


def problem_of(headers: Headers) -> bytes:
    """Return why a stream broke off; empty where nothing is said, or nonsense."""
    return _carried(headers, b"problem")


def _carrying(name: bytes, data: bytes) -> tuple[bytes, bytes]:
    header: tuple[bytes, bytes] = NeverIndexedHeaderTuple(name, base64.b64encode(data))
    return header


def _carried(headers: Headers, name: bytes) -> bytes:
    try:
        return base64.b64decode(dict(headers).get(name, b""), validate=True)
    except binascii.Error:
        return b""
