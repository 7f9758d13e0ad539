"""HTTPS for the API: anycorn on trio, with a certificate of the fleet's CA that is renewed in place."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from anycorn import Config, serve
from starlette.applications import Starlette

from p2pdist.net.listening import open_listeners
from p2pdist.net.tls import TlsIdentity, server_context

_IDLE_S = 75.0


class _TlsConfig(Config):
    """anycorn's configuration with a TLS context of our own: keys never lie in files for it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self.ssl_context = context

    @property
    def ssl_enabled(self) -> bool:
        return True

    def create_ssl_context(self) -> ssl.SSLContext:
        return self.ssl_context


class _Contexts:
    """The TLS context for each connection: a new one when the certificate has been renewed."""

    def __init__(self, identity: Callable[[], TlsIdentity]) -> None:
        self._identity = identity
        self._shown = identity()
        self._context = _context(self._shown)

    def present(self) -> ssl.SSLContext:
        return self._context

    def choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called by ``ssl`` for each connection, once its first message is there."""
        identity = self._identity()
        if identity != self._shown:
            self._shown, self._context = identity, _context(identity)
        connection.context = self._context


def _context(identity: TlsIdentity) -> ssl.SSLContext:
    context = server_context(identity)
    context.verify_mode = ssl.CERT_NONE  # operators show tokens, not certificates
    context.set_alpn_protocols(["http/1.1"])
    return context


async def serve_api(
    app: Starlette,
    *,
    host: str,
    port: int,
    identity: Callable[[], TlsIdentity],
    task_status: Any = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *app* until cancelled.

    Args:
        app: The application.
        host: The address to listen on, or :data:`~p2pdist.core.listening.EVERYWHERE`.
        port: The TCP port; 0 takes any.
        identity: Returns what the server shows; asked again now and then, for renewals.
        task_status: Reports the bound ``(host, port)`` once connections are accepted.

    Raises:
        UsageError: the address cannot be listened on.
    """
    contexts = _Contexts(identity)
    config = _TlsConfig(contexts.present())
    config.ssl_context.sni_callback = contexts.choose
    listeners = await open_listeners(host, port)
    bound_host, bound_port = listeners[0].socket.getsockname()[:2]
    config.bind = [f"fd://{listener.socket.detach()}" for listener in listeners]
    config.errorlog = None
    config.include_server_header = False
    config.keep_alive_timeout = _IDLE_S
    config.keep_alive_max_requests = 100_000
    config.graceful_timeout = 1.0
    config.shutdown_timeout = 5.0

    async with trio.open_nursery() as nursery:
        # anycorn runs any ASGI application; its type names frameworks only
        await nursery.start(_serve, app, config)
        task_status.started((bound_host, bound_port))


def _without_lifespan(app: Starlette) -> Callable[..., Awaitable[None]]:
    """Answer the lifespan protocol here: Starlette turns its cancellation into a failure of the server."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while (await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return answer


async def _serve(app: Starlette, config: Config, *, task_status: Any) -> None:
    # anycorn's type names only its own event types; Starlette is an ASGI application like any other
    await serve(_without_lifespan(app), config, shutdown_trigger=trio.sleep_forever, task_status=task_status)
