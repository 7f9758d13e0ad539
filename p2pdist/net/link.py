"""Links between neighbours: dialling, accepting, frames, requests, keepalive.

One task per link reads, one writes; whoever sends waits for flow control, never for the socket with a
lock held. A link that ends, for whatever reason, ends its iterators and wakes everybody who waits.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog
import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.net import http2
from p2pdist.net.framing import FrameSplitter, pack_frame, unpack_frame
from p2pdist.net.tls import TlsIdentity, client_context, server_context, stranger_context
from p2pdist.trust.certificates import NodeCertificate, parse_certificate
from p2pdist.wire import codec
from p2pdist.wire.frames import AnyFrame
from p2pdist.wire.requests import Problem

_log = structlog.get_logger()
T = TypeVar("T")

_CONTROL = "/control"
_READ_BYTES = 64 * limits.KIB
_UNSENT_BYTES_MAX = 512 * limits.KIB  # beyond it senders wait for the socket
_ANSWER_BYTES_MAX = max(limits.BUNDLE_BYTES_MAX, limits.TORRENT_BYTES_MAX) + limits.KIB
_FAMILIES: dict[str, type[P2PDistError]] = {
    "usage": UsageError,
    "peer": PeerError,
    "trust": TrustError,
    "unavailable": Unavailable,
}


@dataclass(frozen=True, slots=True)
class RequestHandler:
    """What answers requests for one path: the body's type, and the answer.

    ``strangers`` admits peers without a certificate.
    """

    kind: type
    answer: Callable[[Link, Any], Awaitable[Any]]
    strangers: bool = False


RequestTable = Mapping[str, RequestHandler]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """A moment of a link: bytes of HTTP/2 in each direction, and requests under way."""

    bytes_received: int
    bytes_sent: int
    requests: int


@dataclass(slots=True)
class _Stream:
    """An incoming or outgoing request under way."""

    path: str
    body: bytearray = field(default_factory=bytearray)
    status: int = 0
    ended: trio.Event = field(default_factory=trio.Event)
    reset: bool = False
    bytes_max: int = limits.REQUEST_BYTES_MAX


class Link:
    """A connection to one neighbour. Made by :func:`open_link` and :func:`serve_links` only.

    Attributes:
        remote: What the neighbour's certificate says; None for a stranger.
        remote_host: The neighbour's address as seen here.
        local_host: Our address on this connection.
    """

    def __init__(
        self,
        stream: trio.SSLStream[trio.SocketStream],
        *,
        dialler: bool,
        remote: NodeCertificate | None,
        requests: RequestTable,
    ) -> None:
        self.remote = remote
        sock = stream.transport_stream.socket
        self.remote_host: str = sock.getpeername()[0]
        self.local_host: str = sock.getsockname()[0]
        self._stream = stream
        self._dialler = dialler
        self._requests = requests
        self._session = http2.Session(dialler=dialler)
        self._streams: dict[int, _Stream] = {}
        self._control: int | None = None
        self._splitter = FrameSplitter()
        self._frames_out, self._frames_queue = trio.open_memory_channel[AnyFrame](
            limits.LINK_SEND_QUEUE_FRAMES
        )
        self._arrived, self._arriving = trio.open_memory_channel[tuple[bytes, int]](64)
        self._unsent = bytearray()
        self._sending = trio.Lock()
        self._wakeup = trio.Event()
        self._room = trio.Event()
        self._controlled = trio.Event()
        self._last_received = trio.current_time()
        self._bytes = [0, 0]
        self._reason: str | None = None
        self._ended = trio.Event()

    # What neighbours use -----------------------------------------------------------------------------

    async def send(self, frame: AnyFrame) -> None:
        """Send a frame; waits while the neighbour reads slowly.

        Raises:
            Unavailable: the link has ended.
        """
        try:
            await self._frames_out.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from None

    def send_nowait(self, frame: AnyFrame) -> None:
        """Queue a frame. Raises Unavailable when the queue is full or the link has ended."""
        try:
            self._frames_out.send_nowait(frame)
        except trio.WouldBlock:
            raise Unavailable(f"{self._name()} reads too slowly") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise self._gone() from None

    async def frames(self) -> AsyncIterator[AnyFrame]:
        """Yield the neighbour's frames until the link ends.

        Raises:
            PeerError: a frame is not valid.
        """
        async for data, credit in self._arriving:
            for packed in self._splitter.feed(data):
                yield unpack_frame(packed)
            if self._control is not None and not self._ended.is_set():
                self._credit(self._control, credit)

    async def request(
        self, path: str, body: Any, answer: type[T], *, timeout_s: float = limits.REQUEST_TIMEOUT_S
    ) -> T:
        """Ask the neighbour (only the dialler can).

        Raises:
            Unavailable: no answer in *timeout_s* seconds, or the link ended.
            P2PDistError: what the neighbour says is wrong, in the family that it names.
        """
        assert self._dialler, "the acceptor of a link asks by frames"
        if self._ended.is_set():
            raise self._gone()
        number = self._session.open(path)
        stream = self._streams[number] = _Stream(path=path, bytes_max=_ANSWER_BYTES_MAX)
        try:
            with trio.move_on_after(timeout_s) as scope:
                await self._send_body(number, codec.encode(body, bytes_max=limits.REQUEST_BYTES_MAX))
                await stream.ended.wait()
            if scope.cancelled_caught:
                raise Unavailable(f"{self._name()} did not answer {path} in {timeout_s:g} seconds")
        finally:
            del self._streams[number]
            if not stream.ended.is_set():
                self._session.reset(number)
                self._flush()
        return self._answer_of(stream, answer)

    def statistics(self) -> LinkStatistics:
        """Return the link's counters."""
        received, sent = self._bytes
        return LinkStatistics(bytes_received=received, bytes_sent=sent, requests=len(self._streams))

    async def wait_ended(self) -> None:
        """Wait until the link has ended."""
        await self._ended.wait()

    async def aclose(self, reason: str = "") -> None:
        """End the link, telling the neighbour why if it listens. Bounded in time; can be repeated."""
        if not self._ended.is_set():
            self._session.close(reason)
            self._flush()
            self._end("closed here")
            with trio.move_on_after(1) as scope:
                scope.shield = True
                while self._unsent:
                    if not await self._write_once():
                        break
        with trio.move_on_after(0) as scope:
            scope.shield = True
            await trio.aclose_forcefully(self._stream)

    # The two tasks ---------------------------------------------------------------------------------

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Move bytes until the link ends; never raises for what the neighbour does."""
        self._flush()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, nursery)
                nursery.start_soon(self._write)
                nursery.start_soon(self._send_frames)
                task_status.started()
                await self._ended.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._end("cancelled")

    def open_control(self) -> None:
        """Begin the control stream; the dialler does, before anything else."""
        self._control = self._session.open(_CONTROL)
        self._controlled.set()
        self._flush()

    async def wait_controlled(self) -> bool:
        """Wait until the control stream is there; False if the link ends first."""
        async with trio.open_nursery() as nursery:

            async def ended() -> None:
                await self._ended.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(ended)
            await self._controlled.wait()
            nursery.cancel_scope.cancel()
        return self._controlled.is_set() and not self._ended.is_set()

    async def _read(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._end(_broken(error))
                return
            if not data:
                self._end("the other side closed it")
                return
            self._last_received = trio.current_time()
            self._bytes[0] += len(data)
            try:
                for event in self._session.receive(bytes(data)):
                    await self._handle(event, nursery)
            except PeerError as error:
                _log.warning("link.protocol_error", remote=self._name(), reason=str(error))
                self._flush()
                self._end(str(error))
                return
            except Unavailable as error:
                self._end(str(error))
                return
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return  # ended while frames were waiting to be read
            self._flush()

    async def _handle(self, event: http2.SessionEvent, nursery: trio.Nursery) -> None:
        match event:
            case http2.StreamOpened(stream=number, path=path):
                self._opened(number, path)
            case http2.HeadReceived(stream=number, status=status):
                if number in self._streams:
                    self._streams[number].status = status
            case http2.DataReceived(stream=number) if number == self._control:
                await self._arrived.send((event.data, event.credit))
            case http2.DataReceived(stream=number):
                self._collect(number, event.data)
                self._session.credit(number, event.credit)
            case http2.StreamEnded(stream=number):
                self._stream_ended(number, nursery)
            case http2.StreamReset(stream=number):
                if number == self._control:
                    raise Unavailable("the other side gave up the control stream")
                if number in self._streams:
                    self._streams[number].reset = True
                    self._streams[number].ended.set()
            case http2.WindowOpened():
                self._open_room()
            case http2.LinkEnded(reason=reason):
                raise Unavailable(reason)

    def _opened(self, number: int, path: str) -> None:
        if path == _CONTROL:
            if self._control is not None or self.remote is None:
                raise PeerError("a second control stream, or one without a certificate")
            self._control = number
            self._session.answer(number, 200)
            self._controlled.set()
            return
        self._streams[number] = _Stream(path=path)

    def _collect(self, number: int, data: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.body += data
        if len(stream.body) > stream.bytes_max:
            raise PeerError(f"more than {stream.bytes_max} bytes for {stream.path}")

    def _stream_ended(self, number: int, nursery: trio.Nursery) -> None:
        if number == self._control:
            raise Unavailable("the other side ended the control stream")
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.ended.set()
        if not self._dialler:
            nursery.start_soon(self._serve, number, stream)

    async def _write(self) -> None:
        """Write what is pending, and ask for a sign of life when nothing arrives."""
        while True:
            if not self._unsent:
                silent = trio.current_time() - self._last_received
                if silent >= limits.LINK_DEAD_AFTER_S:
                    self._end(f"no sign of life for {limits.LINK_DEAD_AFTER_S:g} seconds")
                    return
                with trio.move_on_after(limits.LINK_KEEPALIVE_S) as scope:
                    await self._wakeup.wait()
                if scope.cancelled_caught:
                    try:
                        self._session.ping()
                    except Unavailable as error:
                        self._end(str(error))
                        return
                    self._flush()
                continue
            with trio.move_on_after(limits.LINK_DEAD_AFTER_S) as scope:
                if not await self._write_once():
                    return
            if scope.cancelled_caught:
                self._end("the other side does not read")
                return

    async def _write_once(self) -> bool:
        try:
            async with self._sending:
                data, self._unsent = bytes(self._unsent), bytearray()
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(_broken(error))
            return False
        self._bytes[1] += len(data)
        self._open_room()
        return True

    async def _send_frames(self) -> None:
        await self._controlled.wait()
        assert self._control is not None
        async for frame in self._frames_queue:
            try:
                await self._send_all(self._control, pack_frame(frame), end=False)
            except Unavailable as error:
                self._end(str(error))
                return

    # Requests --------------------------------------------------------------------------------------

    async def _serve(self, number: int, stream: _Stream) -> None:
        """Answer one request. The one boundary at which a handler's own defects stop."""
        try:
            status, body = 200, codec.encode(await self._answer(stream), bytes_max=_ANSWER_BYTES_MAX)
        except P2PDistError as error:
            status, body = 400, _problem(error)
        except Exception as error:  # noqa: BLE001 - one request's handler; the link and the server go on
            _log.error("request.failed", path=stream.path, remote=self._name(), exc_info=error)
            status, body = 500, _problem(Unavailable("the request failed", hint="see the other side's log"))
        try:
            self._session.answer(number, status)
            await self._send_body(number, body)
        except Unavailable:
            return  # the asker has gone
        finally:
            self._streams.pop(number, None)

    async def _answer(self, stream: _Stream) -> Any:
        handler = self._requests.get(stream.path)
        if handler is None:
            raise UsageError(f"nothing answers {stream.path[:80]!r} here")
        if self.remote is None and not handler.strangers:
            raise TrustError(f"{stream.path} needs a certificate of the fleet", hint="enrol first")
        body: Any = codec.decode(bytes(stream.body), handler.kind, bytes_max=limits.REQUEST_BYTES_MAX)
        return await handler.answer(self, body)

    def _answer_of(self, stream: _Stream, answer: type[T]) -> T:
        if stream.reset or (self._ended.is_set() and not stream.status):
            raise self._gone()
        if stream.status == 200:
            return codec.decode(bytes(stream.body), answer, bytes_max=_ANSWER_BYTES_MAX)
        problem: Problem = codec.decode(bytes(stream.body), Problem)
        raise _FAMILIES[problem.family](problem.what, hint=problem.hint)

    async def _send_body(self, number: int, body: bytes) -> None:
        await self._send_all(number, body, end=True)

    async def _send_all(self, number: int, data: bytes, *, end: bool) -> None:
        view = memoryview(data)
        while view or end:
            if self._ended.is_set():
                raise self._gone()
            room = self._session.room(number)
            if (view and not room) or len(self._unsent) > _UNSENT_BYTES_MAX:
                await self._room.wait()
                continue
            chunk, view = view[:room], view[room:]
            last = end and not view
            self._session.send(number, bytes(chunk), end=last)
            self._flush()
            if last:
                return

    # Small things ------------------------------------------------------------------------------------

    def _credit(self, number: int, count: int) -> None:
        try:
            self._session.credit(number, count)
        except Unavailable:
            return  # the stream has just ended; there is nobody to tell
        self._flush()

    def _flush(self) -> None:
        self._unsent += self._session.pending()
        if self._unsent:
            self._wakeup.set()
            self._wakeup = trio.Event()

    def _open_room(self) -> None:
        self._room.set()
        self._room = trio.Event()

    def _end(self, reason: str) -> None:
        if self._ended.is_set():
            return
        self._reason = reason
        self._ended.set()
        self._frames_out.close()
        self._arrived.close()
        for stream in self._streams.values():
            stream.ended.set()
        self._open_room()

    def _gone(self) -> Unavailable:
        return Unavailable(f"the link to {self._name()} has ended ({self._reason or 'it is closing'})")

    def _name(self) -> str:
        return f"{self.remote.node} at {self.remote_host}" if self.remote else self.remote_host


