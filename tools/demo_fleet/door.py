"""A door into the operator's network: a Unix socket, and what comes in there goes on to one TCP address.

Run as a program, on the operator's machine: ``door.py SOCKET HOST PORT``. The demonstration itself asks
the admin server's API through it.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import trio

from p2pdist.net.splicing import splice


async def open_door(path: Path, host: str, port: int) -> None:
    """Pass connections on until cancelled."""

    async def pass_on(inside: trio.SocketStream) -> None:
        try:
            async with await trio.open_tcp_stream(host, port) as outside:
                await splice(inside, outside)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the asker sees its connection end

    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        await listening.bind(str(path))
        listening.listen()
        print("door.ready", flush=True)
        await trio.serve_listeners(pass_on, [trio.SocketListener(listening)])


if __name__ == "__main__":
    trio.run(open_door, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
