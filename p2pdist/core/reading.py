"""What one reader of mirrors asks for next, and what becomes of the bytes. Pure; times are monotonic seconds.

Several distribution points read one artifact together, each byte once: :mod:`~p2pdist.core.division` says
whose each piece is. What the others read comes through the swarm. A reader whose part does not move for a
while is given up; those who stand in for it begin at its end, so that one that was only slow meets them in
the middle.

Life cycle of a piece: *lacking* → *under way* (a request covers it) → *handed over* (its hash is right) →
*held* (libtorrent says so). One that is handed over and not held after a while is lacking again. When a
request ends early, what has come of its piece is kept, and the next one goes on at that byte, maybe at
another mirror.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec

from p2pdist import limits
from p2pdist.core.assembly import Assembly, Partial, Piece
from p2pdist.core.division import Division
from p2pdist.core.mirrors import MirrorFailed, Mirrors
from p2pdist.trust.catalog import Mirror

_LACKING, _UNDER_WAY, _HANDED_OVER, _HELD = range(4)

_HELD_AFTER_S = 10.0  # at most, of a piece that libtorrent was given: a disk that is busy takes a second


class Request:
    """Bytes ``position`` to ``end`` (excluded) of the artifact, to be asked for at a mirror.

    With ``if_range`` they continue what came with this ETag: they are of use only if it is the same (RFC
    9110, section 13.1.5).
    """

    __slots__ = ("began", "end", "if_range", "mirror", "moved", "partial", "pieces", "position", "start")

    def __init__(
        self, mirror: Mirror, pieces: range, partial: Partial, start: int, end: int, now: float
    ) -> None:
        self.mirror = mirror
        self.pieces = pieces
        self.partial = partial
        continues = bool(partial.parts) and partial.parts[-1].url == mirror.url
        self.if_range = partial.etag if continues else ""
        self.start = self.position = start
        self.end = end
        self.began = self.moved = now


class ReadingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reading is, in pieces.

    ``read`` came right from mirrors; ``repeated`` of them were here already, from the swarm; ``taken_over``
    of them were another reader's. ``refused`` came wrong.
    """

    held: int
    pieces: int
    read: int = 0
    repeated: int = 0
    taken_over: int = 0
    refused: int = 0


