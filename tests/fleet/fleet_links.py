"""Bare links and envelopes in a node's name, for tests that say what no program says."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager

import trio
from harness import Node

from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import Link, open_link
from p2pdist.node.home import Home
from p2pdist.node.mail import Mail
from p2pdist.wire.frames import Routed, Taken
from p2pdist.wire.messages import Refusal, Report


def link_as(node: Node, address: str) -> AbstractAsyncContextManager[Link]:
    """A link with a node's certificate. The node's own program should not run."""
    host, port = parse_endpoint(address)
    identity = Home.open(node.home).tls_identity()
    return open_link(host, port, identity=identity, expect=None, local_host=node.host)


async def sealed_report(node: Node) -> Routed:
    """A report of a node to the admin server, in its envelope."""
    now = int(time.time())
    report = Report(
        id="r1", deployment="d1", target="stable/app/1.0/app.bin", stage="failed", reason="no", finished=now
    )
    return Routed(envelope=await Mail(Home.open(node.home)).seal(report, now=now))


async def say(node: Node, link: Link, names: list[str]) -> None:
    """Send a refusal with each of these ids, and wait until the neighbour answers for all of them."""
    mail, now = Mail(Home.open(node.home)), int(time.time())
    for name in names:
        refusal = Refusal(id=name, kind="stranger", subject="x", reason="y", at=now)
        await link.send(Routed(envelope=await mail.seal(refusal, now=now)))
    with trio.fail_after(20):
        async for frame in link.frames():
            if isinstance(frame, Taken) and frame.count == len(names):
                assert frame.refused == []
                return
