"""Paragraphs of fields, as ``apt`` repositories write their indexes (deb822(5)), read as they come. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from p2pdist import limits
from p2pdist.errors import PeerError


class Paragraphs:
    """Takes bytes in any pieces, and gives each paragraph when it has ended: field names in lower case.

    Args:
        fields: The fields that are kept, in lower case; the others are read over.
        bytes_max: How large one paragraph may be.
    """

    def __init__(self, fields: Collection[str], *, bytes_max: int = limits.PACKAGE_BYTES_MAX) -> None:
        self._fields = {field.encode("ascii"): field for field in fields}
        self._bytes_max = bytes_max
        self._rest = b""
        self._size = 0
        self._found: dict[str, list[bytes]] = {}
        self._open: list[bytes] | None = None  # the field that a continued line belongs to

    def feed(self, data: bytes) -> Iterator[dict[str, str]]:
        """Yield the paragraphs that end in *data*.

        Raises:
            PeerError: this is no such text, or a paragraph is too large, or has a field twice.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        self._check_size(len(self._rest))
        for line in lines:
            if not line or line.isspace():
                yield from self._ended()
            else:
                self._take(line)

    def finish(self) -> Iterator[dict[str, str]]:
        """Yield the paragraph that ends with the text, if there is one. Raises PeerError."""
        yield from self.feed(b"\n\n")

    def _take(self, line: bytes) -> None:
        self._size += len(line) + 1
        self._check_size(0)
        if line[:1] in (b" ", b"\t"):
            if self._open is not None:
                self._open.append(line.strip())
            return
        name, colon, value = line.partition(b":")
        if not colon or not name:
            raise PeerError("an index has a line that is no field")
        self._open = None
        field = self._fields.get(name.lower())
        if field is None:
            return
        if field in self._found:
            raise PeerError(f"an index has the field {field} twice in one paragraph")
        self._open = self._found[field] = [value.strip()]

    def _ended(self) -> Iterator[dict[str, str]]:
        found, self._found, self._open, self._size = self._found, {}, None, 0
        if found:
            try:
                yield {name: b"\n".join(lines).decode() for name, lines in found.items()}
            except UnicodeDecodeError:
                raise PeerError("an index has a field that is not UTF-8") from None

    def _check_size(self, more: int) -> None:
        if self._size + more > self._bytes_max:
            raise PeerError(f"an index has a paragraph of more than {self._bytes_max} bytes")
