"""Pieces that come from elsewhere than from peers: checked by who brings them, and given to libtorrent.

libtorrent checks them too, but holds its peers for whoever sent a wrong one, so what is given to it is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import libtorrent as lt
import trio

from p2pdist.errors import UsageError
from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.carried import Carried
from p2pdist.swarm.links import LinkClasses
from p2pdist.swarm.wanshare import WanShare


class Holdings(NamedTuple):
    """Where the pieces of an artifact are: a byte for each, 1 or 0."""

    held: bytes
    """Here, with the right hash."""
    elsewhere: bytes
    """At some peer that is connected."""


class Feeding:
    """Feeds the artifacts of one session; its attribute ``feeding``.

    Args:
        carried: The artifacts in the session.
        links: The rates of its peers.

    Attributes:
        wan: Shares the limit of the WAN between those peers and mirrors.
    """

    def __init__(self, carried: Mapping[InfoHash, Carried], links: LinkClasses) -> None:
        self._carried = carried
        self.wan = WanShare(links.limit)

    async def holdings(self, info_hash: InfoHash) -> Holdings | None:
        """Return where the pieces are; None while it cannot be fed: its disk fails, or it is being read
        through.

        Raises:
            UsageError: the artifact is not in the swarm.
        """
        carried = self._find(info_hash)
        if carried.complete:
            return Holdings(held=b"\1" * carried.pieces, elsewhere=bytes(carried.pieces))
        async with carried.changing:
            if not carried.present or carried.resting:
                return None
            return await trio.to_thread.run_sync(_look, carried.handle, carried.pieces)

    def feed(
        self, info_hash: InfoHash, piece: int, data: bytes, senders: Sequence[tuple[NodeId, int]]
    ) -> None:
        """Give a piece that is right to libtorrent. What it has of it already stays.

        Args:
            info_hash: The artifact.
            piece: The piece's number.
            data: All of it; its hash was checked.
            senders: Whose account its bytes go to, each from an offset in the piece on; the first from 0.

        Raises:
            UsageError: the artifact is not in the swarm.
        """
        carried = self._find(info_hash)
        if carried.present and not carried.resting and not carried.complete:
            carried.ledger.piece_fed(piece, senders)
            carried.handle.add_piece(piece, data, 0)

    def _find(self, info_hash: InfoHash) -> Carried:
        try:
            return self._carried[info_hash]
        except KeyError:
            raise UsageError(f"the artifact {info_hash} is not in the swarm") from None


def _look(handle: lt.torrent_handle, pieces: int) -> Holdings | None:
    """Ask libtorrent. Blocking until its thread answers."""
    status = handle.status(lt.torrent_handle.query_pieces)
    states = lt.torrent_status.states
    if status.state not in (states.downloading, states.finished, states.seeding):
        return None  # a piece that it is given now gets lost then and when
    held = b"\1" * pieces if status.is_seeding else bytes(map(bool, status.pieces))
    elsewhere = bytes(map(bool, handle.piece_availability()))
    return Holdings(held=held.ljust(pieces, b"\0"), elsewhere=elsewhere.ljust(pieces, b"\0"))
