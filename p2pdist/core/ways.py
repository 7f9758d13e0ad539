"""Which way a resting device is woken best: by a distribution point, or straight from the admin server.

Of each way it is counted how often it was tried and how often the device then said that it was this one which
woke it, and how long that took. What is old counts for less and less. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import msgspec

WayName: TypeAlias = Literal["point", "magic", "straight"]
"""By a point; by a point with Wake-on-LAN; by the admin server itself."""

_REMEMBERED = 16  # tries, after which all counts are halved: a device that has moved is known after a few
_SMOOTHING = 4  # of delays: each counts a quarter


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one way: ``delay_ms`` from the first attempt until the device was there."""

    tried: int = 0
    reached: int = 0
    delay_ms: int = 0


Ways: TypeAlias = Mapping[WayName, Tried]


def after_trying(ways: Ways, way: WayName) -> Ways:
    """Return what is known once a way has been tried."""
    known = ways.get(way, Tried())
    if known.tried >= _REMEMBERED:
        known = Tried(tried=known.tried // 2, reached=known.reached // 2, delay_ms=known.delay_ms)
    return {**ways, way: msgspec.structs.replace(known, tried=known.tried + 1)}


def after_reaching(ways: Ways, way: WayName, delay_ms: int) -> Ways:
    """Return what is known once a device has come by a way that was tried."""
    known = ways.get(way, Tried(tried=1))
    smooth = known.delay_ms + (delay_ms - known.delay_ms) // _SMOOTHING if known.reached else delay_ms
    reached = min(known.tried, known.reached + 1)
    return {**ways, way: msgspec.structs.replace(known, reached=reached, delay_ms=smooth)}


def begins_straight(ways: Ways) -> bool:
    """Whether the admin server had better send at once, too: a point has not got through more often."""
    by_point = max(_chance(ways, "point"), _chance(ways, "magic"))
    return _chance(ways, "straight") > by_point


def _chance(ways: Ways, way: WayName) -> float:
    """How likely a way is to work; one half for one of which nothing is known."""
    known = ways.get(way, Tried())
    return (known.reached + 1) / (known.tried + 2)