# Dialling ------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_link(
    host: str,
    port: int,
    *,
    identity: TlsIdentity,
    expect: NodeId | None,
    requests: RequestTable | None = None,
    local_host: str | None = None,
) -> AsyncIterator[Link]:
    """Dial a neighbour. Leaving the block, or cancelling it, closes the link.

    Args:
        host: Name or address.
        port: TCP port.
        identity: What we show.
        expect: The node that must answer; None admits any member of the fleet.
        requests: What the neighbour may ask of us.
        local_host: The address to dial from.

    Raises:
        Unavailable: nobody answers in time, or the connection breaks.
        TrustError: who answers is not who is expected.
    """
    stream = await _dial(host, port, client_context(identity), local_host)
    async with _running(stream, requests or {}, expect, member=True) as link:
        yield link


@asynccontextmanager
async def open_stranger_link(
    host: str, port: int, *, ca_pem: bytes, expect: NodeId | None, local_host: str | None = None
) -> AsyncIterator[Link]:
    """Dial without a certificate of our own, for the requests that admit strangers."""
    stream = await _dial(host, port, stranger_context(ca_pem), local_host)
    async with _running(stream, {}, expect, member=False) as link:
        yield link


@asynccontextmanager
async def _running(
    stream: trio.SSLStream[trio.SocketStream], requests: RequestTable, expect: NodeId | None, *, member: bool
) -> AsyncIterator[Link]:
    try:
        remote = parse_certificate(stream.getpeercert(binary_form=True))
        if expect is not None and remote.node != expect:
            raise TrustError(f"{remote.node} answered where {expect} was expected")
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    link = Link(stream, dialler=True, remote=remote, requests=requests)
    if member:
        link.open_control()
    with _one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(link.run)
            try:
                yield link
            finally:
                await link.aclose()
                nursery.cancel_scope.cancel()


