"""Sizes, times and names as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

UNATTRIBUTED = "unattributed"
"""Stands for the sources of bytes of which it is not known who sent them."""

_FROM = {"origin": "the origin", UNATTRIBUTED: "nobody who could be named"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def plain(text: str) -> str:
    """Return *text* without what could steer a terminal: devices name themselves, and attackers too."""
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)


def size(count: int) -> str:
    """1536 is ``1.5 KiB``."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"


def source_word(role: str) -> str:
    """What a kind of source is called: a device that another one fetches from is its peer."""
    return "peer" if role == "device" else role


def by_source(received: Mapping[str, int], wasted: int) -> str:
    """``20.0 MiB from the origin (67%), 10.0 MiB from peers (33%), 16.0 KiB more in vain``."""
    total = sum(received.values())
    parts = [
        f"{size(count)} from {_FROM.get(role, f'{source_word(role)}s')} ({count / total:.0%})"
        for role, count in sorted(received.items())
        if count
    ]
    return ", ".join(parts + ([f"{size(wasted)} more in vain"] if wasted else [])) or "nothing yet"


def rate(bytes_per_s: int) -> str:
    """Like :func:`size`, a second; empty when nothing moves."""
    return f"{size(bytes_per_s)}/s" if bytes_per_s else ""


def moment(at: int | None) -> str:
    """Unix seconds in local time; a dash for never."""
    return "-" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def ago(at: int | None, now: float) -> str:
    """How long ago, roughly; a dash for never."""
    return "-" if at is None else f"{duration(now - at)} ago" if now > at else f"in {duration(at - now)}"


def duration(seconds: float) -> str:
    """90 is ``90 s``, 300 is ``5 min``."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def short(node: str) -> str:
    """Enough of a node id to tell nodes apart."""
    return node[:12]


def life(text: str) -> int:
    """Read a length of time such as ``90s``, ``30m``, ``12h`` or ``7d`` as seconds; a number is seconds.

    Raises:
        ValueError: it is neither.
    """
    units = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
    number, unit = (text[:-1], text[-1:]) if text[-1:] in units else (text, "s")
    if not number.isascii() or not number.isdigit() or len(number) > 9 or not int(number):
        raise ValueError(f"{text!r} is not a length of time: write 90s, 30m, 12h or 7d")
    return int(number) * units[unit]
