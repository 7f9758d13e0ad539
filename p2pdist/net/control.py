"""The control stream of a link: frames in both directions, within bounds. No tasks of its own."""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

from p2pdist import limits
from p2pdist.net.framing import PREFIX_BYTES, FrameSplitter
from p2pdist.net.http2 import Session

PATH: Final = "/control"


class ControlStream:
    """Frames that wait to be sent, and frames that wait to be read, packed as they travel.

    A frame is unpacked only when somebody reads it: packed, what a neighbour makes us hold is no
    larger than what it has sent, and its window stays closed until then.

    Args:
        session: The link's session.

    Attributes:
        stream: The stream's number; 0 before it is open.
        window_opened: Whether the frame taken last let the neighbour send more: it has to be told.
        moved_at: When bytes last left the queue or the queue was empty (trio's clock).
    """

    __slots__ = ("_session", "_splitter", "_unread", "moved_at", "stream", "window_opened")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._splitter = FrameSplitter()
        self._unread: deque[bytes] | None = None  # most links are idle most of the time
        self.stream = 0
        self.window_opened = False
        self.moved_at = trio.current_time()

    def open(self, stream: int) -> None:
        """The stream has this number from now on, and its bytes go before those of requests."""
        self.stream = self._session.urgent = stream

    @property
    def frames_waiting(self) -> int:
        """How many frames wait to be sent."""
        return self._session.waiting(self.stream)[0] if self.stream else 0

    @property
    def frames_unread(self) -> int:
        """How many whole frames wait to be read."""
        return len(self._unread) if self._unread is not None else 0

    def has_room(self, count: int) -> bool:
        """Whether a frame of *count* bytes may be queued now."""
        parts, size = self._session.waiting(self.stream)
        return not parts or (
            parts < limits.LINK_SEND_QUEUE_FRAMES and size + count <= limits.LINK_SEND_QUEUE_BYTES
        )

    def queue(self, packed: bytes) -> None:
        """Queue a frame, with its length before it."""
        self._session.send(self.stream, packed)

    def output(self) -> bytes:
        """Return the session's next bytes to send, and notice whether this stream's move."""
        before = self._session.waiting(self.stream)[1]
        data = self._session.output()
        if self._session.waiting(self.stream)[1] < before:
            self.moved_at = trio.current_time()
        return data

    def stuck_s(self, now: float) -> float:
        """Return for how many seconds the neighbour has taken nothing of what waits for it."""
        if not self.frames_waiting:
            self.moved_at = now
        return now - self.moved_at

    def feed(self, data: bytes) -> None:
        """Take in bytes of the stream. Raises PeerError when they announce an impossible frame."""
        for packed in self._splitter.feed(data):
            if self._unread is None:
                self._unread = deque()
            self._unread.append(packed)

    def take(self) -> bytes | None:
        """Return the next unread frame, without its length, and let the neighbour send as much again."""
        if not self._unread:
            return None
        packed = self._unread.popleft()
        if not self._unread:
            self._unread = None
        self.window_opened = self._session.consumed(self.stream, PREFIX_BYTES + len(packed))
        return packed

    def drop_unread(self) -> None:
        """Forget the frames that nobody has read."""
        self._unread = None
