"""Whoever floods a gateway or the admin server hurts nobody beside, and memory stays bounded."""

from __future__ import annotations

import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import nacl.utils
import pytest
import trio
from fleet_links import link_as
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram
from harness import Node, open_fleet

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.ids import NodeId
from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.link import Link
from p2pdist.net.tls import PROTOCOL, client_context
from p2pdist.node.home import Home
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import Announce, Attached, Presence, Routed, Taken
from p2pdist.wire.paths import SESSION_PATH, PathOpening
from p2pdist.wire.requests import Bundle, BundleRequest, Torrent, TorrentRequest

pytestmark = pytest.mark.slow  # whole fleets as processes

Flood = Callable[[Node, Link, NodeId], Awaitable[None]]

HALF_OPEN = 2_000
STRANGERS = limits.LINK_STRANGERS_MAX + 50  # of each half, through TLS: more than are borne at once
MEMBERS = 50
GROWN_MAX = 100 * limits.MIB
ATTACHED_S = 5.0
FLOOD_S = 2.0


async def test_half_open_connections_by_the_thousand_keep_nobody_from_attaching_or_installing(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        (point,), (neighbour,) = fleet.points, fleet.devices
        member = await fleet.add_device(start=False)
        before = [memory(fleet.server), memory(point.program)]
        async with half_open(point.address, member), half_open(fleet.bundle.addresses[0], member):
            for _ in range(2):
                device = await fleet.add_device()
                await fleet.until(
                    partial(log_book.find, "link.up", who=device.name),
                    f"{device.name} attaches, first to the server",
                    patience_s=ATTACHED_S,
                )
                await fleet.until_linked(device, "point")
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[d for d in fleet.devices if d is not member])
            grown = [memory(fleet.server) - before[0], memory(point.program) - before[1]]
            assert max(grown) < GROWN_MAX
        assert not log_book.find("link.down", who=neighbour.name, kind="point"), "it kept its link"


async def send_envelopes(node: Node, link: Link, server: NodeId) -> None:
    """Envelopes that nobody can open, as fast as receipts allow."""
    under_way = trio.Semaphore(limits.MAILBOX_FLIGHT_ENVELOPES_MAX - 1)

    async def receipts() -> None:
        count = 0
        async for frame in link.frames():
            if isinstance(frame, Taken):
                for _ in range(frame.count - count):
                    under_way.release()
                count = frame.count

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receipts)
        counter = 0
        while True:
            await under_way.acquire()
            counter += 1
            envelope = Envelope(
                sender=node.node,
                recipient=server,
                counter=counter,
                expires=int(time.time()) + 600,
                box=nacl.utils.random(1_000),
            )
            await link.send(Routed(envelope=envelope))


async def send_envelopes_without_waiting(node: Node, link: Link, server: NodeId) -> None:
    """The same, whatever the receipts say: it is cut, and comes again."""
    counter = 0
    while True:
        counter += 1
        envelope = Envelope(
            sender=node.node,
            recipient=server,
            counter=counter,
            expires=int(time.time()) + 600,
            box=nacl.utils.random(1_000),
        )
        await link.send(Routed(envelope=envelope))


async def send_announcements(node: Node, link: Link, server: NodeId) -> None:
    """Announcements of artifacts that nobody has ever heard of, from nodes that nobody has, either."""
    nobody = [str(IdentityKey.generate().node) for _ in range(limits.UNREACHED_MAX)]
    while True:
        unknown = [
            Presence(
                info_hash=secrets.token_hex(32), have=0, pieces=1, complete=False, unreached=list(nobody)
            )
            for _ in range(limits.TORRENTS_ACTIVE_MAX)
        ]
        await link.send(Announce(role="device", port=9, artifacts=unknown))


async def send_claims(node: Node, link: Link, server: NodeId) -> None:
    """Claims to carry whole fleets, by one who carries nobody."""
    stamp = 0
    while True:
        stamp += 1
        nodes = {str(IdentityKey.generate().node): stamp for _ in range(100)}
        await link.send(Attached(carrier=node.node, nodes=nodes))


