"""Listening: at one address, or at every address of this machine in both families."""

from __future__ import annotations

import errno
from typing import Final

import trio

from p2pdist.core.listening import listening_hosts
from p2pdist.errors import UsageError
from p2pdist.net.endpoints import format_endpoint

_ANY_PORT_ATTEMPTS: Final = 16  # a port that is free in one family is so in the other nearly always

_NO_FAMILY: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on a TCP port.

    Args:
        host: A name, an address or :data:`~p2pdist.core.listening.EVERYWHERE`; a family that the machine
            lacks is left out there.
        port: The port; 0 takes any free one, the same in both families.

    Raises:
        UsageError: the address cannot be listened on.
    """
    attempts = 1 if port else _ANY_PORT_ATTEMPTS
    while True:
        attempts -= 1
        try:
            return await _open(listening_hosts(host), port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not attempts:
                raise UsageError(
                    f"{format_endpoint(host, port)} cannot be listened on ({error.strerror or error})",
                    hint="choose another address or port, or end what uses it",
                ) from error


async def _open(hosts: tuple[str, ...], port: int) -> list[trio.SocketListener]:
    listeners: list[trio.SocketListener] = []
    try:
        for host in hosts:
            try:
                listeners += await trio.open_tcp_listeners(port, host=host)
            except OSError as error:
                if error.errno not in _NO_FAMILY or (host == hosts[-1] and not listeners):
                    raise
            else:
                port = listeners[0].socket.getsockname()[1]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners
