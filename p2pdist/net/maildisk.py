"""When a mailbox uses its disk, and what for: in a thread, one visit for many envelopes."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from p2pdist import limits
from p2pdist.core.mailbox import Letter
from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.net.mailfile import Damaged, MailFile, set_aside
from p2pdist.net.pulse import Pulse
from p2pdist.wire.envelope import Envelope

_log = get_logger()


@dataclass(slots=True, kw_only=True)
class Visit:
    """One visit to the disk: what it was for, and what came of it.

    Attributes:
        new: Envelopes to be written.
        gone: Numbers of those that nobody needs there any more.
        wanted: Numbers of those that are needed in memory.
        loaded: Of the wanted ones those that could be read.
        failure: Why none of the new ones were written; None when all of them are on the disk.
        readable: Whether the wanted ones that were not loaded are damaged, and not just out of reach now.
        lost: Whether the file was damaged, and a new one begun.
    """

    new: list[tuple[Letter, Envelope]]
    gone: list[int]
    wanted: list[int]
    loaded: dict[int, Envelope] = field(default_factory=dict)
    failure: P2PDistError | None = None
    readable: bool = True
    lost: bool = False


class MailDisk:
    """What is to be written, removed and read.

    Args:
        file: The file; it belongs to this object from now on.
    """

    def __init__(self, file: MailFile) -> None:
        self._file = file
        self._thread = trio.CapacityLimiter(1)
        self._new: dict[int, tuple[Letter, Envelope]] = {}
        self._writing: dict[int, bool] = {}  # whether it is gone already
        self._gone: list[int] = []
        self._wanted: dict[int, None] = {}
        self._idle = True
        self._soon = False
        self._work = Pulse()
        self._hurry = Pulse()
        self._room = Pulse()
        self._new_bytes = 0
        self.transactions = self.written = 0

    @property
    def unstored(self) -> int:
        """How many envelopes wait to be written."""
        return len(self._new) + len(self._writing)

    async def wait_room(self) -> None:
        """Wait while more waits to be written than memory is for."""
        while self._new_bytes >= limits.MAILBOX_UNSTORED_BYTES_MAX:
            await self._room.wait()

    def add(self, letter: Letter, envelope: Envelope) -> None:
        """Have an envelope written with the next visit."""
        self._new[letter.number] = letter, envelope
        self._new_bytes += letter.size
        self.ring()

    def drop(self, letter: Letter) -> None:
        """An envelope need not be on the disk any more; if it was not written yet, it will not be."""
        if self._new.pop(letter.number, None) is not None:
            self._new_bytes -= letter.size
            self._room.fire()
        elif letter.number in self._writing:
            self._writing[letter.number] = True
        elif letter.stored:
            self._gone.append(letter.number)
            self.ring()

    def want(self, number: int) -> None:
        """Have an envelope read with the next visit, which is soon."""
        self._wanted[number] = None
        self.ring()

    def ring(self, *, soon: bool = False) -> None:
        """There is something to do after the next visit at the latest, and soon if it is so."""
        self._idle = False
        self._soon = self._soon or soon
        self._work.fire()
        if self._urgent():
            self._hurry.fire()

    async def visit(self) -> Visit:
        """Wait until there is something to do, collect more for a moment, and do it.

        Cancellation is looked at before and after the visit, not in its middle.
        """
        while self._idle:
            await self._work.wait()
        with trio.move_on_after(limits.MAILBOX_COMMIT_S):
            while not self._urgent():
                await self._hurry.wait()
        self._idle, self._soon = True, False
        return await self._carry_out(self._collected())

    async def close(self) -> None:
        """Write and remove what is left to do, and close the file."""
        visit = Visit(new=list(self._new.values()), gone=self._gone, wanted=[])
        await trio.to_thread.run_sync(self._use_file, visit, limiter=self._thread)
        self._file.close()

    def _urgent(self) -> bool:
        return (
            self._soon
            or bool(self._wanted)
            or len(self._new) >= limits.MAILBOX_COMMIT_ENVELOPES
            or self._new_bytes >= limits.MAILBOX_UNSTORED_BYTES_MAX // 2
        )

    def _collected(self) -> Visit:
        visit = Visit(new=list(self._new.values()), gone=self._gone, wanted=list(self._wanted))
        self._writing = dict.fromkeys(self._new, False)
        self._new, self._gone, self._wanted = {}, [], {}
        return visit

    async def _carry_out(self, visit: Visit) -> Visit:
        if visit.new or visit.gone or visit.wanted:
            await trio.to_thread.run_sync(self._use_file, visit, limiter=self._thread)
        self._new_bytes -= sum(letter.size for letter, _ in visit.new)
        self._room.fire()
        writing, self._writing = self._writing, {}
        if visit.failure is None:
            self.transactions += bool(visit.new or visit.gone)
            self.written += len(visit.new)
            self._gone += [number for number, gone in writing.items() if gone]
            for letter, _ in visit.new:
                letter.stored = not writing[letter.number]
        else:
            _log.error("mailbox.not_stored", count=len(visit.new), reason=str(visit.failure))
            self._gone += visit.gone if not visit.lost else []
            visit.new = [(letter, e) for letter, e in visit.new if not writing[letter.number]]
        if self._gone:
            self._idle = False
        return visit

    def _use_file(self, visit: Visit) -> None:
        """In the thread: write, remove, read."""
        try:
            if visit.new or visit.gone:
                self._file.apply(visit.new, visit.gone)
        except Damaged as error:
            self._begin_anew(visit, error)
        except P2PDistError as error:
            visit.failure = error
        try:
            visit.loaded = self._file.load(visit.wanted)
        except Damaged as error:
            self._begin_anew(visit, error)
        except P2PDistError as error:
            visit.readable = False
            _log.error("mailbox.not_read", reason=str(error))

    def _begin_anew(self, visit: Visit, error: Damaged) -> None:
        self._file.close()
        visit.lost, visit.failure = True, error
        set_aside(self._file.path)
        self._file = MailFile(self._file.path)
