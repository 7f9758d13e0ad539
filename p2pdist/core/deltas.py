"""Which deltas are made of a new release, and which one a node takes. Pure rules.

A delta makes a release's artifact from an older one. It is made against the last few releases of the same
product, platform and channel, and kept where it saves enough. A node takes the smallest of those whose older
artifact it has, whose packing it knows and for which it has the memory; else it takes the whole artifact.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from p2pdist import limits
from p2pdist.trust.catalog import Delta, Release

_WORKING_BYTES = 192 * limits.MIB  # a Python process; xz with its tables and its blocks of 24 MiB


def bases_for(release: Release, known: Iterable[Release]) -> list[Release]:
    """Return the releases from which deltas to *release* are to be made, the newest first.

    Two releases with the same content are one base, and one with the content of *release* is none.
    """
    older = [
        each
        for each in known
        if (each.channel, each.product, each.platform) == (release.channel, release.product, release.platform)
        and each.sequence < release.sequence
        and each.sha256 != release.sha256
    ]
    by_content = {each.sha256: each for each in sorted(older, key=lambda each: each.sequence)}
    newest = sorted(by_content.values(), key=lambda each: (-each.sequence, each.target))
    return newest[: limits.DELTA_BASES]


def is_worth(delta_bytes: int, artifact_bytes: int) -> bool:
    """Whether a delta saves so much of its artifact that it is kept."""
    if artifact_bytes < limits.DELTA_ARTIFACT_BYTES_MIN:
        return False
    return delta_bytes * 100 <= limits.DELTA_SIZE_PERCENT_MAX * artifact_bytes


def window_log(base_bytes: int, new_bytes: int) -> int:
    """Return the binary logarithm of the window that reaches over the base and the new content."""
    return max(10, (base_bytes + new_bytes - 1).bit_length())


def memory_bytes(delta: Delta) -> int:
    """Return how much memory applying a delta takes at most: the base, for a moment twice, and the result."""
    return delta.base_unpacked + max(delta.base_unpacked, delta.unpacked) + _WORKING_BYTES


def choose_delta(
    release: Release,
    *,
    has: Callable[[Delta], bool],
    packings: Collection[str],
    free_bytes: int,
) -> Delta | None:
    """Choose the delta by which a node fetches *release*; None if it fetches the whole artifact.

    Args:
        release: What it fetches.
        has: Whether it has the base of a delta.
        packings: Those that it knows.
        free_bytes: The memory that it may use.
    """
    usable = [
        delta
        for delta in release.deltas
        if delta.length < release.length
        and delta.packing in packings
        and memory_bytes(delta) <= free_bytes
        and has(delta)
    ]
    return min(usable, key=lambda delta: (delta.length, delta.info_hash), default=None)
