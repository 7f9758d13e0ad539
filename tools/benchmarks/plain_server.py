"""A bare TLS server on trio's own streams, for comparison: it holds connections, and sends bytes to all."""

from __future__ import annotations

import ssl
import sys
from pathlib import Path

import trio

_PAYLOAD = bytes(91)


async def serve(folder: Path, host: str, port: int) -> None:
    """Hold every connection that shows a certificate; each line of standard input notifies all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "peer.pem", folder / "peer.key")
    streams: dict[trio.SSLStream[trio.SocketStream], None] = {}

    async def hold(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, context, server_side=True)
        try:
            await stream.do_handshake()
            streams[stream] = None
            await stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            streams.pop(stream, None)
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: trio.serve_tcp(hold, port, host=host, task_status=task_status)
        )
        while await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            for stream in list(streams):
                await stream.send_all(_PAYLOAD)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
