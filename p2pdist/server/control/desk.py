"""Messages from devices, stored in batches, then answered; and to them, kept until they have opened them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Literal, Protocol

import nacl.utils
import trio

from p2pdist import limits
from p2pdist.core.outbox import Outbox
from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.server.control.devices import Device
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.sealing import ReplayWindow, open_envelope, seal
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope, Opened
from p2pdist.wire.messages import (
    Certificate,
    DesiredState,
    FromDevice,
    FromServer,
    Heartbeat,
    Received,
    Refusal,
    Report,
    Revoked,
)
from p2pdist.wire.tasks import Confirmed

_log = get_logger()

Receiver = Literal["point", "device"]

_Item = tuple[Device, FromDevice | None, bytes, Callable[[], None]]
"""A message, its sender, the sender's replay window once the message was in it, and whom to tell when all of
it is on the disk. Without a message: the telling alone, after everything that came before."""

_REPLACING = (DesiredState, Certificate, Revoked)  # each takes the place of the one before
_INBOX_MESSAGES = 4_096  # a few seconds of a large fleet; beyond it, devices wait on their links
_BATCH_MESSAGES = 512
_COUNTERS = 65_536
_STORE_AGAIN_S = 2.0


class DeskStore(Protocol):
    """What the desk needs of the store. Blocking; called in a worker thread."""

    def record(
        self,
        messages: Sequence[tuple[NodeId, Receiver, str, FromDevice]],
        windows: Mapping[NodeId, bytes],
        *,
        now: int,
    ) -> frozenset[int]:
        """Store messages in one transaction, and with them what was seen of their senders' counters.

        Args:
            messages: Each with its sender, what that is, and who carries it.
            windows: Replay windows by sender.
            now: Unix seconds.

        Returns:
            The places of messages that the database cannot take, whatever they say.

        Raises:
            Unavailable: the disk is full.
        """

    def reserve_counters(self, count: int) -> int:
        """Reserve *count* envelope counters; returns the first. Never the same twice."""


class Desk:
    """Takes messages in and sends messages out, sealed.

    Args:
        key: The admin server's identity.
        store: Where messages go.
        threads: Limits how many threads use the store at once.
        route: Hands an envelope to the link that reaches its recipient; returns whether there is one.
        way: Returns by what way a node is reached now, as something to compare; None if it is not.
        origin: Returns what a node is, and who carries it (empty: its own link).
    """

    def __init__(
        self,
        key: IdentityKey,
        store: DeskStore,
        threads: trio.CapacityLimiter,
        route: Callable[[Envelope], bool],
        way: Callable[[NodeId], Hashable],
        origin: Callable[[NodeId], tuple[Receiver, str]],
    ) -> None:
        self._origin = origin
        self._key = key
        self._store = store
        self._threads = threads
        self._route = route
        self._way = way
        self._outbox = Outbox()
        self._windows: dict[NodeId, ReplayWindow] = {}
        self._inbox, self._incoming = trio.open_memory_channel[_Item](_INBOX_MESSAGES)
        self._counters: dict[NodeId, int] = {}
        self._base = self._reserved = 0
        self._counting = trio.Lock()

    def open(self, envelope: Envelope, sender: Device) -> FromDevice | None:
        """Open an envelope from *sender*; None if it has been opened before.

        Raises:
            TrustError, PeerError: it is forged, altered, late or not a message.
        """
        if envelope.recipient != self._key.node:
            raise PeerError(f"an envelope for {envelope.recipient} came to the admin server")
        data = open_envelope(envelope, key=self._key, sender_public=sender.public, now=int(time.time()))
        if not self._window_of(sender).accept(envelope.counter):
            return None
        message: FromDevice = codec.decode(data, FromDevice, bytes_max=limits.ENVELOPE_BYTES_MAX)
        return message

    def forget(self, node: NodeId) -> None:
        """Drop what is kept of a node that is no longer attached."""
        self._windows.pop(node, None)

    def has_heard(self, sender: Device) -> bool:
        """Whether an envelope of *sender* was ever opened here."""
        return self._window_of(sender).highest > 0

    def is_newest(self, sender: Device, counter: int) -> bool:
        """Whether nothing newer than the envelope with this counter has come from *sender*."""
        return counter >= self._window_of(sender).highest

    async def take(self, sender: Device, message: FromDevice | None, stored: Callable[[], None]) -> None:
        """Queue a message for the store; waits when the store is behind.

        Args:
            sender: Who sealed it.
            message: The message; None when it came before, and is in the store or queued for it.
            stored: Called once it is on the disk, or never will be.
        """
        await self._inbox.send((sender, message, self._window_of(sender).snapshot(), stored))

    async def send(self, recipient: Device, message: FromServer) -> bool:
        """Seal a message and send it on its way; False when that cannot be done now.

        What was sent is kept until the recipient has opened it, and sent again when there is another way
        (:meth:`again`). What was not sent is not kept: the next heartbeat of the recipient asks for it. What
        cannot be kept is not sent, unless it states a whole situation.
        """
        try:
            envelope = await self._seal(recipient, message)
        except (Unavailable, UsageError) as error:
            _log.error(
                "message.not_sent", node=recipient.node, message=type(message).__name__, reason=str(error)
            )
            return False
        if isinstance(message, Revoked):
            self._outbox.forget(recipient.node)
        way, subject = self._way(recipient.node), ""
        if isinstance(message, _REPLACING):
            subject = type(message).__name__
        try:
            self._outbox.keep(envelope, subject=subject, way=way, now=trio.current_time())
        except Unavailable as error:
            _log.warning("message.not_kept", node=recipient.node, reason=str(error))
            return self._route(envelope) if subject else False  # it is said again in any case
        if not self._route(envelope):
            self._outbox.drop(envelope)
            return False
        return True

    def opened(self, node: NodeId, opened: Opened | None) -> None:
        """A node says what it has opened, and hears again what it lacks. None: it says nothing of it."""
        if opened is None:
            return
        for counter in self._outbox.opened(node, opened):
            _log.error("message.too_late", node=node, counter=counter)
        self.again(node)

    def owes(self, node: NodeId) -> bool:
        """Whether something was said to a node that it has not opened."""
        return bool(self._outbox.unopened(node))

    def again(self, node: NodeId) -> None:
        """Send again what a node has not opened and what went another way than there is to it now."""
        way, now = self._way(node), trio.current_time()
        for envelope in self._outbox.due(node, way=way, now=now, unix=int(time.time())):
            if way is None or not self._route(envelope):
                return
            self._outbox.sent_again(envelope, way=way, now=now)

    async def _seal(self, recipient: Device, message: FromServer) -> Envelope:
        data = codec.encode(message, bytes_max=limits.ENVELOPE_BYTES_MAX - limits.KIB)
        return seal(
            data,
            key=self._key,
            recipient_public=recipient.public,
            counter=await self._next_counter(recipient.node),
            expires=int(time.time()) + limits.ENVELOPE_LIFE_S,
            nonce=nacl.utils.random(24),
        )

    async def run(self, taken: Callable[[Device, FromDevice], Awaitable[None]]) -> None:
        """Store what comes in, in batches, then answer it; until cancelled.

        Args:
            taken: Called with each message that is on the disk.
        """
        async for first in self._incoming:
            batch = [first]
            while len(batch) < _BATCH_MESSAGES:
                try:
                    batch.append(self._incoming.receive_nowait())
                except trio.WouldBlock:
                    break
            messages = [
                (device, message, window) for device, message, window, _ in batch if message is not None
            ]
            refused = await self._commit(messages) if messages else frozenset()
            for *_, told in batch:
                told()
            stored = [(item[0], item[1]) for place, item in enumerate(messages) if place not in refused]
            await self._acknowledge(stored)
            for device, message in stored:
                await taken(device, message)

    async def _commit(self, batch: Sequence[tuple[Device, FromDevice, bytes]]) -> frozenset[int]:
        """Store a batch, however long the disk stays full: nothing is acknowledged before.

        Returns:
            The places of messages that were not stored and never will be.
        """
        rows = [(device.node, *self._origin(device.node), message) for device, message, _ in batch]
        windows = {device.node: window for device, _, window in batch}
        while True:
            try:
                return await trio.to_thread.run_sync(
                    lambda: self._store.record(rows, windows, now=int(time.time())), limiter=self._threads
                )
            except Unavailable as error:
                _log.error("messages.not_stored", count=len(batch), reason=str(error))
                await trio.sleep(_STORE_AGAIN_S)

    def _window_of(self, sender: Device) -> ReplayWindow:
        window = self._windows.get(sender.node)
        if window is None:
            window = self._windows[sender.node] = ReplayWindow()
            if sender.window:
                window.restore(sender.window)
        return window

    async def _acknowledge(self, batch: list[tuple[Device, FromDevice]]) -> None:
        ids: dict[NodeId, tuple[Device, list[str]]] = {}
        for device, message in batch:
            if isinstance(message, Report | Refusal | Confirmed | Heartbeat) and message.id:
                ids.setdefault(device.node, (device, []))[1].append(message.id)
        for device, received in ids.values():
            await self.send(device, Received(ids=received))

    async def _next_counter(self, recipient: NodeId) -> int:
        """Return a number that grows by one for each recipient, so that those on their way at once are within
        its replay window; only a restart leaves a gap.
        """
        async with self._counting:
            counter = self._counters.get(recipient, self._base) + 1
            if counter > self._reserved:
                first = await trio.to_thread.run_sync(
                    self._store.reserve_counters, _COUNTERS, limiter=self._threads
                )
                counter = max(counter, first + 1)
                self._base = self._base or first
                self._reserved = first + _COUNTERS
            if len(self._counters) >= limits.NODES_BELOW_MAX:
                self._counters.clear()
                self._base = self._reserved  # whoever is not remembered goes on above everything
            self._counters[recipient] = counter
            return counter
