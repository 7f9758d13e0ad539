"""The other end of a link, which a test plays itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist.errors import P2PDistError
from p2pdist.net.events import AnswerStarted, BodyReceived, RequestStarted, SessionEvent
from p2pdist.net.http2 import Session
from p2pdist.net.link import Link, RequestTable, StreamTable
from p2pdist.trust.certificates import NodeCertificate

both_sides = pytest.mark.parametrize("dialler", [False, True])
"""Whether the link dials, and the raw peer accepts."""


class RawPeer:
    """The other end of a link, which speaks HTTP/2 and does what a test tells it, good or bad."""

    def __init__(self, stream: trio.abc.Stream, *, dialler: bool) -> None:
        self.stream = stream
        self.session = Session(dialler=dialler)
        self._dialler = dialler
        self.events: list[SessionEvent] = []
        self.opened: list[int] = []
        self._sending = trio.Lock()

    async def flush(self) -> None:
        """Send what the session has to send."""
        async with self._sending:
            while data := self.session.output():
                await self.stream.send_all(data)

    async def hear(self) -> list[SessionEvent]:
        """Receive once, answer what HTTP/2 itself demands, and return what happened."""
        data = await self.stream.receive_some(65_536)
        if not data:
            raise EOFError
        happened = self.session.receive(bytes(data))
        self.events += happened
        await self.flush()
        return happened

    async def hear_until(self, kind: type[SessionEvent]) -> Any:
        """Receive until something of *kind* happens, and return it; EOFError at the end."""
        while True:
            for event in await self.hear():
                if isinstance(event, kind):
                    return event

    async def hear_on(self, stream: int, *kinds: type[SessionEvent]) -> Any:
        """Receive until something of these kinds has happened on *stream*, and return it."""
        while not (found := [e for e in self.events if isinstance(e, kinds) and e.stream == stream]):
            await self.hear()
        return found[0]

    async def hear_all(self) -> None:
        """Receive until the end."""
        try:
            while True:
                await self.hear()
        except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            return

    def body(self, stream: int) -> bytes:
        """Return what has arrived on *stream*."""
        return b"".join(e.data for e in self.events if isinstance(e, BodyReceived) and e.stream == stream)

    async def stand(self, link: Link) -> int:
        """Open or accept the control stream, wait until the link stands, and return the stream."""
        if self._dialler:
            control = self.session.open("/control")
            await self.flush()
            await self.hear_until(AnswerStarted)
        else:
            control = (await self.hear_until(RequestStarted)).stream
            self.session.answer(control, 200)
            await self.flush()
        await link.wait_established()
        return control

    async def asked(self) -> int:
        """Wait until the link asks for something, and return the stream on which it does."""
        while (started := await self.hear_until(RequestStarted)).path == "/control":
            pass
        return int(started.stream)


@asynccontextmanager
async def open_against(
    remote: NodeCertificate,
    *,
    dialler: bool,
    requests: RequestTable,
    streams: StreamTable | None = None,
) -> AsyncIterator[tuple[Link, RawPeer]]:
    """Open a link whose other end is a :class:`RawPeer`, over memory; not established yet."""
    ours, theirs = trio.testing.memory_stream_pair()

    def sever() -> None:
        ours.send_stream.close()
        ours.receive_stream.close()

    link = Link(
        ours,
        dialler=dialler,
        remote=remote,
        remote_host="192.0.2.7",
        local_host="192.0.2.1",
        requests=requests,
        streams=streams or {},
        member=True,
        sever=sever,
    )
    async with link.running():
        yield link, RawPeer(theirs, dialler=not dialler)
        await theirs.aclose()


@asynccontextmanager
async def asking(raw: RawPeer, ask: Callable[[], Awaitable[object]]) -> AsyncIterator[tuple[int, list[Any]]]:
    """Have the link ask something of the raw peer while the block runs, and wait for the end of it.

    Yields the stream on which it asks, and a list that gets the answer, or the error.
    """
    came: list[Any] = []

    async def keep() -> None:
        try:
            came.append(await ask())
        except (P2PDistError, trio.BrokenResourceError) as error:
            came.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep)
        yield await raw.asked(), came
