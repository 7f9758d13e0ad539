"""When something has to be done about which of many things, without a look at all of them."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_STALE_KEPT = 64


class Deadlines(Generic[Key]):
    """At most one deadline for each key. Times are monotonic seconds.

    Entries that are no longer true stay in the heap until they come to its top, or are more than the others.
    """

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._at: dict[Key, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Key]] = []

    def set(self, key: Key, at: float | None) -> None:
        """Give a key this deadline in place of the one that it had; None: it has none."""
        self._at.pop(key, None)
        if at is not None:
            number = next(self._numbers)  # so that keys are never compared
            self._at[key] = at, number
            heapq.heappush(self._heap, (at, number, key))
        if len(self._heap) > 2 * len(self._at) + _STALE_KEPT:
            self._heap = [(at, number, key) for key, (at, number) in self._at.items()]
            heapq.heapify(self._heap)

    def first(self) -> float | None:
        """Return the earliest deadline; None where there is none."""
        while self._heap:
            at, number, key = self._heap[0]
            if self._at.get(key) == (at, number):
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, now: float) -> list[Key]:
        """Remove and return the keys whose deadline has come, the earliest first."""
        due = []
        while (at := self.first()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            del self._at[key]
            due.append(key)
        return due
