"""Telling systemd how the service is doing (``Type=notify``, sd_notify(3))."""

from __future__ import annotations

import socket
from collections.abc import Mapping


def notify(environ: Mapping[str, str], *lines: str) -> bool:
    """Send *lines* such as ``READY=1`` to the supervisor, if there is one.

    Returns:
        Whether there was one that took them. Never raises: no service fails for want of a listener.
    """
    path = environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True
