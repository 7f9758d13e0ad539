"""One artifact in the session: its libtorrent handle, its accounts, and where it stands."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable

import libtorrent as lt
import trio

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import storage_error
from p2pdist.ids import NodeId
from p2pdist.swarm.ledger import Ledger, NodeBook, PeerId
from p2pdist.swarm.model import Artifact, ArtifactStatistics, Source
from p2pdist.swarm.reach import Reach
from p2pdist.swarm.torrents import BLOCK_BYTES

RETRY_S_MAX = 60.0
"""The longest wait between two attempts to use a failing disk."""

STUCK_S = 4.0
"""How long connected sources may send nothing after a refused piece before it is libtorrent's fault."""

PATIENCE_S = 1.0
"""How long a source is given to dial us: some round trips of TCP and TLS over a slow link."""

IDLE_S = 30.0
"""How long connections of a complete artifact stay open after the last byte."""

WATCHED_S = 5.0
"""How long it matters who is connected after a call, or after the last byte of a complete artifact."""

_LAST_PIECES = 8

ALLOCATION_SLACK_BYTES = limits.MIB
"""Free space wanted beyond the missing bytes before a full disk is tried again."""


class Carried:
    """An artifact that the session carries. Changed by the alert desk and by the swarm only."""

    def __init__(
        self,
        artifact: Artifact,
        handle: lt.torrent_handle,
        pieces: int,
        piece_bytes: int,
        *,
        fresh: bool = False,
    ) -> None:
        self.artifact = artifact
        self.handle = handle
        self.pieces = pieces
        self.ledger = Ledger(length=artifact.length, piece_bytes=piece_bytes, block_bytes=BLOCK_BYTES)
        self.status: lt.torrent_status | None = None
        self.sources: tuple[Source, ...] = ()
        self._unknown = fresh
        """Nobody can have dialled us, nothing is there to be checked: it has had no sources yet."""
        self._expected: dict[tuple[str, int], float] = {}
        """Sources that are expected to dial us, and when we do it ourselves, in monotonic seconds."""
        self.divided: tuple[NodeId, ...] = ()
        """The points among which the pieces are divided; see :mod:`~p2pdist.swarm.division`."""
        self.unwritten = False
        """Pieces were verified since a flush was asked for: they may be in libtorrent's memory only."""
        self.flushes = 0
        """How many flushes are under way."""
        self.all_verified = False
        """libtorrent has every piece; the disk may not."""
        self.complete = artifact.sealed
        self.failure = ""
        """Why the content file cannot be used; empty while it can."""
        self.present = True
        """The handle may be used: the artifact is in the session, and nobody is taking it out."""
        self.moved_at = 0.0
        """When a block was sent last, or the artifact became complete; monotonic seconds."""
        self.have = 0
        """Pieces that are verified: as of the last status, and counted on from there."""
        self.doubtful = False
        """A write failed since the content was last checked: libtorrent counts a piece as soon as its
        hash is right, and forgets that it never reached the disk if it was among the last."""
        self.resting = False
        """Stopped because of it, until :meth:`prepare_retry`."""
        self.retry_at = 0.0
        self._retries = 0
        self._come = -1
        self._came_at = 0.0
        """How many content bytes have come, and when the last of them were seen."""
        self._refused_answered = 0
        """The refused bytes after which it has said so already."""
        self.changing = trio.Lock()
        """Held while the artifact is taken out of the session, or out and in again."""
        self.flushed = trio.Event()
        self.removed = trio.Event()
        self.watched = False
        """Its sources may be where nobody can be dialled."""
        self.reach = Reach()
        self.unreached: tuple[NodeId, ...] = ()
        """The sources that could not be reached, as of the last look."""
        self.answering: set[str] = set()
        """The addresses from which somebody had answered at the last look."""
        self.called_at = -math.inf
        """When a node was called last, in monotonic seconds."""

    def set_sources(self, sources: tuple[Source, ...], now: float, *, watched: bool) -> None:
        """These are the sources now; with *watched* they may be where nobody can be dialled."""
        self.sources, self.watched = sources, watched
        self.reach.handle_sources(sources, now, at_once=self._unknown)

    def dial(self, sources: Iterable[Source], now: float) -> None:
        """Connect to sources; to those that are expected to dial us only if they have not done so in time.

        Nothing happens to a connection that stands already. libtorrent dials once a second, but at once when
        a torrent starts, so one that nobody can have found yet is started once more.
        """
        dialled = False
        for source in sources:
            for address in source.addresses[:1] if source.dialled else ():
                if source.expected:
                    self._expected.setdefault((address.host, address.port), now + PATIENCE_S)
                elif self.present:
                    self.handle.connect_peer((address.host, address.port))
                    dialled = True
        if dialled and self._unknown:
            self._unknown = False
            self.handle.pause()
            self.handle.resume()

    def dial_overdue(self, now: float) -> None:
        """Connect to sources that were expected to dial us, and may not have done so."""
        overdue = [address for address, until in self._expected.items() if until <= now]
        for address in overdue:
            del self._expected[address]
            known = ((each.host, each.port) for source in self.sources for each in source.addresses)
            if self.present and address in known:
                self.handle.connect_peer(address)

    def is_watched(self, now: float) -> bool:
        """Tell whether it matters who is connected: some sources cannot simply be dialled, or were called."""
        special = self.watched or any(source.endpoints for source in self.sources)
        called = self.called_at > -math.inf and now - max(self.called_at, self.moved_at) < WATCHED_S
        return called or (special and not self.complete)

    def is_moving(self) -> bool:
        """Tell whether the rates are worth asking for again, or somebody has still time to dial us."""
        if self._expected:
            return True
        if not self.complete:
            return bool(self.sources) and not self.resting
        status = self.status
        return status is None or bool(status.download_payload_rate or status.upload_payload_rate)

    def is_nearly_complete(self) -> bool:
        """Tell whether the last pieces are coming, or are being written."""
        return not self.complete and self.have >= self.pieces - _LAST_PIECES

    def is_alone(self) -> bool:
        """Tell whether there are sources and none is connected."""
        return self.is_moving() and not self.complete and not (self.status and self.status.num_peers)

    def is_stuck(self, now: float) -> bool:
        """Tell whether nothing has come for a while from sources that are connected, although bytes were
        refused before that.

        libtorrent 2.1.1 then and when never asks again for a block of a refused piece that was on its way to
        the disk at that moment. Only taking the artifact out and in again helps: said once for such a moment.
        """
        status = self.status
        if status is None or self.complete or self.resting or not status.num_peers:
            return False
        if status.total_payload_download != self._come:
            self._come, self._came_at = status.total_payload_download, now
        refused = self.ledger.refused_bytes
        if now - self._came_at < STUCK_S or refused == self._refused_answered:
            return False
        self._refused_answered = refused
        return True

    def idle_at(self) -> float:
        """Return when the connections that are open now are of no more use, in monotonic seconds."""
        connected = (
            self.present and self.complete and not self.failure and self.status and self.status.num_peers
        )
        return self.moved_at + IDLE_S if connected else math.inf

    def disconnect_idle(self, now: float) -> None:
        """Close the connections of a complete artifact; whoever still lacks something dials again.

        libtorrent would close them itself as soon as both sides are complete, but also those of a node that
        has just not heard of the other side's last piece yet, which then waits for its next attempt.
        """
        self.moved_at = now
        self.handle.pause()
        self.handle.resume()

    def write_out(self) -> None:
        """Have verified pieces written to the disk, unless libtorrent is at it: a kill costs what is not."""
        if self.unwritten and not self.flushes and self.present and not self.complete:
            self.flush()

    def flush(self) -> None:
        """Have everything that has come so far written; a ``cache_flushed_alert`` says when it is.

        libtorrent 2.1.1 would keep it in memory until ``max_queued_disk_bytes`` are nearly full, or a peer
        asks for a block that has to be read.
        """
        self.unwritten = False
        self.flushes += 1
        self.handle.flush_cache()

    async def settle(self) -> None:
        """Put blocks in doubt to the accounts of those who sent them, by what has come over each connection.

        For as long as everybody is still connected: when the artifact has just become complete.
        """
        async with self.changing:
            if self.present and self.ledger.in_doubt:
                came: Counter[PeerId] = Counter()
                for peer in await trio.to_thread.run_sync(self.handle.get_peer_info):
                    came[peer.pid.to_bytes()] += peer.total_download
                self.ledger.settle(came)

    def finish(self, now: float) -> None:
        """Everything is on the disk: whatever was wrong with the storage is over."""
        self.failure = ""
        self._retries = 0
        self.complete = True
        self.moved_at = now

    def prepare_retry(self, now: float) -> None:
        """Forget a storage failure before the next attempt; the one after that, if any, waits longer."""
        self.resting = False
        self.doubtful = False
        self.all_verified = False
        self._retries += 1
        self.retry_at = now + min(RETRY_S_MAX, 2.0**self._retries)
        self.have = 0
        self.status = None
        self.ledger.forget_open()

    def statistics(self, book: NodeBook) -> ArtifactStatistics:
        """Return where the artifact stands."""
        sources, unattributed = self.ledger.accounts(book)
        status = self.status
        return ArtifactStatistics(
            have=self.pieces if self.complete else min(self.have, self.pieces),
            pieces=self.pieces,
            bytes_done=self.artifact.length if self.complete else status.total_done if status else 0,
            complete=self.complete,
            rate_down=status.download_payload_rate if status else 0,
            rate_up=status.upload_payload_rate if status else 0,
            peers=status.num_peers if status else 0,
            sources=sources,
            unattributed=unattributed,
            refused_bytes=self.ledger.refused_bytes,
            wasted_bytes=status.total_redundant_bytes if status else 0,
            paths=dict(self.reach.paths),
            unreached=self.unreached,
        )


