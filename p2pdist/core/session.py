"""One byte stream in each direction over changing paths. No I/O.

A session begins on the path that is there at once, moves to a better one as soon as it stands, and falls
back when that one dies. The machine numbers the bytes, keeps those of which it is not known that they have
arrived, and sends again over another path what was under way on one that died: nothing is lost, nothing
comes twice. The paths are ordered and reliable while they live; what a path's owner may do to the bytes is
not this machine's business, because the session's TLS runs inside of the stream.

Drive it so: tell it of paths and frames with ``handle_…``; for each path, take frames from
:meth:`Session.poll_frame` one after the other, as fast as the path takes them; :meth:`Session.write` what
the application sends while there is :attr:`Session.room`, and :meth:`Session.read` what has come. Any of
these calls may make frames or bytes available.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from p2pdist import limits
from p2pdist.core.ranges import Gaps, Ranges
from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.wire.paths import Ack, Data, End, Hello, Reset, StreamFrame

PathKind = Literal["direct", "punched", "relayed"]
RANK: Final[dict[PathKind, int]] = {"direct": 0, "punched": 1, "relayed": 2}
"""The best path has the lowest rank."""


@dataclass(slots=True)
class _Path:
    kind: PathKind
    greeted: bool = False
    heard: bool = False


class Session:
    """One end of a session.

    Args:
        now: Monotonic seconds, like every ``now`` here.
        window_bytes: Unread bytes that this end takes, and bytes of its own that it keeps until they have
            arrived.

    Attributes:
        failure: Why the session is over before its end, or None.
    """

    def __init__(self, now: float, *, window_bytes: int = limits.SESSION_WINDOW_BYTES) -> None:
        self._window = window_bytes
        self._paths: dict[int, _Path] = {}
        self._active: int | None = None
        self._pathless_since: float | None = now
        self.failure: PeerError | Unavailable | None = None
        self._reset: Reset | None = None
        # Outwards. Bytes have the numbers up to _length, the end, once there is one, has that number itself.
        # What is from _base on is kept until it is known to have arrived.
        self._kept = bytearray()
        self._base = self._length = 0
        self._sent = 0
        self._ended = False
        self._to_send = Ranges()
        self._under_way: dict[int, Ranges] = {}
        self._their_limit = 0
        # Inwards: bytes before _received have come; those in _unread have not been read yet.
        self._unread = bytearray()
        self._gaps = Gaps(limits.SESSION_GAPS_MAX)
        self._received = 0
        self._their_end: int | None = None
        self._read = 0
        self._told = (0, 0)

    # What the application does ---------------------------------------------------------------------

    @property
    def room(self) -> int:
        """How many bytes may be written now."""
        return 0 if self._ended or self.failure else self._window - len(self._kept)

    def write(self, data: bytes) -> None:
        """Send *data*. Raises UsageError when there is no :attr:`room` for it."""
        if len(data) > self.room:
            raise UsageError(f"{len(data)} bytes do not fit into the session's room of {self.room}")
        self._to_send.add(self._length, self._length + len(data))
        self._length += len(data)
        self._kept += data

    def write_end(self) -> None:
        """Say that nothing follows. Can be repeated."""
        if not self._ended:
            self._ended = True
            self._to_send.add(self._length, self._length + 1)

    def read(self, bytes_max: int) -> bytes:
        """Return what has come, at most so many bytes, and take as many more; empty when there is nothing."""
        data = bytes(self._unread[:bytes_max])
        del self._unread[: len(data)]
        self._read += len(data)
        return data

    @property
    def at_end(self) -> bool:
        """Whether the other side's stream has ended, and everything in it has been read."""
        return self._their_end is not None and self._received > self._their_end and not self._unread

    @property
    def done(self) -> bool:
        """Whether both streams have ended, and both sides have all of them."""
        return self.at_end and self._ended and self._base > self._length

    def reset(self, reason: str) -> None:
        """Give the session up, and tell the other side why, if a path is there."""
        if self.failure is None:
            self._reset = Reset(reason=reason)
            self.failure = Unavailable(f"the session was given up: {reason}")

    # What happens --------------------------------------------------------------------------------------

    def handle_path_opened(self, path: int, kind: PathKind) -> None:
        """A path stands. *path* is a number that was not used before.

        Raises:
            PeerError: there are too many already.
        """
        if len(self._paths) >= limits.SESSION_PATHS_MAX:
            raise PeerError(f"a session has at most {limits.SESSION_PATHS_MAX} paths at once")
        self._paths[path] = _Path(kind)

    def handle_path_closed(self, path: int, now: float) -> None:
        """A path is gone: what was under way on it is sent again over another."""
        if self._paths.pop(path, None) is None:
            return
        for start, end in self._under_way.pop(path, Ranges()):
            self._to_send.add(max(start, self._base), end)
        if path == self._active:
            self._choose()
            if self.path is None:
                self._pathless_since = now

    def handle_frame(self, path: int, frame: StreamFrame) -> None:
        """A frame has come.

        Raises:
            PeerError: the other side breaks the rules; the session is over.
        """
        if path not in self._paths or self.failure is not None:
            return
        try:
            self._take(self._paths[path], frame)
        except PeerError as error:
            self._reset = Reset(reason=error.what)
            self.failure = error
            raise

    def handle_time(self, now: float) -> None:
        """Time has passed: a session without a path is given up at its deadline."""
        deadline = self.next_deadline()
        if deadline is not None and now >= deadline:
            self.failure = Unavailable(
                f"no path between the two sides for {limits.SESSION_PATHLESS_S:.0f} s",
                hint="try again; p2pdist path shows what was tried",
            )

    def next_deadline(self) -> float | None:
        """When to call :meth:`handle_time` at the latest, or None."""
        if self._pathless_since is None or self.failure is not None:
            return None
        return self._pathless_since + limits.SESSION_PATHLESS_S

    # What is to be sent --------------------------------------------------------------------------------

    @property
    def active(self) -> int | None:
        """The number of the path that is used now; None while there is none."""
        return self._active

    @property
    def speechless(self) -> bool:
        """Whether nothing is left to be told but bytes of the stream: no reset, no acknowledgement."""
        return self._reset is None and (
            self.failure is not None or self._active is None or not self._ack_due()
        )

    @property
    def path(self) -> PathKind | None:
        """The kind of the path that is used now; None while there is none."""
        return self._paths[self._active].kind if self._active is not None else None

    def poll_frame(self, path: int) -> StreamFrame | None:
        """Return what is to be sent next on a path, or None. Whatever is returned counts as under way."""
        state = self._paths.get(path)
        if state is None:
            return None
        if self._reset is not None:
            frame, self._reset = self._reset, None
            return frame
        if self.failure is not None:
            return None
        if not state.greeted:
            state.greeted = True
            self._told = self._received, self._limit
            return Hello(received=self._received, limit=self._limit)
        if path != self._active:
            return None
        if self._ack_due():
            self._told = self._received, self._limit
            return Ack(received=self._received, limit=self._limit)
        return self._next_piece(path)

    def _next_piece(self, path: int) -> Data | End | None:
        first = self._to_send.first()
        if first is None:
            return None
        start, stop = first
        piece: Data | End
        if start == self._length:
            piece, stop = End(offset=start), start + 1
        else:
            stop = min(stop, self._length, self._their_limit, start + limits.SESSION_CHUNK_BYTES)
            if stop <= start:
                return None
            piece = Data(offset=start, data=bytes(self._kept[start - self._base : stop - self._base]))
        self._to_send.remove(start, stop)
        self._under_way.setdefault(path, Ranges()).add(start, stop)
        self._sent = max(self._sent, stop)
        return piece

    def _ack_due(self) -> bool:
        received, limit = self._told
        return (
            self._received - received >= self._window // 4
            or self._limit - limit >= self._window // 4
            or (self._received > received and not self._unread)
        )

    # Inside --------------------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return self._read + self._window

    def _take(self, path: _Path, frame: StreamFrame) -> None:
        if not path.heard and not isinstance(frame, Hello | Reset):
            raise PeerError(f"a path begins with a {type(frame).__name__}")
        match frame:
            case Hello():
                path.heard = True
                self._progress(frame.received, frame.limit)
                self._choose()
            case Ack():
                self._progress(frame.received, frame.limit)
            case Data():
                self._come(frame.offset, frame.data)
            case End():
                self._come_end(frame.offset)
            case Reset():
                self.failure = Unavailable(f"the other side gave the session up: {frame.reason}")

    def _progress(self, received: int, limit: int) -> None:
        """The other side has everything before *received*, and takes what is before *limit*."""
        if received > self._sent:
            raise PeerError(f"says that it has {received} bytes, of which {self._sent} were sent")
        self._their_limit = max(self._their_limit, limit)
        if received <= self._base:
            return
        del self._kept[: received - self._base]
        self._base = received
        for ranges in (self._to_send, *self._under_way.values()):
            ranges.remove(0, received)

    def _come(self, offset: int, data: bytes) -> None:
        stop = offset + len(data)
        if stop > self._limit:
            raise PeerError(f"sends byte {stop} of a stream of which up to {self._limit} was asked for")
        if self._their_end is not None and stop > self._their_end:
            raise PeerError("sends bytes after the end of its stream")
        if stop > self._received:
            fresh = max(offset, self._received)
            self._gaps.put(fresh, data[fresh - offset :])
            came = self._gaps.take(self._received)
            self._unread += came
            self._received += len(came)
        self._come_whole()

    def _come_end(self, offset: int) -> None:
        if self._their_end not in (None, offset) or offset < self._received:
            raise PeerError("ends its stream in two places")
        self._their_end = offset
        self._come_whole()

    def _come_whole(self) -> None:
        """Count the end as received, once everything before it is."""
        if self._received == self._their_end:
            self._received += 1

    def _choose(self) -> None:
        """Use the best of the paths on which the other side has spoken."""
        heard = [(RANK[path.kind], number) for number, path in self._paths.items() if path.heard]
        self._active = min(heard)[1] if heard else None
        if self._active is not None:
            self._pathless_since = None