async def _dial(
    host: str, port: int, context: ssl.SSLContext, local_host: str | None
) -> trio.SSLStream[trio.SocketStream]:
    where = f"{host}:{port}"
    try:
        with trio.fail_after(limits.LINK_HANDSHAKE_S):
            tcp = await trio.open_tcp_stream(host, port, local_address=local_host)
            stream = trio.SSLStream(tcp, context, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(tcp)
                raise
    except trio.TooSlowError:
        raise Unavailable(f"{where} did not answer in {limits.LINK_HANDSHAKE_S:g} seconds") from None
    except trio.BrokenResourceError as error:
        raise _handshake_error(where, error) from error
    except OSError as error:
        raise Unavailable(f"{where} cannot be reached ({error.strerror or error})") from error
    return stream


def _handshake_error(where: str, error: trio.BrokenResourceError) -> P2PDistError:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TrustError(
            f"{where} shows no valid certificate of this fleet ({cause.verify_message})",
            hint="check the address and both clocks",
        )
    return Unavailable(f"{where} broke off the handshake ({_broken(error)})")


# Accepting -----------------------------------------------------------------------------------------


async def serve_links(
    *,
    host: str,
    port: int,
    identity: Callable[[], TlsIdentity],
    requests: RequestTable,
    on_link: Callable[[Link], Awaitable[None]],
    revoked: Callable[[NodeId], bool],
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Accept links until cancelled.

    Args:
        host: The address to listen on.
        port: The TCP port; 0 takes any.
        identity: Returns what we show; asked for each connection.
        requests: What may be asked of us.
        on_link: Runs for as long as a member's link lives; the link ends when it returns. What it
            raises is logged, and a :class:`~p2pdist.errors.P2PDistError` is told to the neighbour.
        revoked: Whether a node is no longer welcome.
        task_status: Reports the bound ``(host, port)`` once connections are accepted.

    Raises:
        UsageError: the address cannot be listened on.
    """
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        raise UsageError(
            f"{host}:{port} cannot be listened on ({error.strerror or error})", hint="choose another address"
        ) from error
    acceptor = _Acceptor(identity, requests, on_link, revoked)
    task_status.started(listeners[0].socket.getsockname()[:2])
    await trio.serve_listeners(acceptor.connection, listeners)


class _Acceptor:
    """Takes connections through the handshake and runs their links."""

    def __init__(
        self,
        identity: Callable[[], TlsIdentity],
        requests: RequestTable,
        on_link: Callable[[Link], Awaitable[None]],
        revoked: Callable[[NodeId], bool],
    ) -> None:
        self._identity = identity
        self._requests = requests
        self._on_link = on_link
        self._revoked = revoked
        self._pending = 0
        self._context: tuple[TlsIdentity, ssl.SSLContext] | None = None

    async def connection(self, tcp: trio.SocketStream) -> None:
        """Serve one connection. Nothing that it does reaches the server."""
        if self._pending >= limits.LINKS_PENDING_MAX:
            await trio.aclose_forcefully(tcp)
            return
        try:
            await self._serve(tcp)
        except (P2PDistError, trio.TooSlowError, OSError) as error:
            _log.info("link.refused", reason=str(error) or type(error).__name__)
        except trio.BrokenResourceError as error:
            _log.info("link.handshake_failed", reason=_broken(error))
        except Exception as error:  # noqa: BLE001 - one connection's handler; the server goes on
            _log.error("link.failed", exc_info=error)
        finally:
            await trio.aclose_forcefully(tcp)

    async def _serve(self, tcp: trio.SocketStream) -> None:
        self._pending += 1
        try:
            stream = trio.SSLStream(tcp, self._tls(), server_side=True, https_compatible=True)
            with trio.fail_after(limits.LINK_HANDSHAKE_S):
                await stream.do_handshake()
        finally:
            self._pending -= 1
        shown = stream.getpeercert(binary_form=True)
        remote = parse_certificate(shown) if shown else None
        if remote is not None and self._revoked(remote.node):
            raise TrustError(f"{remote.node} is revoked")
        link = Link(stream, dialler=False, remote=remote, requests=self._requests)
        with _one_error():
            async with trio.open_nursery() as nursery:
                await nursery.start(link.run)
                reason = ""
                try:
                    reason = await self._run(link)
                finally:
                    await link.aclose(reason)
                    nursery.cancel_scope.cancel()

    async def _run(self, link: Link) -> str:
        if link.remote is None:
            with trio.move_on_after(limits.LINK_STRANGER_S):
                await link.wait_ended()
            return "strangers stay only for one request"
        with trio.fail_after(limits.LINK_HANDSHAKE_S):
            if not await link.wait_controlled():
                return ""
        try:
            with _one_error():
                await self._on_link(link)
        except P2PDistError as error:
            _log.warning("link.ended", remote=link.remote.node, reason=str(error))
            return str(error)
        return ""

    def _tls(self) -> ssl.SSLContext:
        identity = self._identity()
        if self._context is None or self._context[0] != identity:
            self._context = (identity, server_context(identity))
        return self._context[1]


@contextmanager
def _one_error() -> Any:
    """Let a single error out of its exception group: a link's nursery has one owner, hence one error."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        if error is group:
            raise
        raise error from error.__cause__


def _problem(error: P2PDistError) -> bytes:
    family = next((name for name, kind in _FAMILIES.items() if isinstance(error, kind)), "unavailable")
    return codec.encode(Problem(family=family, what=error.what[:4_000], hint=error.hint[:4_000]))  # type: ignore[arg-type]  # a key of _FAMILIES


def _broken(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(error) or "the connection broke"
