"""What ldap3 is given instead of its own: a socket that has a limit, and TLS as it is done today."""

from __future__ import annotations

import socket
from typing import Any

import ldap3

from p2pdist import limits


class BoundedSocket:
    """What ldap3 takes for a socket. It reads a whole answer into memory, however long that is.

    Attributes:
        exceeded: Whether more came than was allowed.
    """

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self._all = limits.LDAP_BYTES_MAX
        self._left = limits.LDAP_PAGE_BYTES_MAX
        self.exceeded = False

    def allow(self, count: int) -> None:
        """From now on, *count* bytes may come."""
        self._left = count

    def recv(self, count: int, *flags: int) -> bytes:
        """Read. Raises OSError when too much came."""
        data = self._wrapped.recv(count, *flags)
        self._left -= len(data)
        self._all -= len(data)
        if min(self._left, self._all) < 0:
            self.exceeded = True
            raise OSError("more than the limit came")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


class OurTls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """TLS by a context of ours: ldap3 itself needs what newer versions of Python do not have."""

    def __init__(self, context: Any, host: str) -> None:
        super().__init__()
        self._context = context
        self._host = host

    def wrap_socket(self, connection: ldap3.Connection, do_handshake: bool = False) -> None:
        """Shake hands over a connection that is open; its time limit is the connection's."""
        connection.socket = self._context.wrap_socket(connection.socket, server_hostname=self._host)
