"""The datagrams that wake one device: one for each way, so that the device can say which of them it was."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.core.ways import WayName, begins_straight
from p2pdist.server.control.devices import Device
from p2pdist.store.waking import WakeRecord
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.wakes import WakeKey
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.wakes import Wake, WakeOrder, WakeReason


@dataclass(slots=True, kw_only=True)
class Sealed:
    """The datagrams of one device, the same for all attempts, so that a repeated one is recognised.

    Attributes:
        order: What a distribution point needs.
        straight: What the admin server sends itself.
        straight_first: Whether it does so from the first attempt on.
        counters: By which the device knows them apart.
        tried: The ways on which any was sent.
    """

    order: WakeOrder
    straight: bytes
    straight_first: bool
    counters: Mapping[WayName, int]
    tried: set[WayName] = field(default_factory=set)

    def way(self, counter: int) -> WayName | None:
        """Return the way of the datagram with a counter."""
        return next((way for way, own in self.counters.items() if own == counter), None)


class WakeSealer:
    """Seals wakes for the admin server.

    Args:
        key: Its identity.
        reserve: Reserves counters in the store; returns the number before the first. Blocking.
        threads: Limits how many threads use the store at once.
    """

    def __init__(
        self, key: IdentityKey, reserve: Callable[[int], int], threads: trio.CapacityLimiter
    ) -> None:
        self._key = key
        self._reserve = reserve
        self._threads = threads
        self._counter = self._reserved = 0

    async def seal(self, device: Device, record: WakeRecord, reason: WakeReason) -> Sealed:
        """Seal one datagram for each way.

        Raises:
            Unavailable: no counters can be reserved.
        """
        place = record.place
        counters: dict[WayName, int] = {}
        datagrams: dict[WayName, bytes] = {}
        names: tuple[WayName, ...] = ("straight", "point", "magic") if place.macs else ("straight", "point")
        key = WakeKey(self._key, device.public)
        for way in names:
            counters[way] = await self._next_counter()
            wake = Wake(
                counter=counters[way],
                expires=int(time.time()) + limits.WAKE_LIFE_S,
                reason=reason,
                from_sleep=way == "magic",
            )
            datagrams[way] = key.seal(wake, nacl.utils.random(24))
        order = WakeOrder(
            node=device.node,
            endpoints=[Endpoint(host=host, port=place.port) for host in place.addresses],
            port=place.port,
            datagram=datagrams["point"],
            macs=place.macs,
            magic=datagrams.get("magic"),
        )
        return Sealed(
            order=order,
            straight=datagrams["straight"],
            straight_first=begins_straight(record.ways),
            counters=counters,
        )

    async def _next_counter(self) -> int:
        if self._counter >= self._reserved:
            first = await trio.to_thread.run_sync(self._reserve, limits.WAKE_COUNTERS, limiter=self._threads)
            self._counter, self._reserved = first, first + limits.WAKE_COUNTERS
        self._counter += 1
        return self._counter