def addresses(sources: Iterable[Source]) -> set[tuple[str, int]]:
    """Return where sources are dialled. Those that are called may share an address with others."""
    return {(source.host, source.port) for source in sources if source.path != "punched"}


def check_content_file(artifact: Artifact) -> bool:
    """Check that the content file, if there is one, can be what the artifact says. Blocking.

    Returns:
        Whether there is one.

    Raises:
        UsageError: it is no regular file, is longer than the artifact, or the directory is missing;
            or it is sealed and not complete.
        Unavailable: it cannot be looked at.
    """
    path = artifact.path
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", hint="make it first")
    try:
        status = path.lstat()
    except FileNotFoundError:
        if artifact.sealed:
            raise UsageError(f"{path} is not there", hint="a sealed artifact has its content") from None
        return False
    except OSError as error:
        raise storage_error(f"{path} cannot be looked at", error) from error
    if not path.is_file() or path.is_symlink():
        raise UsageError(f"{path} is not a regular file", hint="move it away")
    if status.st_size > artifact.length or (artifact.sealed and status.st_size != artifact.length):
        raise UsageError(
            f"{path} has {status.st_size} bytes, the artifact {artifact.length}", hint="it is another file"
        )
    return True


def sync_content_file(artifact: Artifact) -> None:
    """Make the content durable. Blocking.

    Raises:
        Unavailable: the disk fails.
    """
    try:
        descriptor = os.open(artifact.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise storage_error(f"{artifact.path} could not be synced", error) from error


def has_room(artifact: Artifact) -> bool:
    """Tell whether what is missing of the content file fits on its disk. Blocking."""
    try:
        space = os.statvfs(artifact.path.parent)
        try:
            allocated = artifact.path.stat().st_blocks * 512
        except FileNotFoundError:
            allocated = 0
    except OSError:
        return False
    missing = max(0, artifact.length - allocated)
    return space.f_bavail * space.f_frsize >= missing + (ALLOCATION_SLACK_BYTES if missing else 0)
