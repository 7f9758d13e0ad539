"""A gateway's mailbox: envelopes on their way from one link to the next, none of which gets lost.

A :class:`Hop` is one neighbour's link. What comes in on it is accepted (or refused, for want of space),
sent on at once if there is a link towards its recipient, and written to the disk soon after, many in one
transaction. Whoever sent it gets a receipt when one of two things is true: it is on the disk, or the next
hop has given a receipt for it, which is often sooner, and then nothing is written. What waits on the disk
is read again when its recipient has a link.

Nothing here waits for a neighbour: each hop has a window of envelopes that may be under way, and the
receipts for them make room for more. One task, :meth:`Mailbox.run`, uses the disk.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from p2pdist import limits
from p2pdist.core import mailbox as core
from p2pdist.core.mailbox import Letter
from p2pdist.core.receipts import Dispatch, Receipts
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import get_logger
from p2pdist.net.exchange import Outlet
from p2pdist.net.maildisk import MailDisk, Visit
from p2pdist.net.mailfile import ROW_BYTES, open_mail_file
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Routed, Taken

_log = get_logger()

_LOAD_LETTERS = 64  # read ahead for one recipient ...
_LOAD_BYTES = limits.MIB  # ... in so many bytes, or one
_STORE_AGAIN_S = 1.0
_REFUSALS_A_LINE = 1_000  # of the log: the first, and each so many


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxStatistics:
    """What is in a mailbox now, and what it has done since it was opened."""

    envelopes: int
    size_bytes: int
    unstored: int
    accepted: int
    delivered: int
    refused: int
    expired: int
    transactions: int
    written: int


class Hop:
    """One neighbour's link, as the mailbox sees it. Made by :meth:`Mailbox.hop`."""

    __slots__ = ("_mailbox", "dispatch", "node", "outlet", "ready", "receipts")

    def __init__(self, mailbox: Mailbox, node: NodeId, outlet: Outlet) -> None:
        self._mailbox = mailbox
        self.node = node
        self.outlet = outlet
        self.receipts = Receipts()
        self.dispatch = Dispatch()
        self.ready: OrderedDict[NodeId, None] = OrderedDict()  # who has something waiting, in turn

    async def receive(self, envelope: Envelope) -> None:
        """Take in an envelope that came over this link; waits while the disk is far behind.

        The neighbour gets its receipt later, or hears that there was no room.

        Raises:
            PeerError: the neighbour does not wait for receipts.
        """
        await self._mailbox._accept(self, self.receipts.arrived(), envelope)

    def settle(self) -> None:
        """An envelope came over this link that is dealt with: it is for nobody farther on."""
        self._mailbox._settle(self, self.receipts.arrived())

    def taken(self, receipt: Taken) -> None:
        """The neighbour has given a receipt. Raises PeerError when it is for what was not sent."""
        self._mailbox._taken(self, receipt)


