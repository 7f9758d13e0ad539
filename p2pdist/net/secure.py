"""A TLS connection as a trio stream.

It drives ``ssl.SSLSocket`` without blocking, because OpenSSL then needs no buffers while a connection is
idle: 30 KB each, however much has passed, where a stream over memory buffers has 37 KB at first and
keeps the largest amount that it ever sent on top. OpenSSL also sends its alerts itself, so the other
side learns why a handshake failed.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import trio

from p2pdist import limits

T = TypeVar("T")

_READ_BYTES: Final = 16 * limits.KIB  # one TLS record, which is all that OpenSSL returns at once
_TCP_INFO: Final = struct.Struct("=120xQ")  # of ``struct tcp_info``: ``tcpi_bytes_acked``
_INT: Final = struct.Struct("=i")


class _Shared(threading.local):
    """Where all connections of one thread read to, one after the other.

    A buffer for each read would be cut to what has come, and leave holes in the heap of a process with
    thousands of connections.
    """

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_READ_BYTES))


_shared = _Shared()


class SecureStream(trio.abc.Stream):
    """A TLS connection over a connected TCP socket. One task receives, one sends.

    Args:
        tcp: The connection; it belongs to this stream from now on.
        context: What to show and what to demand.
        server_side: Whether the other side dialled.

    Raises:
        OSError: the connection has broken already.

    Attributes:
        waiting_since: Since when (trio's clock) the other side has been waited for, to send or to
            receive; None while nothing is awaited.
    """

    __slots__ = ("_rest", "_socket", "waiting_since")

    def __init__(self, tcp: trio.SocketStream, context: ssl.SSLContext, *, server_side: bool) -> None:
        plain = socket.socket(fileno=tcp.socket.detach())
        plain.setblocking(False)
        self._socket = context.wrap_socket(plain, server_side=server_side, do_handshake_on_connect=False)
        self._rest = bytearray()
        self.waiting_since: float | None = None

    async def do_handshake(self, turns: trio.Semaphore | None = None) -> None:
        """Carry out the handshake. The caller sets the deadline.

        Args:
            turns: Shared by many handshakes: so many take a step between two turns of everything else.

        Raises:
            BrokenResourceError: it failed; its cause is an ``ssl.SSLError`` or another OSError.
        """
        if turns is None:
            await self._attempt(self._socket.do_handshake)
            return None
        while True:
            async with turns:
                self._check_open()
                try:
                    return self._socket.do_handshake()
                except ssl.SSLWantReadError:
                    ready = trio.lowlevel.wait_readable
                except ssl.SSLWantWriteError:
                    ready = trio.lowlevel.wait_writable
                except OSError as error:
                    raise _broken(error) from error
            await self._wait(ready)

    def certificate(self) -> bytes | None:
        """Return the other side's verified certificate (DER), or None if it showed none."""
        return self._socket.getpeercert(binary_form=True)

    def protocol(self) -> str | None:
        """Return what was agreed on by ALPN (RFC 7301)."""
        return self._socket.selected_alpn_protocol()

    def addresses(self) -> tuple[str, str]:
        """Return our and the other side's IP address. Raises OSError when the connection is gone."""
        return _host(self._socket.getsockname()), _host(self._socket.getpeername())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived; empty at the end of the connection. Cancellation loses nothing."""
        self._check_open()
        if self._socket.pending():
            await trio.lowlevel.checkpoint()
        else:  # a look before the wait would find nothing, nearly always
            await self._wait(trio.lowlevel.wait_readable)
        while True:
            try:
                return self._read(max_bytes or _READ_BYTES)
            except ssl.SSLWantReadError:
                await self._wait(trio.lowlevel.wait_readable)
            except ssl.SSLWantWriteError:
                await self._wait(trio.lowlevel.wait_writable)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send *data*. What cancellation leaves unsent goes out before the next *data*."""
        self._rest += data
        while self._rest:
            del self._rest[: await self._attempt(self._socket.send, self._rest)]

    def send_nowait(self, data: bytes) -> bool:
        """Send *data* as far as it can be sent at once; the rest goes out before the next *data*.

        Not to be called while a task is in :meth:`send_all`.

        Returns:
            Whether all of it was sent.

        Raises:
            BrokenResourceError, ClosedResourceError: the connection is gone.
        """
        self._check_open()
        self._rest += data
        try:
            while self._rest:
                del self._rest[: self._socket.send(self._rest)]
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            raise _broken(error) from error
        return True

    def progress(self) -> tuple[int, int]:
        """Return how many bytes the other side's kernel has taken, and how many are on their way to it."""
        if self._socket.fileno() < 0:
            return 0, 0
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        (taken,) = _TCP_INFO.unpack(info)
        (queued,) = _INT.unpack(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(_INT.size)))
        return taken, queued + len(self._rest)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room to send."""
        await trio.lowlevel.wait_writable(self._socket)

    def sever(self) -> None:
        """Close the connection at once, without a word. Whoever uses it gets ClosedResourceError."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """Say that nothing follows, if that can be said at once, and close the connection."""
        try:
            if self._socket.fileno() >= 0:
                self._socket.unwrap()
        except (OSError, ValueError):
            pass  # it wants an answer that we do not wait for, or is broken anyway
        finally:
            self.sever()
        await trio.lowlevel.checkpoint()

    async def _attempt(self, operation: Callable[..., T], *arguments: Any) -> T:
        """Try until the socket is ready for it. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check_open()
            try:
                return operation(*arguments)
            except ssl.SSLWantReadError:
                await self._wait(trio.lowlevel.wait_readable)
            except ssl.SSLWantWriteError:
                await self._wait(trio.lowlevel.wait_writable)
            except OSError as error:
                raise _broken(error) from error

    def _read(self, max_bytes: int) -> bytes:
        self._check_open()
        buffer = _shared.buffer
        try:
            count = self._socket.recv_into(buffer[:max_bytes])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except OSError as error:
            raise _broken(error) from error
        return bytes(buffer[:count])

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this connection was closed")

    async def _wait(self, until_ready: Callable[[Any], Awaitable[None]]) -> None:
        self.waiting_since = trio.current_time()
        await until_ready(self._socket)
        self.waiting_since = None


def _broken(error: OSError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(error.strerror or str(error))


def _host(address: Any) -> str:
    host = str(address[0])
    return host.removeprefix("::ffff:") if "." in host else host
