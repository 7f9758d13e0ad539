"""What a distribution point keeps on its disk.

Within its quota a point holds what the devices in its scope need: first what is there, then what is not,
each by urgency; then what it was told to keep; then what it happens to have, most recently used first.
What is needed is never evicted for something else, however urgent: only a quota that became smaller can
do that, to the least urgent. Nothing is fetched that would not fit; whoever needs it has other sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from p2pdist.ids import InfoHash


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An artifact on the disk (whole or in part). ``used`` is a Unix time; ``length`` its full size."""

    info_hash: InfoHash
    length: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoragePlan:
    """What to do: evict first, then fetch. ``refused`` did not fit, with the reason for people."""

    fetch: tuple[InfoHash, ...]
    evict: tuple[InfoHash, ...]
    refused: Mapping[InfoHash, str]


def plan_storage(
    *,
    needed: Sequence[tuple[InfoHash, int]],
    keep: Sequence[InfoHash],
    held: Sequence[Held],
    quota_bytes: int,
) -> StoragePlan:
    """Plan the disk of a distribution point.

    Args:
        needed: What the scope needs, most urgent first, with each artifact's length in bytes.
        keep: What must not be evicted as long as it fits beside what is needed.
        held: What is there.
        quota_bytes: The space for artifacts; 0 is unlimited.
    """
    by_hash = {item.info_hash: item for item in held}
    lengths = {item.info_hash: item.length for item in held} | dict(needed)
    rest = sorted(held, key=lambda item: (-item.used, item.info_hash))
    order = sorted((info_hash for info_hash, _ in needed), key=lambda info_hash: info_hash not in by_hash)
    order += [info_hash for info_hash in keep if info_hash in by_hash]
    order += [item.info_hash for item in rest]
    room = quota_bytes if quota_bytes else sum(lengths.values())
    stays: dict[InfoHash, None] = {}
    refused: dict[InfoHash, str] = {}
    urgent = {info_hash for info_hash, _ in needed}
    for info_hash in dict.fromkeys(order):
        length = lengths[info_hash]
        if length <= room:
            stays[info_hash] = None
            room -= length
        elif info_hash in urgent:
            refused[info_hash] = f"{length} bytes do not fit: {room} of the quota of {quota_bytes} are left"
    return StoragePlan(
        fetch=tuple(h for h in stays if h not in by_hash),
        evict=tuple(item.info_hash for item in held if item.info_hash not in stays),
        refused=refused,
    )
