"""Watches over a neighbour while it carries this node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import trio

from p2pdist.core.upstream import stands_still
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link
from p2pdist.net.pulse import Pulse

_LOOK_EVERY_S = 1.0


class Fetching(Protocol):
    """What is being fetched; see :class:`~p2pdist.node.content.Content`."""

    def unfinished(self) -> Mapping[InfoHash, int]:
        """Return how many bytes are here of each artifact that is being fetched."""

    async def wait_unfinished(self) -> None:
        """Wait until something is being fetched."""


class Visitors:
    """How many sessions there are with this node, or through it."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = Pulse()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count one during the block."""
        self._count += 1
        self._changed.fire()
        try:
            yield
        finally:
            self._count -= 1
            self._changed.fire()

    @property
    def count(self) -> int:
        """How many there are now."""
        return self._count

    async def wait_some(self) -> None:
        """Wait until there is one."""
        while not self._count:
            await self._changed.wait()

    async def wait_none(self) -> None:
        """Wait until there is none."""
        while self._count:
            await self._changed.wait()


async def watch_over(link: Link, content: Fetching, visitors: Visitors) -> None:
    """Have the neighbour show signs of life while it matters; until cancelled.

    That is while what is being fetched stands still: content takes other ways than the link, but most often
    it comes from the same machine, and always by what the neighbour tells of its sources. And it is while
    there are sessions, which wait a minute for another path and no longer.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_while_standing_still, link, content)
        nursery.start_soon(_while_visited, link, visitors)


async def _while_standing_still(link: Link, content: Fetching) -> None:
    while True:
        await content.wait_unfinished()
        before = content.unfinished()
        await trio.sleep(_LOOK_EVERY_S)
        if stands_still(before, content.unfinished()):
            async with link.awaiting():
                while stands_still(before, content.unfinished()):
                    await trio.sleep(_LOOK_EVERY_S)


async def _while_visited(link: Link, visitors: Visitors) -> None:
    while True:
        await visitors.wait_some()
        async with link.awaiting():
            await visitors.wait_none()
