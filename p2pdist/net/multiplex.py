"""Many byte streams in one: the connections through a tunnel share one session.

HTTP/2 as on links, and nothing of a link beside the streams: no frames and no requests. Nor does it look
whether the other side is alive: whatever carries it does, and a session may be without a path for a while.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.net.asking import problem_of
from p2pdist.net.bytestream import ByteStream, closing
from p2pdist.net.carrier import Carrier
from p2pdist.net.events import (
    PaceSet,
    PingAnswered,
    RequestStarted,
    SessionEnded,
    SessionEvent,
    SessionReady,
)
from p2pdist.net.http2 import Session
from p2pdist.net.streaming import ByteStreams, Served
from p2pdist.wire import codec

_REFUSED = 503


class Multiplex:
    """One end. Made by :func:`open_multiplex`.

    Args:
        stream: What carries it.
        dialler: Whether this side begins; either side may open streams.
        peer: How errors name the other side.
        served: What byte streams this side serves, by path.
    """

    def __init__(
        self, stream: trio.abc.Stream, *, dialler: bool, peer: str, served: Mapping[str, Served]
    ) -> None:
        self._served = served
        self._session = Session(dialler=dialler, window_bytes=limits.TUNNEL_WINDOW_BYTES)
        self._carrier = Carrier(
            stream,
            self._session,
            self,
            dialler=dialler,
            peer=peer,
            sever=lambda: None,  # what carries it is closed by its owner
            flusher=None,
        )
        self._streams = ByteStreams(
            peer,
            self._session,
            self._carrier.wake,
            served,
            self._turn_away,
            most=limits.TUNNEL_CONNECTIONS_MAX,
        )

    @asynccontextmanager
    async def open_stream(
        self, path: str, opening: Any, *, timeout_s: float = limits.REQUEST_TIMEOUT_S
    ) -> AsyncIterator[ByteStream]:
        """Open a byte stream; the block has it. As :meth:`.established.Link.open_stream`."""
        stream = await self._streams.open(path, opening, timeout_s=timeout_s)
        async with closing(stream):
            yield stream

    async def wait_ended(self) -> P2PDistError:
        """Wait until the other side has ended it, or what carries it is gone; return why."""
        await self._carrier.wait_ended()
        assert self._carrier.end is not None
        return self._carrier.end

    # What the carrier tells --------------------------------------------------------------------------

    def happened(self, event: SessionEvent, nursery: trio.Nursery) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        match event:
            case SessionReady() | PaceSet() | PingAnswered() | SessionEnded():
                pass
            case RequestStarted() if event.opening and event.path in self._served:
                self._streams.offered(event, nursery)
            case RequestStarted():
                self._session.reset(event.stream)
            case _ if event.stream in self._streams:
                self._streams.handle(event)

    def output(self) -> bytes:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        return self._session.output()

    def sent(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        self._streams.sent()

    def ended(self) -> None:
        """See :class:`~p2pdist.net.carrier.Owner`."""
        if self._carrier.end is not None:
            self._streams.end(self._carrier.end)

    # Inside ------------------------------------------------------------------------------------------

    def _turn_away(self, stream: int, path: str, error: P2PDistError) -> None:
        problem = problem_of(error, chars_max=limits.LINK_REASON_CHARS_MAX)
        self._session.answer(stream, _REFUSED)
        self._session.send(stream, codec.encode(problem), end=True)
        self._carrier.wake()

    async def _keep_time(self) -> None:
        while True:
            await trio.sleep(limits.LINK_WATCH_S)
            self._session.forgive()


@asynccontextmanager
async def open_multiplex(
    stream: trio.abc.Stream, *, dialler: bool, peer: str, served: Mapping[str, Served] | None = None
) -> AsyncIterator[Multiplex]:
    """Carry many byte streams over *stream* while the block runs. Arguments as of :class:`Multiplex`.

    Leaving the block says goodbye, which takes 2 s at most, and closes *stream*. What the block raises comes
    out as it is. The end of the stream raises nothing: see :meth:`Multiplex.wait_ended`.
    """
    many = Multiplex(stream, dialler=dialler, peer=peer, served=served or {})
    async with many._carrier.running() as nursery:
        nursery.start_soon(many._keep_time)
        yield many
