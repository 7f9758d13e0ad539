"""Answering on a link: requests of the other side that arrive, and what answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, TrustError, Unavailable, UsageError
from p2pdist.logs import get_logger
from p2pdist.net.asking import answer_bytes_max, problem_of
from p2pdist.net.events import BodyEnded, BodyReceived, RequestStarted, StreamEvent, StreamReset
from p2pdist.net.http2 import Session
from p2pdist.net.pulse import Pulse
from p2pdist.wire import codec

if TYPE_CHECKING:
    from p2pdist.net.established import Link

_log = get_logger()


@dataclass(frozen=True, slots=True)
class RequestHandler:
    """What answers the requests on one path.

    Attributes:
        kind: The type of the request's body.
        answer: Gets the link and the validated body, and returns the answer's structure. What it
            raises of :class:`~p2pdist.errors.P2PDistError` travels to the asker and is raised there.
            It is cancelled when the asker gives up or the link ends.
        strangers: Whether somebody without a certificate may ask.
    """

    kind: Any
    answer: Callable[[Link, Any], Awaitable[Any]]
    strangers: bool = False


RequestTable: TypeAlias = Mapping[str, RequestHandler]
"""By path, such as ``/bundle``."""


class _Arriving:
    """A request whose body is not complete yet. Without a handler it is refused already."""

    __slots__ = ("body", "handler", "path", "started")

    def __init__(self, path: str, handler: RequestHandler | None, started: float) -> None:
        self.path = path
        self.handler = handler
        self.started = started
        self.body = bytearray()


class Answerer:
    """The requests that the other side makes on one link.

    Args:
        link: The link, as handlers get it.
        session: Its session.
        wake: Called when the session has something to send.
        table: What is answered.
        stranger: Whether the other side showed no certificate.
        refusal: Why nothing at all is answered, if so.

    Attributes:
        answered: Requests answered so far.
        refusal: As above.
    """

    __slots__ = (
        "_arriving",
        "_busy",
        "_freed",
        "_held_bytes",
        "_link",
        "_running",
        "_sent",
        "_session",
        "_stranger",
        "_table",
        "_wake",
        "answered",
        "refusal",
    )

    def __init__(
        self,
        link: Link,
        session: Session,
        wake: Callable[[], None],
        table: RequestTable,
        *,
        stranger: bool,
        refusal: P2PDistError | None,
    ) -> None:
        self._link = link
        self._session = session
        self._wake = wake
        self._table = table
        self._stranger = stranger
        self.refusal = refusal
        self._arriving: dict[int, _Arriving] = {}
        self._running: dict[int, trio.CancelScope] = {}
        self._held_bytes = 0
        self._busy = 0
        self._freed = Pulse()
        self._sent = Pulse()
        self.answered = 0

    def refusal_of(self, path: str) -> P2PDistError | None:
        """Say why a request on *path* is not answered; None if it is."""
        if self.refusal is not None:
            return self.refusal
        handler = self._table.get(path)
        if self._stranger and (handler is None or not handler.strangers):
            return TrustError(f"{path or 'this'} needs a certificate of this fleet", hint="enrol first")
        if handler is None:
            return UsageError(f"nothing answers {path or 'this'} here", hint="the two versions may not fit")
        return None

    def refuse(self, stream: int, error: P2PDistError) -> None:
        """Answer at once, without waiting for the rest of the body: the asker stops sending it."""
        self._say(stream, error)

    def turn_away(self, stream: int, path: str, error: P2PDistError) -> None:
        """Refuse a stream, and give it up later if the other side does not."""
        self._arriving[stream] = _Arriving(path, None, trio.current_time())
        self.refuse(stream, error)

    def handle(self, event: StreamEvent, nursery: trio.Nursery) -> None:
        """Take in what happened on a stream that the other side opened. Handlers run in *nursery*."""
        match event:
            case RequestStarted(stream=stream, path=path):
                refusal = self.refusal_of(path)
                if refusal is not None:
                    self.turn_away(stream, path, refusal)
                else:
                    self._arriving[stream] = _Arriving(path, self._table[path], trio.current_time())
            case BodyReceived(stream=stream, data=data):
                self._take(stream, data)
            case BodyEnded(stream=stream):
                arrived = self._arriving.pop(stream, None)
                if arrived is not None and arrived.handler is not None:
                    nursery.start_soon(self._answer, stream, arrived.handler, arrived)
            case StreamReset(stream=stream):
                self._drop(stream)
                scope = self._running.get(stream)
                if scope is not None:
                    scope.cancel()

    def sent(self) -> None:
        """Bytes have left: look whether an answer is through."""
        self._sent.fire()

    def end(self) -> None:
        """The link has ended: nobody waits for answers any more."""
        for scope in self._running.values():
            scope.cancel()
        for stream in list(self._arriving):
            self._drop(stream)

    def expire(self, now: float) -> None:
        """Give up bodies that take too long to arrive."""
        for stream in [s for s, a in self._arriving.items() if now - a.started > limits.REQUEST_TIMEOUT_S]:
            self._drop(stream)
            self._session.reset(stream)
            self._wake()

    @property
    def running(self) -> int:
        """How many requests have arrived whole, and are not answered."""
        return len(self._running)

    @property
    def under_way(self) -> int:
        """How many requests have arrived, in part or whole, and are not answered."""
        return len(self._arriving) + len(self._running)

    def _take(self, stream: int, data: bytes) -> None:
        arriving = self._arriving.get(stream)
        if arriving is None or arriving.handler is None:
            return  # refused: its window stays closed until the asker gives up
        if len(arriving.body) + len(data) > limits.REQUEST_BYTES_MAX:
            problem: P2PDistError = UsageError(
                f"a request on {arriving.path} may have {limits.REQUEST_BYTES_MAX} bytes"
            )
        elif self._held_bytes + len(data) > limits.LINK_BODIES_BYTES_MAX:
            problem = Unavailable("too many requests are under way on this link", hint="try again later")
        else:
            self._held_bytes += len(data)
            arriving.body += data
            self._session.consumed(stream, len(data))
            return
        self._held_bytes -= len(arriving.body)
        arriving.body.clear()
        arriving.handler = None
        self.refuse(stream, problem)

    def _drop(self, stream: int) -> None:
        arriving = self._arriving.pop(stream, None)
        if arriving is not None:
            self._held_bytes -= len(arriving.body)

    async def _answer(self, stream: int, handler: RequestHandler, arrived: _Arriving) -> None:
        held = len(arrived.body)
        with trio.CancelScope() as scope:
            self._running[stream] = scope
            try:
                while self._busy >= limits.LINK_REQUESTS_RUNNING_MAX:
                    await self._freed.wait()
                self._busy += 1
                try:
                    await self._run(stream, handler, arrived)
                    await self._through(stream)
                finally:
                    self._busy -= 1
                    self._freed.fire()
            finally:
                del self._running[stream]
                self._held_bytes -= held
                if scope.cancel_called:
                    self._session.reset(stream)

    async def _run(self, stream: int, handler: RequestHandler, arrived: _Arriving) -> None:
        path = arrived.path
        try:
            body: Any = codec.decode(bytes(arrived.body), handler.kind, bytes_max=limits.REQUEST_BYTES_MAX)
            answer = await handler.answer(self._link, body)
        except P2PDistError as error:
            _log.info("request.refused", path=path, peer=self._link.peer, reason=str(error))
            self._say(stream, error)
            return
        except Exception:  # noqa: BLE001  # one request's handler: its defect must not end the link
            _log.exception("request.failed", path=path, peer=self._link.peer)
            self._say(stream, Unavailable(f"{path} failed", hint="the log of the answering node says why"))
            return
        try:
            data = codec.encode(answer, bytes_max=answer_bytes_max(path))
        except UsageError as error:
            _log.error("request.answer_too_large", path=path, peer=self._link.peer, reason=str(error))
            self._say(stream, Unavailable(f"the answer to {path} is too large to send"))
            return
        self.answered += 1
        self._session.answer(stream, 200)
        self._session.send(stream, data, end=True)
        self._wake()

    async def _through(self, stream: int) -> None:
        """Wait until the answer has left; give it up when the asker stops reading it."""
        while self._session.unfinished(stream):
            _, before = self._session.waiting(stream)
            with trio.move_on_after(limits.REQUEST_TIMEOUT_S) as scope:
                while self._session.unfinished(stream) and self._session.waiting(stream)[1] == before:
                    await self._sent.wait()
            if scope.cancelled_caught:
                self._session.reset(stream)
                self._wake()
                return

    def _say(self, stream: int, error: P2PDistError) -> None:
        """Send *error* as the whole answer."""
        problem = problem_of(error)
        status = {"usage": 400, "peer": 400, "trust": 403, "unavailable": 503}[problem.family]
        self._session.answer(stream, status)
        self._session.send(stream, codec.encode(problem), end=True)
        self._wake()
