"""Watches over a neighbour while it carries this node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import trio

from p2pdist.core.upstream import stands_still
from p2pdist.ids import InfoHash
from p2pdist.net.link import Link

_LOOK_EVERY_S = 1.0


class Fetching(Protocol):
    """What is being fetched; see :class:`~p2pdist.node.content.Content`."""

    def unfinished(self) -> Mapping[InfoHash, int]:
        """Return how many bytes are here of each artifact that is being fetched."""

    async def wait_unfinished(self) -> None:
        """Wait until something is being fetched."""


async def watch_over(link: Link, content: Fetching) -> None:
    """Have the neighbour show signs of life while what is being fetched stands still; until cancelled.

    Content takes other ways than the link, but most often it comes from the same machine, and always by
    what the neighbour tells of its sources.
    """
    while True:
        await content.wait_unfinished()
        before = content.unfinished()
        await trio.sleep(_LOOK_EVERY_S)
        if stands_still(before, content.unfinished()):
            async with link.awaiting():
                while stands_still(before, content.unfinished()):
                    await trio.sleep(_LOOK_EVERY_S)
