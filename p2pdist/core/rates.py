"""Rate limits by time of day.

A :class:`~p2pdist.wire.messages.RateLimits` holds limits for the site and for the WAN. Its windows
lower the WAN limits at certain times: ``08:00-18:00=250000`` is 250,000 bytes per second, both ways,
between these local times; a window may span midnight; where several apply, the lowest counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from p2pdist.errors import UsageError
from p2pdist.wire.messages import RateLimits

_WINDOW = re.compile(r"(\d\d):(\d\d)-(\d\d):(\d\d)=(\d{1,15})\Z")
_DAY_MIN = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWindow:
    """From ``start_min`` (included) to ``end_min`` (not) of the local day: at most this, both ways."""

    start_min: int
    end_min: int
    bytes_per_s: int

    def holds(self, minute: int) -> bool:
        """Whether *minute* of the day lies in the window."""
        if self.start_min <= self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


def parse_window(text: str) -> RateWindow:
    """Read ``HH:MM-HH:MM=BYTES``. Raises :class:`~p2pdist.errors.UsageError`."""
    found = _WINDOW.match(text)
    numbers = [int(part) for part in found.groups()] if found else []
    if not numbers or max(numbers[0], numbers[2]) > 24 or max(numbers[1], numbers[3]) > 59:
        raise UsageError(f"{text!r} is not a rate window", hint="write it as 08:00-18:00=250000")
    start, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if max(start, end) > _DAY_MIN:
        raise UsageError(f"{text!r} ends after midnight", hint="write 22:00-06:00=… for a night")
    return RateWindow(start_min=start, end_min=end, bytes_per_s=numbers[4])


def rates_at(rates: RateLimits, minute: int) -> RateLimits:
    """Return the limits in force at *minute* (0 to 1,439) of the local day, without windows."""
    caps = [window.bytes_per_s for window in map(parse_window, rates.windows) if window.holds(minute)]
    return msgspec.structs.replace(
        rates,
        wan_up=_lowest([rates.wan_up, *caps]),
        wan_down=_lowest([rates.wan_down, *caps]),
        windows=[],
    )


def within_grant(rates: RateLimits, wan_bytes_per_s: int) -> RateLimits:
    """Lower the WAN limits to what a seed grant allows; 0 allows anything."""
    return msgspec.structs.replace(
        rates,
        wan_up=_lowest([rates.wan_up, wan_bytes_per_s]),
        wan_down=_lowest([rates.wan_down, wan_bytes_per_s]),
    )


def _lowest(caps: list[int]) -> int:
    return min((cap for cap in caps if cap > 0), default=0)
