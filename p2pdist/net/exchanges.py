"""What goes on on a link beside frames: requests and byte streams, each on a stream of its own.

It makes no difference which side dialled. What happens on a stream goes to whoever it concerns: the
byte streams, the questions that this side asked, or those that it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from p2pdist.errors import P2PDistError, UsageError
from p2pdist.net.answering import Answerer, RequestTable
from p2pdist.net.asking import Asker
from p2pdist.net.bytestream import ByteStream
from p2pdist.net.events import RequestStarted, StreamEvent
from p2pdist.net.http2 import Session
from p2pdist.net.streaming import ByteStreams, Served, StreamTable

if TYPE_CHECKING:
    from p2pdist.net.established import Link

T = TypeVar("T")


class Exchanges:
    """See the module.

    Args:
        link: The link, as handlers get it.
        session: Its session.
        wake: Called when the session has something to send.
        requests: What is answered.
        streams: What is served, to members only.
        stranger: Whether one of the two sides showed no certificate.
        refusal: Why nothing at all is answered, if so.

    Attributes:
        answerer: What answers on this side.
    """

    __slots__ = (
        "_asker",
        "_byte_streams",
        "_ended",
        "_link",
        "_session",
        "_table",
        "_wake",
        "answerer",
    )

    def __init__(
        self,
        link: Link,
        session: Session,
        wake: Callable[[], None],
        *,
        requests: RequestTable,
        streams: StreamTable,
        stranger: bool,
        refusal: P2PDistError | None,
    ) -> None:
        self._link = link
        self._session = session
        self._wake = wake
        self._table: StreamTable = {} if stranger or refusal is not None else streams
        self.answerer = Answerer(link, session, wake, requests, stranger=stranger, refusal=refusal)
        self._asker: Asker | None = None  # made when they are needed: most links are idle
        self._byte_streams: ByteStreams | None = None
        self._ended: P2PDistError | None = None

    async def request(self, path: str, body: Any, answer_type: type[T], *, timeout_s: float) -> T:
        """Ask. See :meth:`.established.Link.request`."""
        if self._asker is None:
            self._asker = Asker(self._session, self._wake, self._link.peer, self._ended)
        return await self._asker.request(path, body, answer_type, timeout_s=timeout_s)

    async def open_stream(self, path: str, opening: Any, *, timeout_s: float) -> ByteStream:
        """Open a byte stream. See :meth:`.established.Link.open_stream`; the caller closes it."""
        return await self._streams().open(path, opening, timeout_s=timeout_s)

    def handle(self, event: StreamEvent, nursery: trio.Nursery) -> None:
        """Take in what happened on a stream other than the control stream. Handlers run in *nursery*."""
        if isinstance(event, RequestStarted) and event.opening:
            self._offered(event, nursery)
        elif self._byte_streams is not None and event.stream in self._byte_streams:
            self._byte_streams.handle(event)
        elif not self._session.opened_here(event.stream):
            self.answerer.handle(event, nursery)
        elif self._asker is not None:
            self._asker.handle(event)

    def sent(self) -> None:
        """Bytes have left: there may be room for more."""
        self.answerer.sent()
        if self._byte_streams is not None:
            self._byte_streams.sent()

    def end(self, error: P2PDistError) -> None:
        """The link has ended because of *error*."""
        self._ended = error
        self.answerer.end()
        if self._asker is not None:
            self._asker.end(error)
        if self._byte_streams is not None:
            self._byte_streams.end(error)

    @property
    def requests(self) -> int:
        """How many requests were made and answered so far."""
        return self.answerer.answered + (self._asker.asked if self._asker is not None else 0)

    @property
    def requests_under_way(self) -> int:
        """How many requests in either direction wait for their answers."""
        return self.answerer.under_way + (self._asker.under_way if self._asker is not None else 0)

    @property
    def streams_open(self) -> int:
        """How many byte streams there are, in either direction, with those not accepted yet."""
        return len(self._byte_streams) if self._byte_streams is not None else 0

    def _offered(self, event: RequestStarted, nursery: trio.Nursery) -> None:
        if event.path in self._table:
            self._streams().offered(event, nursery)
        else:
            refusal = self.answerer.refusal_of(event.path)
            nothing = UsageError(f"no byte streams are served on {event.path or 'this'} here")
            self.answerer.turn_away(event.stream, event.path, refusal or nothing)

    def _streams(self) -> ByteStreams:
        if self._byte_streams is None:
            table = {
                path: Served(each.kind, partial(each.serve, self._link)) for path, each in self._table.items()
            }
            self._byte_streams = ByteStreams(
                self._link.peer, self._session, self._wake, table, self.answerer.turn_away
            )
            if self._ended is not None:
                self._byte_streams.end(self._ended)
        return self._byte_streams
