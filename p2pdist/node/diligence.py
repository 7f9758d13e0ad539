"""Whether the distribution point that carries this node does its work: receipts, answers, sources.

Its link stands and its machine answers; but a point that is broken or hostile may take envelopes and give no
receipt, give receipts and pass nothing on, or name sources that nobody can reach. The node leaves it for
another one then, and says so in its log. It does not know whether the admin server itself is away: each time
that leaving did not help it waits twice as long before the next
(:meth:`~p2pdist.core.upstream.UpstreamChooser.patience`).
"""

from __future__ import annotations

from typing import Protocol

import trio

from p2pdist import limits
from p2pdist.core.upstream import Upstream
from p2pdist.net.link import Link
from p2pdist.node import vigil
from p2pdist.wire.messages import FromDevice, Refusal, RenewalRequest, Report

_LOOK_S = 5.0


class Owing(Protocol):
    """Where the neighbour's receipts are counted; see :class:`~p2pdist.node.post.Post`."""

    def owed(self) -> int | None:
        """While the neighbour owes receipts: for how many envelopes it has given some."""


class Leaving(Protocol):
    """The link that can be left; see :class:`~p2pdist.node.uplink.Uplink`."""

    @property
    def upstream(self) -> Upstream | None:
        """The neighbour that carries this node now."""

    def patience_s(self) -> float:
        """Return how long the admin server may take to answer before another neighbour is tried."""

    def leave(self, reason: str) -> None:
        """End the link, and have everybody else come first for a while."""


class Questions:
    """Since when the admin server owes an answer; whatever it says counts as one. Monotonic seconds."""

    def __init__(self) -> None:
        self.since: float | None = None

    def sent(self, message: FromDevice, now: float) -> None:
        """A message left this node."""
        if self.since is None and isinstance(message, Report | Refusal | RenewalRequest):
            self.since = now

    def answered(self) -> None:
        """The admin server has said something."""
        self.since = None


class CutOff(Protocol):
    """Whether what is being fetched has sources; see :class:`~p2pdist.node.content.Content`."""

    def is_cut_off(self) -> bool:
        """Whether something is being fetched, and nobody is connected from whom it could come."""


class Fetching(vigil.Fetching, CutOff, Protocol):
    """What is being fetched."""


async def watch(
    link: Link,
    uplink: Leaving,
    post: Owing,
    questions: Questions,
    content: Fetching,
    visitors: vigil.Visitors,
) -> None:
    """Watch over a neighbour and its work for as long as it carries this node; until cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vigil.watch_over, link, content, visitors)
        nursery.start_soon(watch_work, uplink, post, questions, content)


async def watch_work(uplink: Leaving, post: Owing, questions: Questions, content: CutOff) -> None:
    """Leave the neighbour when it does not do its work; runs beside each link, until cancelled."""
    if uplink.upstream is None or uplink.upstream.kind == "server":
        return  # nobody does its work better
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_receipts, uplink, post)
        nursery.start_soon(_watch_answers, uplink, questions)
        nursery.start_soon(_watch_sources, uplink, content)


async def _watch_receipts(uplink: Leaving, post: Owing) -> None:
    """Leave a neighbour that owes receipts and gives none for long."""
    before, since = post.owed(), trio.current_time()
    while True:
        await trio.sleep(_LOOK_S)
        owed = post.owed()
        if owed is None or owed != before:
            before, since = owed, trio.current_time()
        elif trio.current_time() >= since + limits.RECEIPT_PATIENCE_S:
            uplink.leave("it gives no receipts for this node's envelopes")


async def _watch_answers(uplink: Leaving, questions: Questions) -> None:
    """Leave a neighbour through which the admin server has not answered for long."""
    here = trio.current_time()
    while True:
        await trio.sleep(_LOOK_S)
        if questions.since is not None:
            waited_s = trio.current_time() - max(here, questions.since)
            if waited_s >= uplink.patience_s():
                uplink.leave(f"no answer of the admin server came through it for {waited_s:.0f} s")


async def _watch_sources(uplink: Leaving, content: CutOff) -> None:
    """Leave a neighbour whose sources have not answered for long; a point is one itself."""
    since = trio.current_time()
    while True:
        await trio.sleep(_LOOK_S)
        if not content.is_cut_off():
            since = trio.current_time()
        elif trio.current_time() - since >= uplink.patience_s():
            uplink.leave(f"no source that it names has answered for {trio.current_time() - since:.0f} s")