async def ask(node: Node, link: Link, server: NodeId) -> None:
    """Questions that the point has to pass on."""

    async def one() -> None:
        while True:
            with suppress(P2PDistError):
                await link.request("/torrent", TorrentRequest(info_hash=secrets.token_hex(32)), Torrent)
            with suppress(P2PDistError):
                await link.request("/bundle", BundleRequest(have={}, relay=True), Bundle)

    async with trio.open_nursery() as nursery:
        for _ in range(limits.LINK_QUESTIONS_MAX):
            nursery.start_soon(one)


async def open_streams(node: Node, link: Link, server: NodeId) -> None:
    """Byte streams to whoever may be there."""

    async def one() -> None:
        while True:
            opening = PathOpening(session=secrets.token_hex(16), to=node.node)
            with suppress(P2PDistError):
                async with link.open_stream(SESSION_PATH, opening) as stream:
                    await stream.send_all(bytes(100_000))

    async with trio.open_nursery() as nursery:
        for _ in range(limits.LINK_BYTE_STREAMS_MAX - 1):
            nursery.start_soon(one)


FLOODS: list[Flood] = [
    send_envelopes,
    send_envelopes_without_waiting,
    send_announcements,
    send_claims,
    ask,
    open_streams,
]


async def test_a_device_that_floods_its_gateway_in_every_way_does_not_hurt_its_neighbours(
    tmp_path: Path, log_book: LogBook
) -> None:
    async with open_fleet(tmp_path, log_book, devices=1, form=Processes(log_book)) as fleet:
        (point,), (neighbour,) = fleet.points, fleet.devices
        flooders = [await fleet.add_device(start=False) for _ in FLOODS]
        fleet.devices = [neighbour]
        before = memory(point.program), memory(fleet.server)
        async with trio.open_nursery() as nursery:
            for flood, flooder in zip(FLOODS, flooders, strict=True):
                nursery.start_soon(again_and_again, flood, flooder, point.address, fleet.bundle.server_node)
            await trio.sleep(FLOOD_S)
            release = await fleet.release()
            await fleet.until_reported(release, nodes=[neighbour])
            grown = memory(point.program) - before[0], memory(fleet.server) - before[1]
            nursery.cancel_scope.cancel()
        assert max(grown) < GROWN_MAX
        assert not log_book.find("link.down", who=neighbour.name, kind="point"), "it kept its link"


async def again_and_again(flood: Flood, node: Node, address: str, server: NodeId) -> None:
    """Flood, and come back whenever the link is cut."""
    while True:
        try:
            async with link_as(node, address) as link, trio.open_nursery() as nursery:
                nursery.start_soon(flood, node, link, server)
                await link.wait_ended()
                nursery.cancel_scope.cancel()
        except* P2PDistError:
            await trio.sleep(0.05)


@asynccontextmanager
async def half_open(address: str, member: Node) -> AsyncIterator[None]:
    """Connections that say nothing, half a greeting, all but the end of a handshake, or nothing after it:
    some of strangers without a certificate, some with a member's."""
    host, port = parse_endpoint(address)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.set_alpn_protocols([PROTOCOL])
    with suppress(ssl.SSLWantReadError):
        stranger.wrap_bio(incoming, outgoing).do_handshake()
    greeting = outgoing.read()
    says = [b"", greeting[: len(greeting) // 2], greeting]
    contexts = [stranger] * STRANGERS + [client_context(Home.open(member.home).tls_identity())] * MEMBERS
    streams: list[trio.abc.Stream] = []
    try:
        for number in range(HALF_OPEN // 2):
            with suppress(OSError, trio.BrokenResourceError):  # it may be cut by then
                tcp = await trio.open_tcp_stream(host, port)
                streams.append(tcp)
                if number < len(contexts):
                    await trio.SSLStream(tcp, contexts[number]).do_handshake()
                else:
                    await tcp.send_all(says[number % len(says)])
        yield
    finally:
        for stream in streams:
            with trio.CancelScope(shield=True), suppress(trio.BrokenResourceError):
                await stream.aclose()


def memory(program: object) -> int:
    assert isinstance(program, ProcessProgram)
    return program.memory_bytes
