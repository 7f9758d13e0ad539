"""Envelopes through two gateways in a row, over links that are cut in the middle of everything."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from p2pdist.ids import FleetName, GroupPath, NodeId
from p2pdist.net.established import Link
from p2pdist.net.exchange import Exchange
from p2pdist.net.mailbox import Hop, Mailbox, open_mailbox
from p2pdist.net.memory import open_memory_links
from p2pdist.trust.certificates import FleetAuthority, NodeCertificate, parse_certificate
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Routed, Taken

ENVELOPES = 400


def certificate() -> NodeCertificate:
    authority = FleetAuthority.create(FleetName("acme"), datetime.now(UTC))
    pem = authority.issue(
        IdentityKey.generate().public, group=GroupPath("/"), swarms=(), life_s=3_600, now=datetime.now(UTC)
    )
    return parse_certificate(pem)


class End:
    """A device or the admin server: sends a row of envelopes, keeps those not taken, and takes what comes."""

    def __init__(self, node: NodeId, other: NodeId) -> None:
        self.node, self._other = node, other
        self._exchange: Exchange | None = None
        self._untaken: list[Envelope] = []
        self.sent = 0
        self.came: list[int] = []
        self.changed = trio.Event()

    def send(self) -> None:
        """Send the next envelope, if there is a link."""
        if self._exchange is not None and self.sent < ENVELOPES:
            self.sent += 1
            expires = int(time.time()) + 3_600
            self._exchange.send(
                Envelope(
                    sender=self.node,
                    recipient=self._other,
                    counter=self.sent,
                    expires=expires,
                    box=bytes(400),
                )
            )

    @contextmanager
    def on(self, neighbour: NodeId, link: Link) -> Iterator[End]:
        exchange = self._exchange = Exchange(link)
        for envelope in self._untaken:
            exchange.send(envelope)
        try:
            yield self
        finally:
            self._untaken = exchange.untaken()
            self._exchange = None

    async def receive(self, envelope: Envelope) -> None:
        assert self._exchange is not None
        number = self._exchange.arrived()
        self.came.append(envelope.counter)
        self._exchange.settle(number)
        self.changed.set()

    def taken(self, receipt: Taken) -> None:
        assert self._exchange is not None
        self._exchange.taken(receipt)


class Gateway:
    """A gateway between the two."""

    def __init__(self, mailbox: Mailbox, recipients: tuple[NodeId, NodeId]) -> None:
        self._mailbox = mailbox
        self._recipients = recipients

    @contextmanager
    def on(self, neighbour: NodeId, link: Link) -> Iterator[Hop]:
        with self._mailbox.hop(neighbour, link) as hop:
            for recipient in self._recipients:
                self._mailbox.look(recipient)
            yield hop


async def serve(link: Link, end: End | Hop) -> None:
    """Handle what comes over a link until it ends."""
    async for frame in link.frames():
        if isinstance(frame, Routed):
            await end.receive(frame.envelope)
        elif isinstance(frame, Taken):
            end.taken(frame)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_all_envelopes_arrive_in_both_directions_however_often_the_links_are_cut(
    tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    cutting = True
    shown = certificate()
    device_node, g_node, h_node, server_node = (NodeId(letter * 32) for letter in "dghs")
    device, server = End(device_node, server_node), End(server_node, device_node)

    async def keep_linked(
        lower: End | Gateway, lower_node: NodeId, upper: End | Gateway, upper_node: NodeId
    ) -> None:
        while True:
            async with open_memory_links(dialler=shown, acceptor=shown) as (ours, theirs):
                with ExitStack() as stack:
                    low, high = (
                        stack.enter_context(lower.on(upper_node, ours)),
                        stack.enter_context(upper.on(lower_node, theirs)),
                    )
                    with trio.move_on_after(rng.uniform(0.0, 0.15)) if cutting else trio.CancelScope():
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(serve, ours, low)
                            nursery.start_soon(serve, theirs, high)
                    ours.abort("the line was cut")
                    theirs.abort("the line was cut")

    def way(below: NodeId, above: NodeId) -> Callable[[NodeId], NodeId]:
        return lambda node: above if node == server_node else below

    async with (
        open_mailbox(tmp_path / "g.db", way=way(device_node, h_node)) as g,
        open_mailbox(tmp_path / "h.db", way=way(g_node, server_node)) as h,
        trio.open_nursery() as nursery,
    ):
        gateways = [Gateway(each, (device_node, server_node)) for each in (g, h)]
        for mailbox in (g, h):
            nursery.start_soon(mailbox.run)
        nursery.start_soon(keep_linked, device, device_node, gateways[0], g_node)
        nursery.start_soon(keep_linked, gateways[0], g_node, gateways[1], h_node)
        nursery.start_soon(keep_linked, gateways[1], h_node, server, server_node)
        while device.sent < ENVELOPES or server.sent < ENVELOPES:
            device.send()
            server.send()
            await trio.sleep(rng.random() * 0.01)
        cutting = False
        expected = set(range(1, ENVELOPES + 1))
        with trio.fail_after(20):
            while set(device.came) != expected or set(server.came) != expected:
                device.changed = server.changed = trio.Event()
                await device.changed.wait()
        for end in (device, server):
            first = list(dict.fromkeys(end.came))
            assert first == sorted(first), "a later one never comes before an earlier one has come once"
        nursery.cancel_scope.cancel()
