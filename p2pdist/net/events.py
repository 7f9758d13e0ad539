"""What happens on a link's HTTP/2 connection, as :meth:`p2pdist.net.http2.Session.receive` tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReady:
    """The other side speaks HTTP/2 and has told its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStarted:
    """The other side opened a stream. ``path`` is empty where the request makes no sense.

    ``opening`` says what a byte stream is for; it is empty for a request.
    """

    stream: int
    path: str
    opening: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStarted:
    """The other side begins to answer a stream that we opened."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyReceived:
    """The next bytes of a stream; report them to :meth:`Session.consumed` when they are out of the way."""

    stream: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyEnded:
    """The other side has said everything on this stream."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReset:
    """The other side gave the stream up, or broke its rules."""

    stream: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBroken:
    """The other side breaks the stream off, and says why. Its end follows."""

    stream: int
    problem: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnded:
    """The other side says goodbye (GOAWAY). Nothing follows. ``reason`` is what we did wrong, if anything."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceSet:
    """The other side may be asked for a sign of life after so many seconds of silence."""

    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PingAnswered:
    """The other side has answered a :meth:`Session.ping`."""


StreamEvent: TypeAlias = (
    RequestStarted | AnswerStarted | BodyReceived | BodyEnded | StreamBroken | StreamReset
)
SessionEvent: TypeAlias = StreamEvent | SessionReady | PaceSet | PingAnswered | SessionEnded
