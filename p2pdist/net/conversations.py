"""A service of a device inside of a session: TLS from end to end, a question, an answer, and bytes both ways.

TLS runs over :class:`~p2pdist.net.sessions.SessionStream`, so neither gateways nor a change of path matter
to it.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.net.framing import PREFIX_BYTES, FrameSplitter
from p2pdist.net.sessions import SessionStream
from p2pdist.net.tls import SESSION_PROTOCOL, TlsIdentity, answering_context, client_context, failure
from p2pdist.trust.certificates import parse_certificate
from p2pdist.wire import codec
from p2pdist.wire.services import Accepted, Ask, Chunk, ChunksEnd, Refused, Service, SessionFrame, Signal
from p2pdist.wire.stun import Endpoint

T = TypeVar("T")
_READ_BYTES = 64 * limits.KIB
_Tls = trio.SSLStream[SessionStream]


class Conversation(trio.abc.HalfCloseableStream):
    """The bytes of a service, as a stream. Made by :func:`initiate` and :func:`answer`.

    One task sends bytes and one receives them; any task sends signals. Signals of the other side are handed
    over while bytes are being received.

    Args:
        tls: The session's TLS, after its handshake.
        peer: Who is at its other end.
        on_signal: Called with each signal of the other side; does not block. A PeerError of it ends the
            conversation.

    Attributes:
        stun: Whom the device asks how NATs show it; known to the initiator.
    """

    def __init__(self, tls: _Tls, peer: NodeId, on_signal: Callable[[bytes], object]) -> None:
        self.peer = peer
        self.stun: tuple[Endpoint, ...] = ()
        self._tls = tls
        self._on_signal = on_signal
        self._sending = trio.StrictFIFOLock()
        self._splitter = FrameSplitter(limits.SESSION_FRAME_BYTES_MAX)
        self._frames: list[bytes] = []
        self._unread = b""
        self._ended = self._their_end = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*. Raises ``trio.BrokenResourceError``; cancellation breaks the conversation."""
        view = memoryview(data)
        for start in range(0, len(view), limits.SESSION_CHUNK_BYTES):
            await self._send(Chunk(data=bytes(view[start : start + limits.SESSION_CHUNK_BYTES])))

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send."""
        await self._tls.transport_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that no more bytes follow. Can be repeated."""
        if not self._ended:
            self._ended = True
            await self._send(ChunksEnd())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return bytes of the service; empty once no more follow. Cancellation loses nothing.

        Raises:
            PeerError: the other side says what does not belong here.
            BrokenResourceError: the session has failed.
        """
        await trio.lowlevel.checkpoint()
        while not self._unread and not self._their_end:
            match await self._next():
                case Chunk(data=data):
                    self._unread = data
                case ChunksEnd():
                    self._their_end = True
                case Signal(data=data):
                    self._on_signal(data)
                case other:
                    raise PeerError(f"{self.peer} says {type(other).__name__} in the middle of a session")
        data, self._unread = self._unread[:max_bytes], self._unread[len(self._unread[:max_bytes]) :]
        return data

    async def signal(self, data: bytes) -> None:
        """Tell the other side how this one can be reached. Raises ``trio.BrokenResourceError``."""
        await self._send(Signal(data=data))

    async def aclose(self) -> None:
        """Say that nothing follows, and wait for a while until the other side has everything."""
        with trio.move_on_after(limits.SESSION_FINISH_S):
            try:
                await self.send_eof()
                await self._tls.transport_stream.send_eof()
                while await self._tls.transport_stream.receive_some():
                    pass  # what nobody wants any more
                await self._tls.transport_stream.wait_done()
            except trio.BrokenResourceError:
                return  # the other side is gone, or has had enough

    async def _send(self, frame: SessionFrame) -> None:
        data = codec.encode(frame, bytes_max=limits.SESSION_FRAME_BYTES_MAX)
        async with self._sending:
            await self._tls.send_all(len(data).to_bytes(PREFIX_BYTES, "big") + data)

    async def _next(self) -> SessionFrame:
        while not self._frames:
            data = await self._tls.receive_some(_READ_BYTES)
            if not data:
                raise trio.BrokenResourceError(f"{self.peer} has ended the session")
            self._frames += self._splitter.feed(bytes(data))
        frame: SessionFrame = codec.decode(
            self._frames.pop(0), SessionFrame, bytes_max=limits.SESSION_FRAME_BYTES_MAX
        )
        return frame


@asynccontextmanager
async def initiate(
    session: SessionStream,
    service: Service,
    *,
    identity: TlsIdentity,
    expect: NodeId,
    on_signal: Callable[[bytes], object],
) -> AsyncIterator[Conversation]:
    """Ask a device for a service; the block has it, and its end is said when the block ends.

    Args:
        session: A session whose other end is the device.
        service: What is asked for.
        identity: What we show, and whom we believe.
        expect: The device.
        on_signal: See :class:`Conversation`.

    Raises:
        Unavailable: the device does not answer in time, or refuses for now.
        TrustError: somebody else answers.
        PeerError: it does not follow the protocol.
    """

    async def ask() -> Conversation:
        context = client_context(identity, protocol=SESSION_PROTOCOL)
        conversation = await _shake_hands(session, context, expect, on_signal, server_side=False)
        await conversation._send(Ask(service=service))
        match await conversation._next():
            case Accepted(stun=stun):
                conversation.stun = stun
                return conversation
            case Refused(reason=reason):
                raise Unavailable(f"{expect} refuses: {reason}")
            case other:
                raise PeerError(f"{expect} answers with {type(other).__name__}")

    async with _closing(await _in_time(ask, str(expect))) as conversation:
        yield conversation


@asynccontextmanager
async def answer(
    session: SessionStream,
    *,
    identity: TlsIdentity,
    expect: NodeId,
    judge: Callable[[Ask], str | None],
    on_signal: Callable[[bytes], object],
    stun: Sequence[Endpoint] = (),
) -> AsyncIterator[tuple[Ask, Conversation]]:
    """Answer an initiator; the block has what it asked for. Otherwise as :func:`initiate`.

    Args:
        judge: Returns why a question is refused, or None.
        stun: Whom this device asks how NATs show it.

    Raises:
        TrustError: the question was refused; the initiator has been told why.
    """

    async def hear() -> tuple[Ask, Conversation]:
        context = answering_context(identity)
        conversation = await _shake_hands(session, context, expect, on_signal, server_side=True)
        question = await conversation._next()
        if not isinstance(question, Ask):
            raise PeerError(f"{expect} begins with {type(question).__name__}")
        reason = judge(question)
        if reason is not None:
            await conversation._send(Refused(reason=reason))
            await conversation.aclose()
            raise TrustError(f"refused: {reason}")
        await conversation._send(Accepted(stun=tuple(stun)))
        return question, conversation

    question, conversation = await _in_time(hear, str(expect))
    async with _closing(conversation):
        yield question, conversation


@asynccontextmanager
async def _closing(conversation: Conversation) -> AsyncIterator[Conversation]:
    yield conversation
    await conversation.aclose()  # after an error or a cancellation, the session's own end says it


async def _in_time(work: Callable[[], Awaitable[T]], peer: str) -> T:
    try:
        with trio.fail_after(limits.SESSION_HANDSHAKE_S):
            return await work()
    except trio.TooSlowError:
        raise Unavailable(
            f"{peer} did not answer within {limits.SESSION_HANDSHAKE_S:g} s", hint="try again later"
        ) from None
    except trio.BrokenResourceError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, P2PDistError):
            cause = cause.__cause__
        raise cause or failure(peer, error) from error


async def _shake_hands(
    session: SessionStream,
    context: ssl.SSLContext,
    expect: NodeId,
    on_signal: Callable[[bytes], object],
    *,
    server_side: bool,
) -> Conversation:
    tls = trio.SSLStream(session, context, server_side=server_side)
    await tls.do_handshake()
    if tls.selected_alpn_protocol() != SESSION_PROTOCOL:
        raise PeerError(f"{expect} does not speak {SESSION_PROTOCOL}")
    shown = parse_certificate(tls.getpeercert(binary_form=True) or b"")
    if shown.node != expect:
        raise TrustError(f"{shown.node} answers in a session with {expect}")
    return Conversation(tls, expect, on_signal)
