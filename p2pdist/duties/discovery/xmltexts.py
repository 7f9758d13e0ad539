"""The texts in XML that strangers wrote, without anything that XML could be made to do.

Document types are refused, so there are no entities: nothing expands, and nothing is fetched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from xml.parsers import expat

from p2pdist.errors import PeerError

_DEPTH_MAX = 32
_TEXTS_MAX = 64
_TEXT_CHARS_MAX = 4_096


def read_texts(data: bytes, wanted: Collection[str], *, bytes_max: int) -> dict[str, list[str]]:
    """Return the texts directly in elements whose names are *wanted*, in order.

    Args:
        wanted: Names as ``namespace local``, with one blank between.

    Raises:
        PeerError: too large, not XML, too deep, or with a document type.
    """
    if len(data) > bytes_max:
        raise PeerError(f"XML of {len(data)} bytes exceeds the limit of {bytes_max}")
    reader = _Reader(wanted)
    try:
        reader.parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise PeerError(f"it is not XML ({error})") from None
    return dict(reader.found)


class _Reader:
    def __init__(self, wanted: Collection[str]) -> None:
        self.found: dict[str, list[str]] = defaultdict(list)
        self._wanted = frozenset(wanted)
        self._open: list[str] = []
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = _refuse

    def _start(self, name: str, _: object) -> None:
        if len(self._open) >= _DEPTH_MAX:
            raise PeerError("XML is nested too deep")
        self._open.append(name)
        if name in self._wanted:
            if len(self.found[name]) >= _TEXTS_MAX:
                raise PeerError("XML says one thing too often")
            self.found[name].append("")

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        name = self._open[-1]
        if name in self._wanted:
            self.found[name][-1] = (self.found[name][-1] + text)[:_TEXT_CHARS_MAX]


def _refuse(*_: object) -> None:
    raise PeerError("XML has a document type, which is refused")
