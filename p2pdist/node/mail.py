"""Sealed messages between this node and the admin server.

Counters never repeat, not even after a crash: they are reserved on the disk in blocks before the first
of a block is used, so a crash skips some and reuses none. What arrives twice is harmless, because
every message states a whole situation or carries an id. What was seen is on the disk all the same, before
the sender hears of it: nobody can repeat an envelope from before a restart, and the admin server, which is
told what was opened, need not send it again.
"""

from __future__ import annotations

from pathlib import Path

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.logs import get_logger
from p2pdist.node.home import Home
from p2pdist.trust.sealing import ReplayWindow, open_envelope, seal
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope, Opened
from p2pdist.wire.messages import FromDevice, FromServer

_log = get_logger()

_BLOCK = 256  # what a crash may skip: below a replay window, or what waits on a gateway would be too old
_COUNTER_MAX = 2**63 - 1 - _BLOCK  # what an envelope takes, and a block to go on


class Counter:
    """Numbers for envelopes: each larger than any handed out before, across restarts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = self._reserved = self._read()
        self._reserving = trio.Lock()

    async def take(self) -> int:
        """Return the next number.

        Raises:
            Unavailable: the disk does not take the reservation.
        """
        async with self._reserving:
            if self._next >= self._reserved:
                reserved = self._next + _BLOCK
                await trio.to_thread.run_sync(write_atomic, self._path, str(reserved).encode())
                self._reserved = reserved
            self._next += 1
            return self._next

    def _read(self) -> int:
        if not self._path.exists():
            return 0
        text = read_bounded(self._path, bytes_max=32)
        if not text.isdigit() or int(text) > _COUNTER_MAX:
            raise UsageError(f"{self._path} is damaged", hint="enrol this node again")
        return int(text)


class Mail:
    """Seals for the admin server and opens what it sealed for this node."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._counter = Counter(home.state / "envelope-counter")
        self._seen_path = home.state / "envelopes-opened"
        self._seen = _restored(self._seen_path)

    async def seal(self, message: FromDevice, *, now: int) -> Envelope:
        """Seal *message*; *now* is Unix time. Raises Unavailable when the disk is full."""
        data = codec.encode(message, bytes_max=limits.ENVELOPE_BYTES_MAX - limits.KIB)
        return seal(
            data,
            key=self._home.key,
            recipient_public=self._home.enrolment.server_public,
            counter=await self._counter.take(),
            expires=now + limits.ENVELOPE_LIFE_S,
            nonce=nacl.utils.random(24),
        )

    async def stamp(self) -> int:
        """Return a number for the next link; it is larger than all before, across restarts.

        Raises:
            Unavailable: the disk does not take the reservation.
        """
        return await self._counter.take()

    def open(self, envelope: Envelope, *, now: int) -> FromServer | None:
        """Open an envelope from the admin server; None if it was dealt with before (:meth:`dealt_with`).

        Raises:
            TrustError: it is not from the admin server, was altered, or has expired.
            PeerError: it opens, but holds no valid message.
        """
        data = open_envelope(
            envelope, key=self._home.key, sender_public=self._home.enrolment.server_public, now=now
        )
        if not self._seen.is_new(envelope.counter):
            return None
        message: FromServer = codec.decode(data, FromServer, bytes_max=limits.ENVELOPE_BYTES_MAX)
        return message

    async def take(self, envelope: Envelope, *, now: int) -> FromServer | None:
        """Open an envelope; None if it was dealt with before, or if this version does not know what it says.

        What a newer admin server says in its own words counts as dealt with: it would come again for ever.

        Raises:
            TrustError: it is not from the admin server, was altered, or has expired.
        """
        try:
            return self.open(envelope, now=now)
        except PeerError as error:
            _log.warning("message.not_understood", reason=str(error))
            await self.dealt_with(envelope)
            return None

    async def dealt_with(self, envelope: Envelope) -> None:
        """What was opened has been acted upon: it is not opened again, also not after a restart.

        A full disk is logged only: a restart would open again what is harmless when it comes twice.
        """
        if self._seen.accept(envelope.counter):
            try:
                await trio.to_thread.run_sync(write_atomic, self._seen_path, self._seen.snapshot())
            except Unavailable as error:
                _log.warning("envelope.not_recorded", reason=str(error))

    def opened(self) -> Opened:
        """Return which of the admin server's envelopes were dealt with."""
        return self._seen.opened()


def _restored(path: Path) -> ReplayWindow:
    """Return the window that was written last; a damaged one costs nothing but work done twice."""
    window = ReplayWindow()
    if path.exists():
        try:
            window.restore(read_bounded(path, bytes_max=limits.KIB))
        except UsageError as error:
            _log.error("envelope.window_damaged", path=str(path), reason=str(error))
    return window
