"""Questions to everybody on the node's own segments, over IPv4 and IPv6."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address

import ifaddr
import trio

from p2pdist import limits
from p2pdist.duties.discovery.pace import Pace
from p2pdist.wire.discovery import canonical_address

_REPEAT_S = 1.0  # RFC 6762, section 5.2: a question is repeated after a second at the earliest


@dataclass(frozen=True, slots=True, kw_only=True)
class Everybody:
    """Where a protocol listens: its groups and its port."""

    ipv4: str
    ipv6: str
    port: int
    hops: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One datagram, and the address that it came from."""

    data: bytes
    source: str


@trio.as_safe_channel
async def ask(
    everybody: Everybody, questions: Sequence[bytes], *, answer_s: float = limits.DISCOVERY_ANSWER_S
) -> AsyncGenerator[Answer, None]:
    """Send *questions* to everybody on every segment, twice, and yield each answer once.

    Ends *answer_s* seconds after the last question, or after ``DISCOVERY_ANSWERS_MAX`` answers. A segment
    that cannot be asked (no multicast, no address) is passed over.
    """
    with ExitStack() as stack:
        sockets = [(stack.enter_context(made), group) for made, group in _sockets(everybody)]
        async with trio.open_nursery() as nursery:
            send, answers = trio.open_memory_channel[Answer](0)
            for opened, _ in sockets:
                nursery.start_soon(_receive, opened, send.clone())
            nursery.start_soon(_ask, sockets, questions, send, answer_s)
            seen: set[Answer] = set()
            async for answer in answers:
                if answer not in seen:
                    seen.add(answer)
                    yield answer
                if len(seen) >= limits.DISCOVERY_ANSWERS_MAX:
                    break
            nursery.cancel_scope.cancel()


async def _ask(
    sockets: Sequence[tuple[trio.socket.SocketType, tuple[str, int]]],
    questions: Sequence[bytes],
    send: trio.MemorySendChannel[Answer],
    answer_s: float,
) -> None:
    pace = Pace(limits.SEGMENT_PER_S)
    async with send:
        for wait_s in (_REPEAT_S, answer_s):
            for question in questions:
                await pace.turn()
                for opened, group in sockets:
                    try:
                        await opened.sendto(question, group)
                    except OSError:
                        continue  # the interface went down, or routes to nowhere
            await trio.sleep(wait_s)
    for opened, _ in sockets:
        opened.close()  # which ends those who read


async def _receive(opened: trio.socket.SocketType, send: trio.MemorySendChannel[Answer]) -> None:
    async with send:
        while True:
            try:
                data, address = await opened.recvfrom(limits.DISCOVERY_ANSWER_BYTES_MAX)
            except trio.ClosedResourceError:
                return
            except OSError:
                continue  # somebody's refusal
            if source := canonical_address(address[0]):
                await send.send(Answer(data, source))


def _sockets(everybody: Everybody) -> list[tuple[trio.socket.SocketType, tuple[str, int]]]:
    made = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            known = ip_address(address)
            if known.is_loopback or (known.version == 6 and not known.is_link_local):
                continue
            try:
                if known.version == 4:
                    made.append((_ipv4(address, everybody.hops), (everybody.ipv4, everybody.port)))
                elif adapter.index is not None:
                    made.append((_ipv6(adapter.index, everybody.hops), (everybody.ipv6, everybody.port)))
            except OSError:
                continue  # no multicast there
    return made


def _ipv4(address: str, hops: int) -> trio.socket.SocketType:
    opened = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    return opened


def _ipv6(index: int, hops: int) -> trio.socket.SocketType:
    opened = trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
    return opened
