"""Rate limits by time of day.

A :class:`~p2pdist.wire.messages.RateLimits` holds limits for the site and for the WAN. Its windows
lower them at certain times, both ways: ``08:00-18:00 wan=250000 site=2000000`` is at most 250,000 bytes
per second over the WAN and 2,000,000 within the site between these local times. One of the two may be
left out, and ``08:00-18:00=250000`` is short for the WAN alone. A window may span midnight; where several
apply, the lowest counts, as it does among the limits of a group, of a node's own file and of its grant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist.errors import UsageError
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.messages import RATE_WINDOW, RateLimits

BytesPerSecond = Annotated[int, Meta(ge=0, le=2**53)]

_WINDOW = re.compile(RATE_WINDOW)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateWindow:
    """From ``start_min`` (included) to ``end_min`` (not) of the local day: at most this, both ways.

    ``wan`` and ``site`` are bytes per second; 0 leaves the class as it is.
    """

    start_min: int
    end_min: int
    wan: int
    site: int

    def holds(self, minute: int) -> bool:
        """Whether *minute* of the day lies in the window."""
        if self.start_min <= self.end_min:
            return self.start_min <= minute < self.end_min
        return minute >= self.start_min or minute < self.end_min


class RatesTable(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in a configuration file: bytes per second, 0 is unlimited; ``windows`` as above."""

    site_up: BytesPerSecond = 0
    site_down: BytesPerSecond = 0
    wan_up: BytesPerSecond = 0
    wan_down: BytesPerSecond = 0
    windows: Annotated[tuple[str, ...], Meta(max_length=32)] = ()

    def limits(self) -> RateLimits:
        """Return the limits. Raises UsageError when a window is not written as it must be."""
        for window in self.windows:
            parse_window(window)
        return RateLimits(
            site_up=self.site_up,
            site_down=self.site_down,
            wan_up=self.wan_up,
            wan_down=self.wan_down,
            windows=list(self.windows),
        )


def parse_window(text: str) -> RateWindow:
    """Read ``HH:MM-HH:MM wan=BYTES site=BYTES``. Raises :class:`~p2pdist.errors.UsageError`.

    What :class:`~p2pdist.wire.messages.RateLimits` lets through can be read.
    """
    if not _WINDOW.match(text):
        raise UsageError(
            f"{text[:80]!r} is not a rate window",
            hint="write it as 08:00-18:00 wan=250000 site=2000000, and a night as 22:00-06:00",
        )
    times, limits = text[:11], text[11:]
    start, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in times.split("-"))
    if limits.startswith("="):
        limits = f"wan{limits}"
    found = {name: int(count) for name, _, count in (each.partition("=") for each in limits.split())}
    return RateWindow(start_min=start, end_min=end, wan=found.get("wan", 0), site=found.get("site", 0))


def granted_rates(grant: SeedGrant) -> RateLimits:
    """Return what a seed grant allows a distribution point over the WAN, in each direction."""
    return RateLimits(wan_up=grant.wan_bytes_per_s, wan_down=grant.wan_bytes_per_s)


def lowest_at(limits: Iterable[RateLimits], minute: int) -> RateLimits:
    """Return the lowest of each limit at *minute* (0 to 1,439) of the local day, without windows."""
    in_force = [each for rates in limits for each in (rates, *_windows_at(rates, minute))]
    return RateLimits(
        site_up=_lowest(rates.site_up for rates in in_force),
        site_down=_lowest(rates.site_down for rates in in_force),
        wan_up=_lowest(rates.wan_up for rates in in_force),
        wan_down=_lowest(rates.wan_down for rates in in_force),
    )


def _windows_at(rates: RateLimits, minute: int) -> Iterator[RateLimits]:
    for window in map(parse_window, rates.windows):
        if window.holds(minute):
            wan, site = window.wan, window.site
            yield RateLimits(site_up=site, site_down=site, wan_up=wan, wan_down=wan)


def _lowest(caps: Iterable[int]) -> int:
    return min((cap for cap in caps if cap > 0), default=0)
