"""How often sources that anybody can invent may do something, in memory that does not grow with them.

Each source has a bucket of tokens, one of a fixed number, chosen by a keyed hash: a flood empties the
bucket of its own source, and shares it by chance with one source in thousands; nobody outside knows which.
"""

from __future__ import annotations

import hashlib
from array import array


class Bucket:
    """One bucket of tokens: *burst* at once, *per_s* in the long run. Times are monotonic seconds."""

    __slots__ = ("_burst", "_per_s", "_then", "_tokens")

    def __init__(self, *, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = burst
        self._then = now

    def has(self, now: float) -> bool:
        """Return whether there is a token."""
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._per_s)
        self._then = now
        return self._tokens >= 1

    def take(self, now: float) -> bool:
        """Take a token; return whether there was one."""
        taken = self.has(now)
        self._tokens -= taken
        return taken


class SourceBuckets:
    """A bucket for each source, as far as they go.

    Args:
        count: How many buckets; each has 16 bytes.
        per_s: Tokens that one source gets in a second ...
        burst: ... and how many it has at most.
        key: 16 or more bytes that nobody outside can guess.
        now: The time, in monotonic seconds.
    """

    def __init__(self, count: int, *, per_s: float, burst: float, key: bytes, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._key = key
        self._tokens = array("d", [burst]) * count
        self._then = array("d", [now]) * count

    def take(self, source: bytes, now: float) -> bool:
        """Take a token from the bucket of *source*; return whether there was one."""
        digest = hashlib.blake2b(source, digest_size=8, key=self._key).digest()
        number = int.from_bytes(digest, "big") % len(self._tokens)
        tokens = min(self._burst, self._tokens[number] + (now - self._then[number]) * self._per_s)
        self._then[number] = now
        self._tokens[number] = tokens - (tokens >= 1)
        return tokens >= 1
