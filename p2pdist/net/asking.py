"""Asking on a link: requests of this side that are under way, and their answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.events import AnswerStarted, BodyEnded, BodyReceived, StreamEvent, StreamReset
from p2pdist.net.http2 import Session
from p2pdist.net.pulse import Pulse
from p2pdist.wire import codec
from p2pdist.wire.requests import Problem

T = TypeVar("T")

_ANSWER_BYTES_MAX: Final = {
    "/bundle": limits.BUNDLE_BYTES_MAX,
    "/torrent": limits.TORRENT_BYTES_MAX + limits.KIB,
}
_THREAD_BYTES: Final = limits.MIB  # decoding more than this takes longer than a thread's start
_FAMILIES: Final[dict[str, type[P2PDistError]]] = {
    "usage": UsageError,
    "peer": PeerError,
    "trust": TrustError,
    "unavailable": Unavailable,
}


def answer_bytes_max(path: str) -> int:
    """Return how large an answer on *path* may be, in bytes."""
    return _ANSWER_BYTES_MAX.get(path, limits.REQUEST_BYTES_MAX)


def error_of(problem: Problem) -> P2PDistError:
    """Turn what the other side could not do into the error family that it names."""
    return _FAMILIES[problem.family](printable(problem.what), hint=printable(problem.hint))


def printable(text: str) -> str:
    """Return the other side's text as it may be shown: nothing in it moves a terminal's cursor."""
    return "".join(each if each.isprintable() else " " for each in text)


def again(error: P2PDistError) -> P2PDistError:
    """Return an equal error, for one more place where it is raised."""
    return type(error)(error.what, hint=error.hint)


def problem_of(error: P2PDistError, *, chars_max: int = limits.TEXT_CHARS_MAX) -> Problem:
    """Turn an error into what travels to the other side, with texts of at most *chars_max*."""
    family = next((name for name, kind in _FAMILIES.items() if isinstance(error, kind)), "unavailable")
    return Problem(
        family=family,  # type: ignore[arg-type]  # the keys above are the literal's values
        what=error.what[:chars_max],
        hint=error.hint[:chars_max],
    )


class _Question:
    """One request that waits for its answer."""

    __slots__ = ("body", "body_max", "error", "over", "progress", "status")

    def __init__(self, body_max: int) -> None:
        self.body = bytearray()
        self.body_max = body_max
        self.status = 0
        self.over = False
        self.error: P2PDistError | None = None
        self.progress = Pulse()


class Asker:
    """Requests that this side makes.

    Args:
        session: The link's session.
        wake: Called when the session has something to send.
        peer: How to name the other side in errors.
        ended: Why the link has ended, if it has.
    """

    __slots__ = ("_ended", "_peer", "_questions", "_session", "_slots", "_wake", "asked")

    def __init__(
        self, session: Session, wake: Callable[[], None], peer: str, ended: P2PDistError | None
    ) -> None:
        self._session = session
        self._wake = wake
        self._peer = peer
        self._questions: dict[int, _Question] = {}
        self.asked = 0
        self._slots = trio.Semaphore(limits.LINK_QUESTIONS_MAX)
        self._ended = ended

    async def request(self, path: str, body: Any, answer_type: type[T], *, timeout_s: float) -> T:
        """Ask, and return the validated answer. See :meth:`~p2pdist.net.established.Link.request`."""
        data = codec.encode(body, bytes_max=limits.REQUEST_BYTES_MAX)
        async with self._slots:
            if self._ended is not None:
                raise again(self._ended)
            stream = self._session.open(path)
            question = self._questions[stream] = _Question(answer_bytes_max(path))
            try:
                self.asked += 1
                self._session.send(stream, data, end=True)
                self._wake()
                await self._wait(question, path, timeout_s)
            finally:
                del self._questions[stream]
                if not question.over or self._session.unfinished(stream):
                    self._session.reset(stream)
                    self._wake()
        return await self._decoded(question, path, answer_type)

    def handle(self, event: StreamEvent) -> None:
        """Take in what happened on one of this side's streams."""
        question = self._questions.get(event.stream)
        if isinstance(event, BodyReceived):
            self._session.consumed(event.stream, len(event.data))
        if question is None:
            return  # it was given up
        match event:
            case AnswerStarted(status=status):
                question.status = status
            case BodyReceived(data=data):
                question.body += data
                if len(question.body) > question.body_max:
                    question.error = PeerError(f"{self._peer} answers with more than is allowed")
            case BodyEnded():
                question.over = True
            case StreamReset() if not question.over:
                question.over = True
                question.error = Unavailable(f"{self._peer} gave the request up", hint="try again")
        question.progress.fire()

    def end(self, error: P2PDistError) -> None:
        """The link has ended: every request under way, and every later one, fails with *error*."""
        self._ended = error
        for question in self._questions.values():
            if not question.over:
                question.error = question.error or error
            question.progress.fire()

    @property
    def under_way(self) -> int:
        """How many requests wait for their answers."""
        return len(self._questions)

    async def _wait(self, question: _Question, path: str, timeout_s: float) -> None:
        """Wait until the answer is complete, as long as it makes progress."""
        started = trio.current_time()
        while not question.over and question.error is None:
            slowest = started + timeout_s + len(question.body) / limits.LINK_RATE_MIN_BYTES_PER_S
            deadline = min(trio.current_time() + timeout_s, slowest)
            with trio.move_on_at(deadline) as scope:
                await question.progress.wait()
            if scope.cancelled_caught:
                raise Unavailable(
                    f"{self._peer} did not answer {path} within {timeout_s:g} s", hint="try again later"
                )
        if question.error is not None:
            raise again(question.error)

    async def _decoded(self, question: _Question, path: str, answer_type: type[T]) -> T:
        data = bytes(question.body)
        try:
            if question.status != 200:
                problem: Problem = codec.decode(data, Problem)
                raise error_of(problem)
            if len(data) < _THREAD_BYTES:
                return self._decode(data, path, answer_type)
            return await trio.to_thread.run_sync(self._decode, data, path, answer_type)
        except PeerError as error:
            raise PeerError(f"{self._peer}, asked for {path}: {error.what}", hint=error.hint) from error

    def _decode(self, data: bytes, path: str, answer_type: type[T]) -> T:
        answer: T = codec.decode(data, answer_type, bytes_max=answer_bytes_max(path))
        return answer
