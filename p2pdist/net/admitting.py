"""Admitting: who has dialled, and waits until we begin the handshake.

A handshake takes us milliseconds, and whoever waits too long for it gives up and dials again. So when
everybody comes back at once, the newest goes first: it has the most patience left. Those that it overtakes
may have given up by the time that they have their turn, which is looked at before anything is begun for
them. Where too many wait, the one that has waited longest is turned away, before it has cost anything: it
comes again, later each time.
"""

from __future__ import annotations

import errno
import socket
from collections import deque
from contextlib import closing
from typing import Final, NoReturn

import trio

from p2pdist import limits
from p2pdist.logs import get_logger
from p2pdist.net.pulse import Pulse

_log = get_logger()

_TAKEN_AT_ONCE: Final = 64  # from the kernel, until everything else has its turn: a millisecond
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_AGAIN_S: Final = 0.1  # after one of them
_ESTABLISHED: Final = 1  # TCP_ESTABLISHED (linux/tcp_states.h), the first byte of TCP_INFO


class Row:
    """Connections whose handshake has not begun. They belong to it until they are taken."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, socket.socket]] = deque()  # since when; the newest last
        self._news = Pulse()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, connection: socket.socket) -> None:
        """Somebody has dialled. The first of the row are turned away when they are too many, or too late."""
        now = trio.current_time()
        self._waiting.append((now, connection))
        while len(self._waiting) > limits.LINKS_WAITING_MAX or self._waiting[0][0] <= now - limits.LINK_ROW_S:
            self._waiting.popleft()[1].close()
        self._news.fire()

    def take(self) -> socket.socket | None:
        """Return the newest connection whose other side is still there; the caller closes it."""
        while self._waiting:
            _, newest = self._waiting.pop()
            if _stands(newest):
                return newest
            newest.close()
        return None

    async def wait(self) -> None:
        """Wait until somebody waits. Always a checkpoint."""
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            await self._news.wait()

    def close(self) -> None:
        """Close the connections of all who wait."""
        while self._waiting:
            self._waiting.pop()[1].close()


async def accept_into(row: Row, listener: trio.SocketListener) -> NoReturn:
    """Put whoever dials into *row* until cancelled, as many at once as have dialled. Closes the listener."""
    with closing(socket.socket(fileno=listener.socket.detach())) as listening:
        listening.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(listening)
            try:
                for _ in range(_TAKEN_AT_ONCE):
                    row.add(listening.accept()[0])
            except BlockingIOError:
                continue
            except OSError as error:  # of one connection, or there is no room: it ends nobody else
                if error.errno in _FULL:
                    _log.error("link.not_accepted", reason=error.strerror)
                    await trio.sleep(_AGAIN_S)


def _stands(connection: socket.socket) -> bool:
    """Whether the other side has neither closed the connection nor lost it."""
    try:
        return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED
    except OSError:
        return False