class Reading:
    """One reader's part in reading one artifact.

    Args:
        length: The artifact's length in bytes.
        piece_bytes: The size of a piece.
        is_right: Whether bytes are a piece, by the signed hashes.
        mirrors: The mirrors.
        reader: Which of the readers this is, from 0.
        readers: How many there are; all of them are told the same.
        now: When it begins.
    """

    def __init__(
        self,
        *,
        length: int,
        piece_bytes: int,
        is_right: Callable[[int, bytes], bool],
        mirrors: Mirrors,
        reader: int = 0,
        readers: int = 1,
        now: float,
    ) -> None:
        self.mirrors = mirrors
        self._length = length
        self._piece_bytes = piece_bytes
        self._pieces = -(-length // piece_bytes)
        self._assembly = Assembly(is_right, mirrors.handle_lied)
        self._division = Division(self._pieces, piece_bytes, readers=readers, reader=reader)
        self._states = bytearray(self._pieces)
        self._elsewhere = bytes(self._pieces)
        self._handed_over: dict[int, float] = {}
        self._partial: dict[int, Partial] = {}
        self._queue: deque[range] = deque()
        self._queue_is_old = True
        self._patience_s = max(limits.MIRROR_PATIENCE_S, piece_bytes / limits.MIRROR_READER_RATE_BYTES_PER_S)
        self._under_way = 0
        self._width = 1
        """How many requests there may be: the others wait for a piece now and then, so it has to be done."""
        self._moved = [now] * readers
        self._came = now
        self._read = self._repeated = self._taken_over = 0

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self._states.count(_HELD) == self._pieces

    def is_hopeless(self, now: float) -> bool:
        """Whether no mirror is left, and nothing has come through the swarm for a while either."""
        return self.mirrors.none_left and self._nothing_comes(now)

    def statistics(self) -> ReadingStatistics:
        """Return how far it is."""
        return ReadingStatistics(
            held=self._states.count(_HELD),
            pieces=self._pieces,
            read=self._read,
            repeated=self._repeated,
            taken_over=self._taken_over,
            refused=self._assembly.refusals,
        )

    def handle_holdings(self, held: bytes, elsewhere: bytes, now: float) -> None:
        """Take in which pieces are held here, and which by any peer that is connected: a 1 each, or a 0."""
        for piece, state in enumerate(self._states):
            if held[piece]:
                if state != _HELD:
                    self._handle_held(piece, now)
            elif state == _HELD or (
                state == _HANDED_OVER and now - self._handed_over[piece] >= _HELD_AFTER_S
            ):
                self._handed_over.pop(piece, None)
                self._states[piece] = _LACKING
            elif elsewhere[piece] and not self._elsewhere[piece]:
                self._moved[self._division.owner_now(piece)] = now
        self._elsewhere = elsewhere
        self._queue_is_old = True
        self._give_up(now)

    def next_request(self, now: float) -> Request | None:
        """Return what is to be asked for now; None when there is nothing, or nobody to be asked."""
        unverified = len(self._handed_over) * self._piece_bytes
        if self._under_way >= self._width or unverified >= limits.MIRROR_UNVERIFIED_BYTES_MAX:
            return None
        mirror = self.mirrors.choose(now)
        pieces = self._next_pieces(now) if mirror is not None else None
        if mirror is None or pieces is None:
            return None
        for piece in pieces:
            self._states[piece] = _UNDER_WAY
        first = pieces[0]
        partial = self._partial.pop(first, Partial())
        lied = any(map(self.mirrors.has_lied, partial.urls))
        if lied or not self._assembly.may_go_on(first, partial, mirror.url):
            partial = Partial()
        self._under_way += 1
        self.mirrors.handle_begun(mirror.url)
        start = first * self._piece_bytes + len(partial.data)
        return Request(mirror, pieces, partial, start, self._end_of(pieces[-1]), now)

    def handle_bytes(self, request: Request, data: bytes, now: float, etag: str = "") -> Iterator[Piece]:
        """Take in the next bytes of an answer with this ETag; yield the pieces that they complete.

        What is beyond the end of the request is left out. To be iterated to its end.
        """
        url = request.mirror.url
        self.mirrors.handle_bytes(url, len(data))
        rest = memoryview(data)[: request.end - request.position]
        while rest and not self.mirrors.has_lied(url):
            piece = request.position // self._piece_bytes
            taken = rest[: self._end_of(piece) - request.position]
            request.partial.append(url, etag, taken)
            request.position += len(taken)
            rest = rest[len(taken) :]
            if request.position == self._end_of(piece):
                partial, request.partial = request.partial, Partial()
                self._adapt_width(request, len(partial.data), now)
                right = self._assembly.judge(piece, partial)
                if right is not None:
                    yield right

    def is_wanted(self, request: Request, now: float) -> bool:
        """Whether more of a request is to be read: its mirror may have been dropped, or be too slow."""
        count, seconds = request.position - request.start, now - request.began
        good = self.mirrors.is_wanted(request.mirror.url, count=count, seconds=seconds, now=now)
        return good and request.position < request.end

    def handle_handed_over(self, piece: int, now: float) -> bool:
        """A piece that is right is there; return whether libtorrent is to be given it."""
        self._read += 1
        self._taken_over += self._division.owner(piece) != self._division.reader
        if self._states[piece] == _HELD:
            self._repeated += 1
            return False
        self._states[piece] = _HANDED_OVER
        self._handed_over[piece] = now
        return True

    def handle_ended(self, request: Request, now: float, error: MirrorFailed | None = None) -> None:
        """A request has ended.

        What it did not bring is to be read from there, but what has changed from anew.
        """
        self._under_way -= 1
        count = request.position - request.start
        if error is None:
            self.mirrors.handle_done(request.mirror.url, count=count, seconds=now - request.began)
        else:
            self.mirrors.handle_failed(request.mirror.url, error, count=count, now=now)
        for piece in request.pieces:
            if self._states[piece] == _UNDER_WAY:
                self._states[piece] = _LACKING
        if request.partial.data and not (error is not None and error.fault == "changed"):
            self._partial[request.position // self._piece_bytes] = request.partial
        self._queue_is_old = True

    def _adapt_width(self, request: Request, count: int, now: float) -> None:
        """Allow more requests where pieces come quickly, and fewer where the line is full."""
        quick = (now - request.moved) * self._piece_bytes < count * self._patience_s / 4
        request.moved = now
        self._width = min(max(1, self._width + (1 if quick else -1)), limits.MIRROR_REQUESTS_MAX)

    # Which pieces -----------------------------------------------------------------------------------

    def _next_pieces(self, now: float) -> range | None:
        """Return adjacent pieces that are to be read next; one that was begun comes first, alone."""
        for piece in list(self._partial):
            if self._states[piece] == _LACKING:
                return range(piece, piece + 1)
            if self._states[piece] == _HELD:
                del self._partial[piece]
        if not self._queue and self._queue_is_old:
            self._queue_is_old = False
            self._queue.extend(self._runs_to_read(now))
        while self._queue:
            run = self._queue.popleft()
            pieces = _first_adjacent(piece for piece in run if self._is_to_read(piece, now))
            if pieces is not None:
                if pieces[-1] != run[-1]:
                    self._queue.appendleft(range(pieces[-1] + 1, run[-1] + 1))
                return pieces
        return None

    def _runs_to_read(self, now: float) -> list[range]:
        """Return the runs that this reader reads: its own; then others'; then, if nothing comes, all."""
        division = self._division
        own = self._lacking(division.runs(division.reader), now)
        if own:
            return own
        given_up = self._lacking(division.runs_taken_over(), now)
        if given_up:
            return given_up[::-1]
        return self._lacking(division.every_run(), now)[::-1] if self._nothing_comes(now) else []

    def _lacking(self, runs: Iterable[range], now: float) -> list[range]:
        return [run for run in runs if any(self._is_to_read(piece, now) for piece in run)]

    def _is_to_read(self, piece: int, now: float) -> bool:
        return self._states[piece] == _LACKING and (not self._elsewhere[piece] or self._nothing_comes(now))

    def _nothing_comes(self, now: float) -> bool:
        return now - self._came >= self._patience_s

    # Who moves --------------------------------------------------------------------------------------

    def _handle_held(self, piece: int, now: float) -> None:
        if self._handed_over.pop(piece, None) is None:  # it came through the swarm
            self._came = now
            self._moved[self._division.owner_now(piece)] = now
        self._states[piece] = _HELD

    def _give_up(self, now: float) -> None:
        """Give up readers whose part has not moved for a while and is not complete."""
        for reader, moved in enumerate(tuple(self._moved)):
            own = reader == self._division.reader or reader in self._division.given_up
            if not own and now - moved >= self._patience_s and self._lacks_some_of(reader):
                self._division.given_up.add(reader)
                self._came = now  # those who stand in for it have just begun
                self._moved = [now] * len(self._moved)

    def _lacks_some_of(self, reader: int) -> bool:
        pieces = (piece for run in self._division.runs(reader) for piece in run)
        return any(self._states[piece] == _LACKING and not self._elsewhere[piece] for piece in pieces)

    def _end_of(self, piece: int) -> int:
        return min((piece + 1) * self._piece_bytes, self._length)


def _first_adjacent(pieces: Iterator[int]) -> range | None:
    """Return the first of *pieces* and those that follow it without a gap."""
    first = last = next(pieces, None)
    if first is None or last is None:
        return None
    for piece in pieces:
        if piece != last + 1:
            break
        last = piece
    return range(first, last + 1)
