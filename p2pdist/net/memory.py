"""Two ends of one link without a network, for the tests of whoever uses links.

They are real links, with HTTP/2, flow control and keepalive between them; only TCP and TLS are left
out, so the certificates are taken at their word.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from p2pdist.net.answering import RequestTable
from p2pdist.net.established import Link
from p2pdist.net.streaming import StreamTable
from p2pdist.trust.certificates import NodeCertificate

_MemoryStream = trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]


@asynccontextmanager
async def open_memory_links(
    *,
    dialler: NodeCertificate,
    acceptor: NodeCertificate,
    requests: RequestTable | None = None,
    streams: StreamTable | None = None,
    dialler_requests: RequestTable | None = None,
    dialler_streams: StreamTable | None = None,
    dialler_host: str = "192.0.2.1",
    acceptor_host: str = "192.0.2.2",
) -> AsyncIterator[tuple[Link, Link]]:
    """Open a link between two nodes of a test; both ends close with the block.

    Args:
        dialler: Who dials.
        acceptor: Who accepts.
        requests: What the acceptor answers.
        streams: What byte streams it serves.
        dialler_requests: What the dialler answers.
        dialler_streams: What byte streams it serves.
        dialler_host: The dialler's address.
        acceptor_host: The acceptor's address.

    Returns:
        The dialler's end and the acceptor's end, established.
    """
    left, right = trio.testing.memory_stream_pair()
    ours = Link(
        left,
        dialler=True,
        remote=acceptor,
        remote_host=acceptor_host,
        local_host=dialler_host,
        requests=dialler_requests or {},
        streams=dialler_streams or {},
        member=True,
        sever=lambda: _sever(left),
    )
    theirs = Link(
        right,
        dialler=False,
        remote=dialler,
        remote_host=dialler_host,
        local_host=acceptor_host,
        requests=requests or {},
        streams=streams or {},
        member=True,
        sever=lambda: _sever(right),
    )
    async with theirs.running(), ours.running():
        await ours.wait_established()
        await theirs.wait_established()
        yield ours, theirs


def _sever(stream: _MemoryStream) -> None:
    stream.send_stream.close()
    stream.receive_stream.close()