class Mailbox:
    """See the module. Made by :func:`open_mailbox`.

    Args:
        disk: Where envelopes are kept.
        letters: What is kept there already.
        way: Returns the neighbour through which a node is reached now, or None.
        space: How much may wait.
    """

    def __init__(
        self,
        disk: MailDisk,
        letters: Sequence[Letter],
        way: Callable[[NodeId], NodeId | None],
        space: core.Space | None = None,
    ) -> None:
        self._disk = disk
        self._core = core.Mailbox(letters, space)
        self._way = way
        self._hops: dict[NodeId, Hop] = {}
        self._envelopes: dict[int, Envelope] = {}  # those in memory: not written yet, or about to be sent
        self._loading: set[NodeId] = set()
        self._paused: set[NodeId] = set()
        self._stuck: dict[Hop, None] = {}
        self._owing: dict[Hop, None] = {}
        self._debts: dict[int, list[tuple[Hop, int]]] = {}  # by letter: who gets a receipt for it
        self._owed = 0
        self._accepted = self._delivered = self._refused = self._expired = 0

    @contextmanager
    def hop(self, node: NodeId, outlet: Outlet) -> Iterator[Hop]:
        """Use a neighbour's link for as long as the block runs; a newer one takes over from it.

        What is under way on it when the block ends, without a receipt, waits again.
        """
        hop = Hop(self, node, outlet)
        self._hops[node] = hop
        try:
            yield hop
        finally:
            if self._hops.get(node) is hop:
                del self._hops[node]
            self._stuck.pop(hop, None)
            self._owing.pop(hop, None)
            returned = [self._core.returned(number) for number in hop.dispatch.under_way()]
            for recipient in dict.fromkeys(letter.recipient for letter in returned if letter is not None):
                self.look(recipient)

    def look(self, recipient: NodeId) -> None:
        """The way to *recipient* is new: send what waits for it."""
        node = self._way(recipient)
        hop = self._hops.get(node) if node is not None else None
        if hop is not None and self._core.peek(recipient) is not None:
            hop.ready[recipient] = None
            self._pump(hop)

    def statistics(self) -> MailboxStatistics:
        """Return a snapshot."""
        return MailboxStatistics(
            envelopes=len(self._core),
            size_bytes=self._core.size_bytes,
            unstored=self._disk.unstored,
            accepted=self._accepted,
            delivered=self._delivered,
            refused=self._refused,
            expired=self._expired,
            transactions=self._disk.transactions,
            written=self._disk.written,
        )

    def post(self, envelope: Envelope, *, sender: NodeId) -> None:
        """Take in an envelope of this node itself, or one that has come without a link.

        Raises:
            Unavailable: there is no room. Nobody hears of it when the disk turns out to be full.
        """
        self._take_in(envelope, sender)

    async def run(self) -> None:
        """Use the disk, give receipts and look after what is late, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_around)
            while True:
                visit = await self._disk.visit()
                self._visited(visit)
                self._give_receipts()
                if visit.failure is not None:
                    await trio.sleep(_STORE_AGAIN_S)

    # Taking in ---------------------------------------------------------------------------------------

    async def _accept(self, hop: Hop, arrival: int, envelope: Envelope) -> None:
        await self._disk.wait_room()
        if envelope.expires + limits.CLOCK_SKEW_S < time.time():
            self._expired += 1
            self._settle(hop, arrival)
            return
        try:
            letter = self._take_in(envelope, hop.node)
        except Unavailable as error:
            self._refuse(hop, arrival, str(error))
            return
        if letter.stored or self._core.get(letter.number) is None:
            self._settle(hop, arrival)
        else:
            self._debts.setdefault(letter.number, []).append((hop, arrival))

    def _take_in(self, envelope: Envelope, via: NodeId) -> Letter:
        known = len(self._core)
        letter = self._core.accept(
            NodeId(envelope.sender),
            NodeId(envelope.recipient),
            counter=envelope.counter,
            expires=envelope.expires,
            size=len(envelope.box) + ROW_BYTES,
            via=via,
        )
        if len(self._core) > known:
            self._accepted += 1
            self._envelopes[letter.number] = envelope
            self._disk.add(letter, envelope)
            self.look(letter.recipient)
        return letter

    def _settle(self, hop: Hop, arrival: int, *, refused: bool = False) -> None:
        hop.receipts.settle(arrival, refused=refused)
        if self._hops.get(hop.node) is hop:
            self._owing[hop] = None
            self._owed += 1
            self._disk.ring(soon=self._owed >= limits.MAILBOX_COMMIT_ENVELOPES)

    def _refuse(self, hop: Hop, arrival: int, reason: str) -> None:
        if not self._refused % _REFUSALS_A_LINE:
            _log.warning("mailbox.refused", neighbour=hop.node, reason=reason, before=self._refused)
        self._refused += 1
        self._settle(hop, arrival, refused=True)

    # Sending on --------------------------------------------------------------------------------------

    def _pump(self, hop: Hop) -> None:
        """Send what waits for this hop, one recipient after the other, as far as its window goes."""
        while hop.ready:
            recipient = next(iter(hop.ready))
            letter = self._core.peek(recipient)
            if letter is not None and not hop.dispatch.has_room(letter.size):
                return
            hop.ready.popitem(last=False)
            if letter is None or recipient in self._paused or self._way(recipient) != hop.node:
                continue
            envelope = self._envelopes.get(letter.number)
            if envelope is None:
                self._load_ahead(recipient)
                continue
            hop.ready[recipient] = None  # and again, behind the others
            try:
                hop.outlet.send_nowait(Routed(envelope=envelope))
            except Unavailable:
                self._stuck[hop] = None
                return
            hop.dispatch.sent(letter.number, letter.size)
            self._core.sent(letter)
            if letter.stored:
                del self._envelopes[letter.number]

    def _load_ahead(self, recipient: NodeId) -> None:
        if recipient in self._loading:
            return
        self._loading.add(recipient)
        size = 0
        for letter in self._core.ahead(recipient, _LOAD_LETTERS):
            size += letter.size
            if letter.number not in self._envelopes:
                self._disk.want(letter.number)
            if size > _LOAD_BYTES:
                break

    def _taken(self, hop: Hop, receipt: Taken) -> None:
        theirs, ours = hop.dispatch.taken(receipt)
        for number in theirs:
            letter = self._core.remove(number)
            if letter is not None:
                self._delivered += 1
                self._finish(letter)
        for number in ours:
            letter = self._core.returned(number)
            if letter is not None:
                self._paused.add(letter.recipient)
        self._pump(hop)

    def _finish(self, letter: Letter, *, refused: bool = False) -> None:
        """A letter is out of the mailbox: nobody needs it on the disk, whoever sent it gets a receipt."""
        self._envelopes.pop(letter.number, None)
        self._disk.drop(letter)
        for hop, arrival in self._debts.pop(letter.number, ()):
            self._settle(hop, arrival, refused=refused)

    # The disk, and what is late ------------------------------------------------------------------------

    def _visited(self, visit: Visit) -> None:
        if visit.lost:
            self._forget_stored()
        for letter, envelope in visit.new:
            if letter.stored:
                self._envelopes.pop(letter.number, None)
                for hop, arrival in self._debts.pop(letter.number, ()):
                    self._settle(hop, arrival)
            elif visit.failure is not None and letter.under_way:
                self._disk.add(letter, envelope)  # its next hop may have it soon
            elif visit.failure is not None:
                self._core.remove(letter.number)
                self._refused += 1
                self._finish(letter, refused=True)
        for number in visit.wanted:
            letter_wanted = self._core.get(number)
            if letter_wanted is None or letter_wanted.under_way:
                continue
            if number in visit.loaded:
                self._envelopes[number] = visit.loaded[number]
            elif not visit.readable:
                self._paused.add(letter_wanted.recipient)
            else:
                self._core.remove(number)  # it is damaged, and a log line says so
                self._finish(letter_wanted)
        loading, self._loading = self._loading, set()
        for recipient in loading:
            self.look(recipient)

    def _forget_stored(self) -> None:
        """The file was damaged: what was on it is lost, unless its next hop has it by now."""
        stored = [letter for letter in self._core.letters() if letter.stored]
        _log.error("mailbox.lost", envelopes=len(stored))
        for letter in stored:
            letter.stored = False
            self._core.remove(letter.number)
            self._finish(letter)

    def _give_receipts(self) -> None:
        owing, self._owing, self._owed = self._owing, {}, 0
        for hop in owing:
            receipt = hop.receipts.due()
            if receipt is None:
                continue
            try:
                hop.outlet.send_nowait(receipt)
            except Unavailable:
                self._owing[hop] = None  # looked at again soon, if the link has not ended
            else:
                hop.receipts.told(receipt)

    async def _look_around(self) -> None:
        """Let go what has expired, and try again what could not be sent or was refused."""
        while True:
            await trio.sleep(limits.MAILBOX_LOOK_S)
            for letter in self._core.expired(int(time.time())):
                self._expired += 1
                self._finish(letter)
            paused, self._paused = self._paused, set()
            for recipient in paused:
                self.look(recipient)
            stuck, self._stuck = self._stuck, {}
            for hop in stuck:
                self._pump(hop)
            self._disk.ring()


@asynccontextmanager
async def open_mailbox(
    path: Path, *, way: Callable[[NodeId], NodeId | None], space: core.Space | None = None
) -> AsyncIterator[Mailbox]:
    """Open the mailbox in the file *path*; the caller runs :meth:`Mailbox.run` in a nursery of its own.

    A damaged file is set aside. Leaving the block loses nothing that a receipt was given for.

    Args:
        path: The file; it is made if it is not there.
        way: Returns the neighbour through which a node is reached now, or None. When its answers
            change, call :meth:`Mailbox.look`.
        space: How much may wait.

    Raises:
        Unavailable: another process has the file, or the disk fails.
    """
    file, letters = await trio.to_thread.run_sync(open_mail_file, path)
    if letters:
        _log.info("mailbox.opened", path=str(path), envelopes=len(letters))
    disk = MailDisk(file)
    try:
        yield Mailbox(disk, letters, way, space)
    finally:
        with trio.CancelScope(shield=True):  # ended by the disk: a thread cannot be interrupted
            await disk.close()
