"""Reads one artifact from its mirrors into the swarm, as :mod:`p2pdist.core.reading` decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from p2pdist import limits
from p2pdist.core.assembly import Piece
from p2pdist.core.division import place_among
from p2pdist.core.mirrors import MirrorFailed, Mirrors, MirrorStatistics, account_of
from p2pdist.core.reading import Reading, ReadingStatistics, Request
from p2pdist.duties.mirrors.http import MirrorClient
from p2pdist.errors import sole_error
from p2pdist.ids import NodeId
from p2pdist.swarm.session import Artifact, Swarm
from p2pdist.swarm.torrents import PieceHashes
from p2pdist.trust.catalog import Mirror

_LOOK_S: Final = 0.5
"""How often libtorrent is asked which pieces are where; it tells nobody when that changes."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be read. ``artifact`` is in the swarm; ``readers`` are the nodes that share the reading."""

    artifact: Artifact
    mirrors: tuple[Mirror, ...]
    own: NodeId
    readers: tuple[NodeId, ...] = ()
    region: str = ""


class WasRead(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reading is, and what came of each mirror.

    ``reason`` says why it ended before it was complete.
    """

    complete: bool
    reason: str
    pieces: ReadingStatistics
    mirrors: tuple[MirrorStatistics, ...]


async def read_artifact(
    wanted: Wanted, swarm: Swarm, client: MirrorClient, *, progress: Callable[[WasRead], None] | None = None
) -> WasRead:
    """Read an artifact until every piece is here, from wherever, or no mirror is left.

    Cancellation leaves what was read in the swarm, and nothing else; it may be begun again.

    Args:
        wanted: What is to be read, and with whom.
        swarm: The node's swarm.
        client: What asks mirrors.
        progress: Told twice a second how far it is; does not block.

    Raises:
        UsageError: the artifact is not in the swarm, or is taken out of it.
    """
    reader = await trio.to_thread.run_sync(_Reader, wanted, swarm, client, trio.current_time())
    try:
        with swarm.feeding.wan.reading():
            async with trio.open_nursery() as nursery:
                for _ in range(limits.MIRROR_REQUESTS_MAX):
                    nursery.start_soon(reader.ask)
                await reader.watch(progress or (lambda was_read: None))
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise sole_error(group) from None
    return reader.was_read()


class _Reader:
    def __init__(self, wanted: Wanted, swarm: Swarm, client: MirrorClient, now: float) -> None:
        artifact = wanted.artifact
        hashes = PieceHashes(artifact.torrent, swarm=artifact.swarm)
        place, count = place_among(wanted.readers, wanted.own)
        self._info_hash = artifact.info_hash
        self._length = artifact.length
        self._swarm = swarm
        self._client = client
        self._reading = Reading(
            length=artifact.length,
            piece_bytes=hashes.piece_bytes,
            is_right=hashes.is_right,
            mirrors=Mirrors(wanted.mirrors, region=wanted.region),
            reader=place,
            readers=count,
            now=now,
        )
        self._ready = False
        self._idle = trio.lowlevel.ParkingLot()

    async def watch(self, progress: Callable[[WasRead], None]) -> None:
        """Look where the pieces are until all of them are here, or nothing more is to be had."""
        while True:
            holdings = await self._swarm.feeding.holdings(self._info_hash)
            now = trio.current_time()
            self._ready = holdings is not None
            if holdings is not None:
                self._reading.handle_holdings(holdings.held, holdings.elsewhere, now)
            self._swarm.feeding.wan.look()
            progress(self.was_read())
            if self._reading.complete or self._reading.is_hopeless(now):
                return
            self._idle.unpark_all()
            await trio.sleep(_LOOK_S)

    async def ask(self) -> None:
        """Ask mirrors, one request after the other, until cancelled."""
        while True:
            request = self._reading.next_request(trio.current_time()) if self._ready else None
            if request is None:
                await self._idle.park()
                continue
            error = None
            try:
                await self._take(request)
            except MirrorFailed as failed:
                error = failed
            self._reading.handle_ended(request, trio.current_time(), error)
            self._idle.unpark_all()

    async def _take(self, request: Request) -> None:
        """Take in what a mirror sends, as long as it is wanted. Raises MirrorFailed."""
        async with self._client.ask(
            request.mirror.url, request.position, request.end, length=self._length, if_range=request.if_range
        ) as answer:
            while self._reading.is_wanted(request, trio.current_time()):
                data = await answer.receive()
                await self._swarm.feeding.wan.pass_bytes(len(data))
                if not data:
                    raise MirrorFailed("it sent less than it said")
                now = trio.current_time()
                for piece in self._reading.handle_bytes(request, data, now, answer.etag):
                    self._hand_over(piece)
            if request.position == request.end:
                await answer.receive()  # its end, so that the connection serves the next request

    def _hand_over(self, piece: Piece) -> None:
        now = trio.current_time()
        if self._reading.handle_handed_over(piece.piece, now):
            senders = [(account_of(part.url), part.start) for part in piece.parts]
            self._swarm.feeding.feed(self._info_hash, piece.piece, piece.data, senders)

    def was_read(self) -> WasRead:
        """Return how far it is."""
        complete = self._reading.complete
        return WasRead(
            complete=complete,
            reason="" if complete or not self._reading.mirrors.none_left else "no mirror is left",
            pieces=self._reading.statistics(),
            mirrors=self._reading.mirrors.statistics(),
        )


def lines(was_read: WasRead) -> Sequence[str]:
    """Say what came of each mirror, one line each, the worst first."""
    ordered = sorted(was_read.mirrors, key=lambda each: (not each.lied, not each.dropped, each.url))
    return [_line(each) for each in ordered]


def _line(mirror: MirrorStatistics) -> str:
    state = f"dropped: {mirror.reason}" if mirror.dropped else "used" if mirror.received else "not used"
    failures = f", failed {mirror.failures} times (last: {mirror.reason})" if mirror.failures else ""
    return f"{mirror.url}: {mirror.received} bytes, {state}{'' if mirror.dropped else failures}"
