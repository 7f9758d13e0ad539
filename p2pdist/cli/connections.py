"""HTTP/1.1 over TLS to one server, blocking, with what the standard library has.

``httpx``, with the event loops that it imports to have the choice, was half of what a short command cost.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from urllib.parse import urlsplit

_CONNECT_S = 10.0
_WAIT_S = 60.0  # for the next bytes to come or go


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered."""

    status: int
    content_type: str
    content: bytes


class Connections:
    """Connections to a server, each kept for the next request. Threads can share them.

    Args:
        server: ``https://HOST:PORT``.
        context: Whom to trust.
    """

    def __init__(self, server: str, context: ssl.SSLContext) -> None:
        parts = urlsplit(server)
        self._host, self._port = parts.hostname or "", parts.port
        self._context = context
        self._idle: list[HTTPSConnection] = []

    def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            self._idle.pop().close()

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: Iterable[bytes], body_bytes: int
    ) -> Answer:
        """Send a request with the *body_bytes* of *body*, and return the answer, whatever its status.

        Raises:
            OSError: the server cannot be reached, is not who it should be, or lets us wait too long.
            http.client.HTTPException: what it sends is no whole answer in HTTP, or *body* has another length.
            UnicodeError: the host's name cannot be one.
        """
        connection = self._take() or self._open()
        try:
            length = {"content-length": str(body_bytes)} if body_bytes else {}
            connection.request(method, path, headers={**headers, **length})
            sent = _send(connection, body, body_bytes)
            response = connection.getresponse()
            answer = Answer(
                status=response.status,
                content_type=response.getheader("content-type", ""),
                content=response.read(),
            )
        except BaseException:
            connection.close()
            raise
        if sent and not response.will_close:
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def _take(self) -> HTTPSConnection | None:
        """Take a connection that is still open: where there is something to read, it is the end."""
        while self._idle:
            connection = self._idle.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if not poll.poll(0):
                return connection
            connection.close()
        return None

    def _open(self) -> HTTPSConnection:
        connection = HTTPSConnection(self._host, self._port, timeout=_CONNECT_S, context=self._context)
        connection.connect()
        connection.sock.settimeout(_WAIT_S)
        return connection


def _send(connection: HTTPSConnection, body: Iterable[bytes], body_bytes: int) -> bool:
    """Send a body; False if the server takes no more of it, as one that has answered already and says why."""
    left = body_bytes
    for chunk in body:
        left -= len(chunk)
        if left < 0:
            break
        try:
            connection.send(chunk)
        except TimeoutError:
            raise
        except OSError:
            return False
    if left:
        raise HTTPException(f"there was something else to send than {body_bytes} bytes")
    return True
