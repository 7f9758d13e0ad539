"""Which of two Debian versions is newer: the order of deb-version(7). Pure."""

from __future__ import annotations

import re
from typing import TypeAlias

from p2pdist import limits
from p2pdist.errors import PeerError

_Parts: TypeAlias = tuple[tuple[tuple[int, ...], int], ...]
VersionKey: TypeAlias = tuple[int, _Parts, _Parts]

_EPOCH = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
_UPSTREAM = re.compile(r"[0-9A-Za-z.+~:-]+\Z", re.ASCII)
_REVISION = re.compile(r"[0-9A-Za-z.+~]+\Z", re.ASCII)
_PARTS = re.compile(r"([^0-9]*)([0-9]*)")
_END = ((0,), 0)


def version_key(text: str) -> VersionKey:
    """Return a key: the newer of two versions has the greater one, equal ones have the same.

    Raises:
        PeerError: it is no version, or longer than a release's may be.
    """
    epoch, colon, rest = text.partition(":") if ":" in text else ("", "", text)
    upstream, hyphen, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    valid = _UPSTREAM.match(upstream) and (not hyphen or _REVISION.match(revision))
    if not valid or (colon and not _EPOCH.match(epoch)) or len(text) > limits.NAME_CHARS_MAX:
        raise PeerError(f"{text[:80]!r} is not a version")
    return int(epoch or 0), _key(upstream), _key(revision)


def _key(text: str) -> _Parts:
    """Cut *text* into what is not a number and what is, in turns, with an end that orders like nothing."""
    found = _PARTS.findall(text or "0")  # no revision counts as 0
    parts = [((*map(_weight, words), 0), int(number or 0)) for words, number in found if words or number]
    return (*parts, _END)


def _weight(character: str) -> int:
    """A tilde comes before the end, the end before letters, letters before everything else."""
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)


def is_newer(version: str, than: str) -> bool:
    """Whether *version* is newer than another one; False as well where one of them cannot be ordered."""
    try:
        return version_key(version.replace("_", "+")) > version_key(than.replace("_", "+"))
    except PeerError:
        return False
