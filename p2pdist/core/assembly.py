"""Pieces put together from what mirrors send, and who lied when one is wrong. Pure.

A wrong piece that came from one mirror convicts it. With parts of several it stays open who lied: the piece
is then read whole from one mirror, and that convicts this one, or shows by comparison whose part was wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from p2pdist import limits


class Part(NamedTuple):
    """The mirror from which a piece's bytes come, from an offset in it on."""

    url: str
    start: int


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece whose hash is right."""

    piece: int
    data: bytes
    parts: tuple[Part, ...]


class Partial:
    """What has come of a piece so far, and from whom.

    ``etag`` is that of the last answer (RFC 9110, 8.8.3).
    """

    __slots__ = ("data", "etag", "parts")

    def __init__(self) -> None:
        self.data = bytearray()
        self.parts: list[Part] = []
        self.etag = ""

    def append(self, url: str, etag: str, data: memoryview) -> None:
        """Add what *url* has sent next."""
        if not self.parts or self.parts[-1].url != url:
            self.parts.append(Part(url, len(self.data)))
        self.data += data
        self.etag = etag

    @property
    def urls(self) -> set[str]:
        """Return who has sent some of it."""
        return {part.url for part in self.parts}


class Assembly:
    """Judges what was put together.

    Args:
        is_right: Whether bytes are a piece, by the signed hashes.
        lied: Told of a mirror that has sent wrong bytes for a piece.
    """

    def __init__(self, is_right: Callable[[int, bytes], bool], lied: Callable[[str, int], None]) -> None:
        self._is_right = is_right
        self._lied = lied
        self._refused: dict[int, Partial] = {}
        self.refusals = 0

    def may_go_on(self, piece: int, partial: Partial, url: str) -> bool:
        """Whether *url* may complete what was begun; one that is in doubt has to come from one mirror."""
        return piece not in self._refused or partial.urls == {url}

    def judge(self, piece: int, partial: Partial) -> Piece | None:
        """Return the piece if it is right.

        If not, or if that explains an earlier refusal, somebody has lied.
        """
        data = bytes(partial.data)
        if self._is_right(piece, data):
            self._compare(piece, data)
            return Piece(piece=piece, data=data, parts=tuple(partial.parts))
        self.refusals += 1
        if len(partial.urls) == 1:
            self._lied(partial.parts[0].url, piece)
        else:
            while len(self._refused) >= limits.MIRROR_REFUSED_KEPT:
                del self._refused[next(iter(self._refused))]
            self._refused[piece] = partial
        return None

    def _compare(self, piece: int, right: bytes) -> None:
        refused = self._refused.pop(piece, None)
        if refused is None:
            return
        ends = [*(part.start for part in refused.parts[1:]), len(refused.data)]
        for part, end in zip(refused.parts, ends, strict=True):
            if refused.data[part.start : end] != right[part.start : end]:
                self._lied(part.url, piece)
