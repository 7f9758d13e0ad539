"""A session with a device from the operator's side: announced, given a path, and kept supplied with paths.

It begins relayed, through the admin server and whoever carries the device; meanwhile it may look for
a direct or punched one.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from p2pdist import limits
from p2pdist.cli.client import Client, problem, segment
from p2pdist.cli.profile import Target
from p2pdist.core.paths import is_loopback
from p2pdist.errors import P2PDistError, TrustError, Unavailable, sole_error
from p2pdist.ids import FleetName, GroupPath, NodeId
from p2pdist.net.conversations import Conversation, initiate
from p2pdist.net.punching import Punching
from p2pdist.net.rtc.addresses import host_addresses
from p2pdist.net.rtc.island import open_island
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire import api as wire
from p2pdist.wire.services import Service

NO_PATH: Final = "none"
"""What is shown as the path of a session that has lost all of them."""

_AGAIN_FIRST_S: Final = 0.5
_AGAIN_MAX_S: Final = 5.0
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 1.0
_IDENTITY_LIFE_S: Final = 24 * 3600
Connection = trio.SSLStream[trio.SocketStream]


class WebSocketPath(trio.abc.Stream):
    """A WebSocket as a path of a session: its binary messages are the bytes of a stream."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._unread = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data* as one message."""
        try:
            await self._socket.send_message(bytes(data))
        except ConnectionClosed as error:
            raise trio.BrokenResourceError("the WebSocket was closed") from error

    async def wait_send_all_might_not_block(self) -> None:
        """A WebSocket cannot tell."""
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes; empty once the WebSocket is closed."""
        try:
            message = self._unread or await self._socket.get_message()
        except ConnectionClosed:
            return b""
        data = message.encode() if isinstance(message, str) else message
        data, self._unread = data[:max_bytes], data[len(data[:max_bytes]) :]
        return data

    async def aclose(self) -> None:
        """Close the WebSocket."""
        await self._socket.aclose()


class Visit(NamedTuple):
    """A session with a device, and what was asked for in it."""

    info: wire.SessionInfo
    stream: SessionStream
    conversation: Conversation
    punching: Punching


class Visitor:
    """Opens sessions with devices, through one admin server.

    Every session has a key and an authority of its own: nothing else can be done with them.

    Args:
        target: Which server, as whom.
        hosts: This machine's addresses at which devices may reach it; None for all.
    """

    def __init__(self, target: Target, *, hosts: Sequence[str] | None = None) -> None:
        self._target = target
        self._hosts = hosts

    @asynccontextmanager
    async def visit(
        self, device: str, service: Service, *, better_after_s: float | None = None
    ) -> AsyncIterator[Visit]:
        """Ask a device for a service; the block has it, and the session ends with the block.

        Args:
            device: Its name, its id, or the beginning of its id.
            service: What is asked for, and written into the audit log.
            better_after_s: When to look for a better path than the relayed one; None for never, as for a
                short answer. From then on somebody has to receive all the time, or the device is not heard.

        Raises:
            UsageError: there is no such device.
            Unavailable: it cannot be reached, or refuses.
            TrustError: somebody else answers.
        """
        key = IdentityKey.generate()
        own = FleetAuthority.create(FleetName("session"), datetime.now(UTC))
        identity = TlsIdentity(
            certificate_pem=own.issue(
                key.public,
                group=GroupPath("/"),
                swarms=[],
                life_s=_IDENTITY_LIFE_S,
                now=datetime.now(UTC),
            ),
            key_pem=key.private_pem(),
            ca_pem=self._target.ca_pem.encode(),
        )
        asked = wire.NewSession(authority=own.certificate_pem.decode(), initiator=key.node, service=service)
        info, dialled = await self._announce(device, asked)
        stream: SessionStream | None = None
        relaying = trio.CancelScope()
        try:
            # both outlive the session, which has last words
            async with open_island() as island, trio.open_nursery() as nursery:
                try:
                    async with open_session() as stream:
                        await nursery.start(self._keep_relayed, stream, info.session, dialled, relaying)
                        punching = Punching(
                            stream,
                            island,
                            leads=True,
                            stun_servers=lambda: conversation.stun,
                            hosts=self._own_hosts(),
                            delay_s=better_after_s or 0.0,
                        )
                        async with (
                            initiate(
                                stream,
                                service,
                                identity=identity,
                                expect=NodeId(info.node),
                                on_signal=punching.take,
                            ) as conversation,
                            punching.beside(conversation) if better_after_s is not None else nullcontext(),
                        ):
                            yield Visit(info, stream, conversation, punching)
                finally:
                    relaying.cancel()
        except BaseExceptionGroup as group:
            ended, other = group.split(trio.BrokenResourceError)
            if other is None and stream is not None and stream.failure is not None:
                raise stream.failure from ended  # instead of what each task noticed of it
            raise sole_error(group) from None

    def _own_hosts(self) -> Sequence[str] | None:
        """Return the addresses to offer; this machine's inside ones too if the server is on it."""
        if self._hosts is not None:
            return self._hosts
        server = urlsplit(self._target.server).hostname or ""
        return [*host_addresses(), "127.0.0.1"] if _is_this_machine(server) else None

    async def _announce(
        self, device: str, asked: wire.NewSession
    ) -> tuple[wire.SessionInfo, Connection | None]:
        """Announce the session, and dial meanwhile for its path: two round trips less until it stands."""
        dialled: Connection | None = None

        async def dial_ahead() -> None:
            nonlocal dialled
            with suppress(P2PDistError):  # what is wrong with the server is said by whoever needs it
                dialled = await _dial(self._target)

        async with AsyncExitStack() as on_error:
            on_error.push_async_callback(lambda: _discard(dialled))
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(dial_ahead)
                    info = await trio.to_thread.run_sync(self._ask, device, asked)
            except BaseExceptionGroup as group:
                raise sole_error(group) from None
            on_error.pop_all()
        return info, dialled

    def _ask(self, device: str, asked: wire.NewSession) -> wire.SessionInfo:
        with Client(self._target) as client:
            return client.post(f"/devices/{segment(device)}/sessions", wire.SessionInfo, asked)

    async def _keep_relayed(
        self,
        stream: SessionStream,
        session: str,
        dialled: Connection | None,
        scope: trio.CancelScope,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Keep a relayed path open until *scope* is cancelled; the first has to work at once, over *dialled*.

        Once it stands it is kept while the session's owner is being cancelled: the last words go over it. A
        device that has started anew knows nothing of the session, and says so: then it is over.
        """
        with scope:
            await self._relay(stream, session, dialled, scope, task_status)

    async def _relay(
        self,
        stream: SessionStream,
        session: str,
        dialled: Connection | None,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[None],
    ) -> None:
        begun, pause = False, _AGAIN_FIRST_S
        while True:
            try:
                first, dialled = dialled, None
                async with open_path(self._target, session, dialled=first) as path:
                    over = stream.attach(path, "relayed")
                    if not begun:
                        task_status.started()
                        scope.shield = True
                    begun, pause = True, _AGAIN_FIRST_S
                    await over.wait()
            except P2PDistError as error:
                if not begun or (isinstance(error, TrustError) and stream.path is None):
                    raise
            await trio.sleep(pause)
            pause = min(2 * pause, _AGAIN_MAX_S)


@asynccontextmanager
async def open_path(
    target: Target, session: str, *, dialled: Connection | None = None
) -> AsyncIterator[WebSocketPath]:
    """Open a relayed path of a session, which the block has; it is closed with the block.

    Args:
        target: Which server, as whom.
        session: Which session.
        dialled: A connection to the server that stands already, and belongs to the path from now on.

    Raises:
        UsageError: it is not the session of whoever has the token, or is over.
        Unavailable: the server or the device cannot be reached.
        TrustError: the device does not expect the session, or the server is another one.
    """
    stream = dialled or await _dial(target)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(_CONNECT_S):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    urlsplit(target.server).hostname or "",
                    f"/api/v1/sessions/{session}/path",
                    extra_headers=[(b"authorization", f"Bearer {target.token}".encode())],
                    max_message_size=limits.MIB,
                    receive_buffer_size=64 * limits.KIB,
                )
            yield WebSocketPath(socket)
            with trio.move_on_after(_CLOSE_S):
                await socket.aclose()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        sole = sole_error(group)
        if isinstance(sole, ConnectionRejected):
            content_type = dict(sole.headers or ()).get(b"content-type", b"").decode("ascii", "replace")
            raise problem(sole.status_code, content_type, sole.body or b"") from None
        if isinstance(sole, HandshakeError | OSError | trio.TooSlowError | trio.BrokenResourceError):
            raise _unreachable(target, sole) from sole
        raise sole from None
    finally:
        await trio.aclose_forcefully(stream)  # trio-websocket leaves it open when it is turned away


async def _dial(target: Target) -> Connection:
    """Connect to the API, up to the TLS handshake. Raises as :func:`open_path`."""
    parts = urlsplit(target.server)
    host, port = parts.hostname or "", parts.port or 443
    context = ssl.create_default_context(cadata=target.ca_pem)
    try:
        with trio.fail_after(_CONNECT_S):
            tcp = await trio.open_tcp_stream(host, port)
            stream = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(tcp)
                raise
            return stream
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        raise _unreachable(target, error) from error


async def _discard(dialled: Connection | None) -> None:
    if dialled is not None:
        await trio.aclose_forcefully(dialled)


def _is_this_machine(server: str) -> bool:
    try:
        return is_loopback(server)
    except ValueError:
        return server == "localhost"


def _unreachable(target: Target, error: BaseException) -> P2PDistError:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return TrustError(
            f"{target.server} does not show a certificate of this fleet ({cause.verify_message})",
            hint="check the address, and the certificate given to p2pdist login",
        )
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return Unavailable(f"{target.server} cannot be reached ({text})", hint="check the network")
