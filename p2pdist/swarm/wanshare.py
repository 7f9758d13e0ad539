"""One limit of the WAN for two who use it: libtorrent's peers on the other side, and mirrors.

What mirrors really take is taken off the peers' limit, each second; mirrors get nine tenths at most, and the
peers a tenth at least, so that neither stands still. Mirrors go first: what is read from them is what no peer
on the WAN needs to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import trio

from p2pdist import limits
from p2pdist.wire.messages import RateLimits

_LOOK_S: Final = 1.0
_LEAST: Final = 10
"""The part of the limit that stays for the other one, at least: a tenth."""

_AHEAD_S: Final = 0.25
"""How much may come at once: connections send in bursts."""


class WanShare:
    """Shares the WAN between peers and mirrors.

    Args:
        limit_peers: Sets the limits of peers.
    """

    def __init__(self, limit_peers: Callable[[RateLimits], None]) -> None:
        self._limit_peers = limit_peers
        self._rates = RateLimits()
        self._readings = 0
        self._free_at = 0.0
        self._count = 0
        self._counted_from = 0.0

    def set_rates(self, rates: RateLimits) -> None:
        """Limit both together from now on, in bytes per second; 0 is unlimited."""
        self._rates = rates
        if not self._readings:
            self._limit_peers(rates)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Something is read from mirrors in this block."""
        self._readings += 1
        try:
            yield
        finally:
            self._readings -= 1
            if not self._readings:
                self._limit_peers(self._rates)

    async def pass_bytes(self, count: int) -> None:
        """Wait until *count* bytes that a mirror has sent fit into the limit. Receive nothing meanwhile."""
        now = trio.current_time()
        self._count += count
        self.look()
        limit = self._rates.wan_down
        if limit:
            self._free_at = max(self._free_at, now - _AHEAD_S) + count * _LEAST / (limit * (_LEAST - 1))
            await trio.sleep_until(self._free_at)
        else:
            await trio.lowlevel.checkpoint()

    def look(self) -> None:
        """Adapt the limit of peers to what mirrors take; call it also while they send nothing."""
        now = trio.current_time()
        passed = now - self._counted_from
        if passed >= _LOOK_S:
            taken = int(self._count / min(passed, 2 * _LOOK_S))
            self._count, self._counted_from = 0, now
            down = self._rates.wan_down
            left = down and max(down - taken, down // _LEAST, limits.KIB)
            self._limit_peers(msgspec.structs.replace(self._rates, wan_down=left))
