"""From libtorrent's alerts to the state of each artifact and the swarm's events.

An alert lives only until the next ones are popped, so everything is copied out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import libtorrent as lt

from p2pdist import limits
from p2pdist.swarm.carried import Carried
from p2pdist.swarm.ledger import NodeBook, PeerId, nodes_of
from p2pdist.swarm.model import ContentAltered, PieceRefused, StorageFailed, StrangerRefused, SwarmEvent
from p2pdist.wire.frames import Endpoint

_ALTERED: Final = "altered"

BATCH_S: Final = 0.1
LAST_BATCH_S: Final = 0.02
"""How long alerts gather before they are read together: a wake-up per block would cost too much. Shorter
where somebody waits for the last of them."""

STRANGER_QUIET_S: Final = 60.0
STRANGERS_MAX: Final = 1_000

# OpenSSL packs the library into the bits from 23 up, and the reason below.
_SSL_CATEGORY: Final = "asio.ssl"
_REASON_BITS: Final = 23
_LIBRARY_SSL: Final = 20
_ALERT_FROM_PEER: Final = 1000  # from here on: the other side refused us
_UNKNOWN_ARTIFACT: Final = 234  # it asked for an artifact that is not here
_BAD_CERTIFICATE: Final = "its certificate is of another fleet, not for this swarm, or not valid now"
_REASONS: Final = {
    134: _BAD_CERTIFICATE,
    199: "it has no certificate",
    156: "it does not speak TLS",
    198: "it does not speak TLS",
    267: "it does not speak TLS",
}


class AlertDesk:
    """Reads alerts. Knows no clock and no I/O: the time comes with each batch.

    Args:
        book: Whose peer ids are known.
        emit: Takes each event; does not block.
        flushed: Called when every piece of an artifact has been written, to have it synced.
        failed: Called when an artifact's storage failed, to have it looked after.
    """

    def __init__(
        self,
        *,
        book: NodeBook,
        emit: Callable[[SwarmEvent], None],
        flushed: Callable[[Carried], None],
        failed: Callable[[Carried], None],
    ) -> None:
        self._book = book
        self._emit = emit
        self._flushed = flushed
        self._failed = failed
        self._carried: dict[lt.torrent_handle, Carried] = {}
        self._strangers: dict[str, float] = {}
        self._now = 0.0
        self._wronged = set[str]()
        self.listening: int | None = None
        self.endpoints: list[Endpoint] = []
        """Where the session listens, by this machine's own addresses; loopback and link-local last."""
        self.listen_failure = ""
        self.lost_alerts = 0
        self.content_moved = False
        """Set when a block came or went; the reader clears it."""
        self._handlers: Final[dict[type, Callable[[Any], None]]] = {
            lt.block_downloading_alert: self._block_downloading,
            lt.block_finished_alert: self._block_finished,
            lt.block_uploaded_alert: self._block_uploaded,
            lt.request_dropped_alert: self._request_dropped,
            lt.piece_finished_alert: self._piece_finished,
            lt.hash_failed_alert: self._hash_failed,
            lt.peer_ban_alert: self._peer_banned,
            lt.peer_error_alert: self._peer_error,
            lt.peer_disconnected_alert: self._peer_disconnected,
            lt.torrent_finished_alert: self._torrent_finished,
            lt.cache_flushed_alert: self._cache_flushed,
            lt.state_changed_alert: self._state_changed,
            lt.state_update_alert: self._state_update,
            lt.file_error_alert: self._storage_error,
            lt.torrent_error_alert: self._storage_error,
            lt.torrent_removed_alert: self._torrent_removed,
            lt.listen_succeeded_alert: self._listen_succeeded,
            lt.listen_failed_alert: self._listen_failed,
            lt.alerts_dropped_alert: self._alerts_dropped,
        }

    def carry(self, carried: Carried) -> None:
        """Start to read the alerts of an artifact."""
        self._carried[carried.handle] = carried

    def drop(self, carried: Carried) -> None:
        """Stop to read them."""
        self._carried.pop(carried.handle, None)

    def batch_s(self) -> float:
        """Return how long alerts may gather now, in seconds."""
        hurried = any(carried.is_nearly_complete() for carried in self._carried.values())
        return LAST_BATCH_S if hurried else BATCH_S

    def read(self, alerts: list[lt.alert], *, now: float) -> set[str]:
        """Handle a batch of alerts. *now* is a monotonic time in seconds.

        Returns:
            The addresses that libtorrent keeps out without reason.
        """
        self._now = now
        self._wronged = set[str]()
        for alert in alerts:
            handler = self._handlers.get(type(alert))
            if handler is not None:
                handler(alert)
        for carried in self._carried.values():
            carried.write_out()
        return self._wronged

    # Content -----------------------------------------------------------------------------------------

    def _block_downloading(self, alert: lt.block_downloading_alert) -> None:
        if carried := self._carried.get(alert.handle):
            self.content_moved = True
            carried.ledger.block_requested(alert.pid.to_bytes(), alert.piece_index, alert.block_index)

    def _request_dropped(self, alert: lt.request_dropped_alert) -> None:
        if carried := self._carried.get(alert.handle):
            carried.ledger.request_dropped(alert.pid.to_bytes(), alert.piece_index, alert.block_index)

    def _block_finished(self, alert: lt.block_finished_alert) -> None:
        if carried := self._carried.get(alert.handle):
            carried.ledger.block_received(alert.pid.to_bytes(), alert.piece_index, alert.block_index)

    def _block_uploaded(self, alert: lt.block_uploaded_alert) -> None:
        if carried := self._carried.get(alert.handle):
            self.content_moved = True
            carried.moved_at = self._now
            carried.ledger.block_sent(alert.pid.to_bytes(), alert.piece_index, alert.block_index)

    def _piece_finished(self, alert: lt.piece_finished_alert) -> None:
        if carried := self._carried.get(alert.handle):
            self.content_moved = True
            carried.have += 1
            carried.unwritten = True
            suspects = carried.ledger.piece_verified(alert.piece_index)
            if suspects:
                self._refuse(carried, alert.piece_index, None, suspects)

    def _hash_failed(self, alert: lt.hash_failed_alert) -> None:
        if not (carried := self._carried.get(alert.handle)):
            return
        senders = carried.ledger.piece_failed(alert.piece_index)
        if len(senders) == 1:
            self._refuse(carried, alert.piece_index, next(iter(senders)), senders)

    def _peer_banned(self, alert: lt.peer_ban_alert) -> None:
        if not (carried := self._carried.get(alert.handle)):
            return
        peer = alert.pid.to_bytes()
        for piece, suspects in carried.ledger.peer_banned(peer):
            self._refuse(carried, piece, peer, suspects)
        if carried.ledger.is_wronged(peer):
            self._wronged.add(alert.endpoint[0])

    def _refuse(self, carried: Carried, piece: int, peer: PeerId | None, suspects: frozenset[PeerId]) -> None:
        self._emit(
            PieceRefused(
                info_hash=carried.artifact.info_hash,
                piece=piece,
                source=self._book.find(peer) if peer else None,
                suspects=tuple(nodes_of(suspects, self._book)),
            )
        )

    # Life of an artifact -----------------------------------------------------------------------------

    def _torrent_finished(self, alert: lt.torrent_finished_alert) -> None:
        carried = self._carried.get(alert.handle)
        if carried and carried.present and not carried.complete:
            carried.all_verified = True
            carried.flush()

    def _cache_flushed(self, alert: lt.cache_flushed_alert) -> None:
        if carried := self._carried.get(alert.handle):
            carried.flushes = max(0, carried.flushes - 1)  # libtorrent tells of those of its own, too
            carried.flushed.set()
            # One that was under way when the last piece was verified does not count.
            if carried.all_verified and not carried.flushes and not carried.complete:
                carried.all_verified = False
                self._flushed(carried)

    def _state_changed(self, alert: lt.state_changed_alert) -> None:
        carried = self._carried.get(alert.handle)
        checking = (lt.torrent_status.states.checking_files, lt.torrent_status.states.downloading)
        if not carried or alert.state not in checking:
            return
        if carried.artifact.sealed and carried.failure != _ALTERED:  # also where a read has failed before
            carried.failure = _ALTERED
            carried.complete = False
            if carried.present:
                carried.handle.pause()
            reason = f"{carried.artifact.path} is not what its torrent says"
            self._emit(ContentAltered(info_hash=carried.artifact.info_hash, reason=reason))
        elif alert.state == lt.torrent_status.states.checking_files:
            carried.complete = False
            carried.ledger.forget_open()

    def _state_update(self, alert: lt.state_update_alert) -> None:
        for status in alert.status:
            if carried := self._carried.get(status.handle):
                carried.status = status
                carried.have = status.num_pieces

    def _storage_error(self, alert: lt.file_error_alert | lt.torrent_error_alert) -> None:
        carried = self._carried.get(alert.handle)
        if not carried or not alert.error.value():
            return
        carried.doubtful = True
        if carried.resting:
            return
        self._failed(carried)
        if carried.failure:
            return
        carried.failure = alert.error.message()
        reason = f"{carried.artifact.path} cannot be used ({carried.failure})"
        self._emit(StorageFailed(info_hash=carried.artifact.info_hash, reason=reason))

    def _torrent_removed(self, alert: lt.torrent_removed_alert) -> None:
        if carried := self._carried.get(alert.handle):
            carried.removed.set()

    # Peers -------------------------------------------------------------------------------------------

    def _peer_error(self, alert: lt.peer_error_alert) -> None:
        self._handshake_failed(alert)

    def _peer_disconnected(self, alert: lt.peer_disconnected_alert) -> None:
        if carried := self._carried.get(alert.handle):
            carried.ledger.peer_gone(alert.pid.to_bytes())
        self._handshake_failed(alert)

    def _handshake_failed(self, alert: lt.peer_error_alert | lt.peer_disconnected_alert) -> None:
        reason = _stranger_reason(alert.error)
        if reason is None:
            return
        address = alert.endpoint[0]
        last = self._strangers.get(address)
        if last is not None and self._now - last < STRANGER_QUIET_S:
            return
        while len(self._strangers) >= STRANGERS_MAX:
            self._strangers.pop(next(iter(self._strangers)))
        self._strangers.pop(address, None)
        self._strangers[address] = self._now
        self._emit(StrangerRefused(address=address, reason=reason))

    # The session -------------------------------------------------------------------------------------

    def _listen_succeeded(self, alert: lt.listen_succeeded_alert) -> None:
        self.listening = alert.port
        endpoint = Endpoint(host=alert.address.partition("%")[0], port=alert.port)
        if endpoint not in self.endpoints and len(self.endpoints) < limits.ENDPOINTS_MAX:
            self.endpoints.append(endpoint)

    def _listen_failed(self, alert: lt.listen_failed_alert) -> None:
        self.listen_failure = alert.error.message()

    def _alerts_dropped(self, alert: lt.alerts_dropped_alert) -> None:
        self.lost_alerts += 1


def _stranger_reason(error: lt.error_code) -> str | None:
    """Say why a TLS handshake failed through the other side's fault; ``None`` when it was not."""
    if error.category().name() != _SSL_CATEGORY:
        return None
    library, reason = error.value() >> _REASON_BITS, error.value() & ((1 << _REASON_BITS) - 1)
    if library != _LIBRARY_SSL:
        return _BAD_CERTIFICATE
    if reason >= _ALERT_FROM_PEER or reason == _UNKNOWN_ARTIFACT:
        return None
    return _REASONS.get(reason, error.message())
