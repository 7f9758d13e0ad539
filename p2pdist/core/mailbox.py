"""Which envelopes a gateway takes, in which order each recipient gets them, and when they are let go.

Nothing that was accepted is ever pushed out. So it is decided on arrival who may use how much of the
space, by dynamic thresholds (Choudhury and Hahne, 1998): what one pair of sender and recipient has
waiting may be at most an eighth of what is still free, what came over one link at most as much as is
still free. However many flood, some space stays free for whoever has nothing waiting yet.

An envelope is *waiting* until it was sent to its next hop, *under way* until that hop has it, and then
gone. If the link ends before, it is waiting again, at its old place. Pure; times are Unix seconds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId

_GONE_KEPT = 1_024  # numbers of letters that are gone, before they are looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """How much may wait: in all, and of one pair of sender and recipient."""

    envelopes: int = limits.MAILBOX_ENVELOPES_MAX
    size_bytes: int = limits.MAILBOX_BYTES_MAX
    pair_envelopes: int = limits.MAILBOX_PAIR_ENVELOPES_MAX
    pair_bytes: int = limits.MAILBOX_PAIR_BYTES_MAX


@dataclass(slots=True, kw_only=True)
class Letter:
    """An envelope as the mailbox sees it: everything but its content.

    Attributes:
        number: Its place in the order of arrival; never given twice.
        counter: The sender's own number.
        via: The neighbour over whose link it came.
        stored: Whether it is on the disk.
        under_way: Whether it was sent to its next hop, which does not have it for sure yet.
    """

    number: int
    sender: NodeId
    recipient: NodeId
    counter: int
    expires: int
    size: int
    via: NodeId
    stored: bool = False
    under_way: bool = False


@dataclass(slots=True)
class _Used:
    """What something uses of the space, and which counters are among it."""

    envelopes: int = 0
    size_bytes: int = 0
    counters: dict[int, int] = field(default_factory=dict)


class Mailbox:
    """The envelopes on one gateway that have not reached their next hop.

    Args:
        letters: Those that an earlier run has stored, by number.
        space: How much may wait.
    """

    def __init__(self, letters: Iterable[Letter] = (), space: Space | None = None) -> None:
        self._space = space or Space()
        self._letters: dict[int, Letter] = {}
        self._waiting: dict[NodeId, list[int]] = {}
        self._expiries: list[tuple[int, int]] = []
        self._used = _Used()
        self._pairs: dict[tuple[NodeId, NodeId], _Used] = {}
        self._vias: dict[NodeId, _Used] = {}
        self._last = self._gone = 0
        for letter in letters:
            self._add(letter)

    def __len__(self) -> int:
        return len(self._letters)

    @property
    def size_bytes(self) -> int:
        """How many bytes wait or are under way."""
        return self._used.size_bytes

    def accept(
        self, sender: NodeId, recipient: NodeId, *, counter: int, expires: int, size: int, via: NodeId
    ) -> Letter:
        """Take an envelope in; of one that is here already, return the letter that it has.

        Raises:
            Unavailable: there is no room for it now.
        """
        pair = self._pairs.get((sender, recipient), _Used())
        known = pair.counters.get(counter)
        if known is not None:
            return self._letters[known]
        self._check_room(pair, self._vias.get(via, _Used()), size)
        letter = Letter(
            number=self._last + 1,
            sender=sender,
            recipient=recipient,
            counter=counter,
            expires=expires,
            size=size,
            via=via,
        )
        self._add(letter)
        return letter

    def get(self, number: int) -> Letter | None:
        """Return a letter that is still here."""
        return self._letters.get(number)

    def letters(self) -> tuple[Letter, ...]:
        """Return all letters, in the order of their arrival."""
        return tuple(self._letters.values())

    def recipients(self) -> tuple[NodeId, ...]:
        """Return who has something waiting."""
        return tuple(self._waiting)

    def peek(self, recipient: NodeId) -> Letter | None:
        """Return what is next for *recipient*."""
        waiting = self._waiting.get(recipient)
        while waiting:
            letter = self._letters.get(waiting[0])
            if letter is not None and not letter.under_way:
                return letter
            heapq.heappop(waiting)  # it is gone
        self._waiting.pop(recipient, None)
        return None

    def ahead(self, recipient: NodeId, count: int) -> list[Letter]:
        """Return the next letters for *recipient*, at most *count*."""
        first = heapq.nsmallest(count, self._waiting.get(recipient, ()))
        return [letter for number in first if (letter := self._letters.get(number)) is not None]

    def sent(self, letter: Letter) -> None:
        """The letter that was next for its recipient is under way."""
        letter.under_way = True
        self.peek(letter.recipient)

    def returned(self, number: int) -> Letter | None:
        """A letter that was under way has not arrived: it waits again; None if it is gone."""
        letter = self._letters.get(number)
        if letter is not None and letter.under_way:
            letter.under_way = False
            heapq.heappush(self._waiting.setdefault(letter.recipient, []), number)
        return letter

    def remove(self, number: int) -> Letter | None:
        """A letter is no longer ours to keep; return it, or None if it is gone already."""
        letter = self._letters.pop(number, None)
        if letter is None:
            return None
        pair = (letter.sender, letter.recipient)
        del self._pairs[pair].counters[letter.counter]
        for used in (self._used, self._pairs[pair], self._vias[letter.via]):
            used.envelopes -= 1
            used.size_bytes -= letter.size
        if not self._pairs[pair].envelopes:
            del self._pairs[pair]
        if not self._vias[letter.via].envelopes:
            del self._vias[letter.via]
        self._gone += 1
        if self._gone > len(self._letters) + _GONE_KEPT:
            self._forget_gone()
        self.peek(letter.recipient)
        return letter

    def expired(self, now: int) -> list[Letter]:
        """Remove and return the letters that their recipients would refuse as too late."""
        late = []
        while self._expiries and self._expiries[0][0] + limits.CLOCK_SKEW_S < now:
            letter = self.remove(heapq.heappop(self._expiries)[1])
            if letter is not None:
                late.append(letter)
        return late

    def _add(self, letter: Letter) -> None:
        self._last = max(self._last, letter.number)
        self._letters[letter.number] = letter
        heapq.heappush(self._waiting.setdefault(letter.recipient, []), letter.number)
        heapq.heappush(self._expiries, (letter.expires, letter.number))
        pair = self._pairs.setdefault((letter.sender, letter.recipient), _Used())
        pair.counters[letter.counter] = letter.number
        for used in (self._used, pair, self._vias.setdefault(letter.via, _Used())):
            used.envelopes += 1
            used.size_bytes += letter.size

    def _forget_gone(self) -> None:
        """Drop the numbers of letters that are gone: they are removed from the heaps only at the top."""
        self._gone = 0
        self._expiries = [(letter.expires, number) for number, letter in self._letters.items()]
        heapq.heapify(self._expiries)
        for recipient, waiting in list(self._waiting.items()):
            waiting[:] = [number for number in waiting if number in self._letters]
            heapq.heapify(waiting)
            self.peek(recipient)

    def _check_room(self, pair: _Used, via: _Used, size: int) -> None:
        free = self._space.envelopes - self._used.envelopes
        free_bytes = self._space.size_bytes - self._used.size_bytes
        pair_bytes = min(self._space.pair_bytes, free_bytes // limits.MAILBOX_PAIR_SHARE)
        pair_envelopes = min(self._space.pair_envelopes, free // limits.MAILBOX_PAIR_SHARE)
        if pair.envelopes + 1 > pair_envelopes or pair.size_bytes + size > pair_bytes:
            raise Unavailable(
                f"{pair.envelopes} envelopes of {pair.size_bytes} bytes from one sender wait already",
                hint="send it again once some of them have left",
            )
        if via.envelopes + 1 > free or via.size_bytes + size > free_bytes:
            raise Unavailable(
                f"{via.envelopes} envelopes of {via.size_bytes} bytes from one neighbour wait already",
                hint="send it again once some of them have left",
            )
