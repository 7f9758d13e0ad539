"""How fast a node may be now: the lowest of its own limits, its group's and its grant's, by the hour."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from p2pdist.core.rates import granted_rates, lowest_at
from p2pdist.swarm.session import Swarm
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.messages import DesiredState, RateLimits

_EVERY_S = 30.0


class Rates:
    """Applies the limits to a swarm.

    Args:
        swarm: The node's swarm.
        own: The node's own limits.
        desired: Returns what the admin server wants of it.
        grant: Returns its grant.
    """

    def __init__(
        self,
        swarm: Swarm,
        own: RateLimits,
        desired: Callable[[], DesiredState | None],
        grant: Callable[[], SeedGrant | None],
    ) -> None:
        self._swarm = swarm
        self._own = own
        self._desired = desired
        self._grant = grant

    def apply(self) -> None:
        """Apply what counts now."""
        local = time.localtime()
        desired, grant = self._desired(), self._grant()
        limits = [self._own]
        limits += [desired.rates] if desired is not None else []
        limits += [granted_rates(grant)] if grant is not None else []
        self._swarm.set_rates(lowest_at(limits, local.tm_hour * 60 + local.tm_min))

    async def run(self) -> None:
        """Follow the clock until cancelled."""
        while True:
            self.apply()
            await trio.sleep(_EVERY_S)
