"""Which mirror is asked next, and when one that has failed is asked again. Pure; times are monotonic seconds.

A mirror is outside of the fleet: it may be slow, away, wrong or hostile, and none of that may cost more than
its own part. What it did wrong decides what happens to it:

=================  ==========================================================================
it                 it is asked again
=================  ==========================================================================
is away, stalls,   after 1 s, and twice as long each time until it has sent something; when it
breaks off, fails  says ``Retry-After``, after that (RFC 9110, section 10.2.3)
is of no use       not in this reading: it has no such file, or another one, knows no ranges,
                   redirects in circles or to where nothing is fetched from
lied               never for this artifact: what it sent does not match the signed hashes
=================  ==========================================================================
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.trust.catalog import Mirror

Fault = Literal["failed", "changed", "useless"]
"""What a mirror did. ``failed``: it may help to ask again. ``changed``: its file has become another one in
the middle of a piece, which has to be read from its start. ``useless``: not to be asked again. A lie is no
fault of an answer: hashes tell."""

_BACKOFF_S = 1.0
_SLOW = 8  # times slower than the best: a range from it would be waited for in the end
_SLOW_AFTER_S = 3.0  # of a request, until which it may be slow: connections begin slowly
_PROGRESS_BYTES = limits.PIECE_BYTES_MIN  # sent before it broke off: it works, and is asked again soon


class MirrorFailed(Unavailable):
    """A mirror did not give what was asked for.

    Args:
        what: What it did, in one clause.
        fault: Whether it may help to ask it again.
        retry_after_s: How long it wants to be left alone, if it said so.
    """

    def __init__(self, what: str, *, fault: Fault = "failed", retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.fault = fault
        self.retry_after_s = retry_after_s


class MirrorStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one mirror. ``reason`` is why it was dropped, or last failed; ``lied`` says the worst."""

    url: str
    received: int
    failures: int
    dropped: bool
    lied: bool
    reason: str


@dataclass(slots=True)
class _State:
    under_way: int = 0
    received: int = 0
    rate: float = math.inf  # until it is measured: each gets a chance
    failures: int = 0
    failures_in_row: int = 0
    rests_until: float = -math.inf
    dropped: bool = False
    lied: bool = False
    reason: str = ""


class Mirrors:
    """The mirrors of one artifact, as one reader knows them.

    Args:
        mirrors: Those that the signed target names.
        region: Where the reader is; mirrors of this region are asked first, of other regions last. If empty,
            regions do not matter.
    """

    def __init__(self, mirrors: Sequence[Mirror], *, region: str = "") -> None:
        self._region = region
        self._mirrors = tuple(mirrors)
        self._states = {mirror.url: _State() for mirror in mirrors}

    def choose(self, now: float) -> Mirror | None:
        """Return the best mirror that may be asked now; None when all are busy, resting or dropped.

        When the best has as many requests as one may have, the next one is asked beside it, unless it is so
        slow that everything would have to wait for it in the end.
        """
        slow = self._best_rate(now) / _SLOW
        free = [
            m
            for m in self._mirrors
            if self._is_free(state := self._states[m.url], now) and state.rate >= slow
        ]
        return min(free, key=self._rank, default=None)

    def handle_begun(self, url: str) -> None:
        """A request is under way."""
        self._states[url].under_way += 1

    def handle_bytes(self, url: str, count: int) -> None:
        """Bytes have come."""
        self._states[url].received += count

    def handle_done(self, url: str, *, count: int, seconds: float) -> None:
        """A request has ended as it should, after *count* bytes in *seconds*."""
        state = self._states[url]
        state.under_way -= 1
        if count:
            state.failures_in_row = 0
            rate = count / max(seconds, 1e-3)
            state.rate = rate if state.rate == math.inf else (3 * state.rate + rate) / 4

    def handle_failed(self, url: str, error: MirrorFailed, *, count: int, now: float) -> None:
        """A request has ended as it should not, after *count* bytes."""
        state = self._states[url]
        state.under_way -= 1
        state.failures += 1
        state.reason = error.what
        state.failures_in_row = 1 if count >= _PROGRESS_BYTES else state.failures_in_row + 1
        if error.fault == "useless":
            state.dropped = True
        # Requests that were under way together fail together: they count, but it rests only from now.
        wait = min(_BACKOFF_S * 2.0 ** min(state.failures_in_row - 1, 16), limits.MIRROR_BACKOFF_S_MAX)
        if error.retry_after_s is not None:
            wait = min(max(error.retry_after_s, _BACKOFF_S), limits.RETRY_AFTER_S_MAX)
        state.rests_until = max(state.rests_until, now + wait)

    def handle_lied(self, url: str, piece: int) -> None:
        """What it sent of a piece does not match the signed hashes."""
        state = self._states[url]
        if not state.lied:
            state.dropped = state.lied = True
            state.reason = f"it sent wrong bytes for piece {piece}"

    def is_wanted(self, url: str, *, count: int, seconds: float, now: float) -> bool:
        """Whether a request that brought *count* bytes in *seconds* goes on. It may be too slow."""
        best = self._best_rate(now, without=url)
        slow = seconds > _SLOW_AFTER_S and count / seconds < best / _SLOW
        return not self._states[url].dropped and not slow

    def has_lied(self, url: str) -> bool:
        """Whether it has sent wrong bytes."""
        return self._states[url].lied

    @property
    def none_left(self) -> bool:
        """Whether all of them are dropped."""
        return all(state.dropped for state in self._states.values())

    def statistics(self) -> tuple[MirrorStatistics, ...]:
        """Return what came of each."""
        return tuple(
            MirrorStatistics(
                url=url,
                received=state.received,
                failures=state.failures,
                dropped=state.dropped,
                lied=state.lied,
                reason=state.reason,
            )
            for url, state in self._states.items()
        )

    def _best_rate(self, now: float, *, without: str = "") -> float:
        """Return the highest measured rate of those that can be asked, in bytes per second; or 0."""
        rates = (
            state.rate
            for url, state in self._states.items()
            if url != without and not state.dropped and state.rests_until <= now
        )
        return max((rate for rate in rates if rate < math.inf), default=0.0)

    def _is_free(self, state: _State, now: float) -> bool:
        # One that has failed is tried with a single request first.
        most = 1 if state.failures_in_row else limits.MIRROR_REQUESTS_EACH_MAX
        return not state.dropped and state.rests_until <= now and state.under_way < most

    def _rank(self, mirror: Mirror) -> tuple[int, int, float]:
        away = 0
        if self._region and mirror.region != self._region:
            away = 2 if mirror.region else 1
        return away, mirror.priority, -self._states[mirror.url].rate


def parse_retry_after(text: str, *, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or a date. Unix time *now*; None if it is neither.

    Returns:
        Seconds from now, between 0 and :data:`~p2pdist.limits.RETRY_AFTER_S_MAX`.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        wait = float(text[:12])
    else:
        try:
            date = parsedate_to_datetime(text)
            wait = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return min(max(wait, 0.0), limits.RETRY_AFTER_S_MAX)


def server_of(url: str) -> str:
    """Return the server in a mirror's address, as reports name it: ``vendor.example``, or ``h:8443``."""
    parts = urlsplit(url)
    return (parts.hostname or "") + (f":{parts.port}" if parts.port not in (None, 443) else "")


def account_of(url: str) -> NodeId:
    """Return what stands for a mirror's server where bytes are accounted by node: no node has this id."""
    digest = hashlib.blake2b(f"mirror {server_of(url)}".encode(), digest_size=20).digest()
    return NodeId(base64.b32encode(digest).decode().lower())
