"""A socket that stops when more comes than was allowed."""

from __future__ import annotations

import socket
from typing import Any

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
