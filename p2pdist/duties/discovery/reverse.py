"""The names that the resolver has for addresses (RFC 1035, section 3.5; RFC 3596, section 2.5)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
import trio

from p2pdist import limits
from p2pdist.duties.discovery.pace import Pace
from p2pdist.errors import Unavailable
from p2pdist.wire.discovery import Sighting

Address = IPv4Address | IPv6Address


@trio.as_safe_channel
async def poll(
    addresses: Sequence[Address], *, per_s: float, servers: Sequence[str] = (), port: int = 53
) -> AsyncGenerator[Sighting, None]:
    """Ask for the name of each address, and yield those that have one.

    Args:
        addresses: In the order in which they are asked.
        per_s: How many are asked for in a second.
        servers: The resolvers; by default the machine's own.
        port: Theirs.

    Raises:
        Unavailable: the machine has no resolver.
    """
    resolver = _resolver(servers, port)
    pace = Pace(per_s)
    room = trio.Semaphore(limits.REVERSE_AT_ONCE)
    send, found = trio.open_memory_channel[Sighting](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_all, resolver, addresses, pace, room, send)
        async for sighting in found:
            yield sighting


def names_in(targets: Iterable[dns.name.Name]) -> list[str]:
    """Return those of *targets* that can be the name of a host; what is not plain text is left out."""
    found = []
    for target in targets:
        text = target.to_text(omit_final_dot=True).lower()
        if len(target.labels) > 1 and text.isascii() and text.isprintable() and "\\" not in text:
            found.append(text)
    return list(dict.fromkeys(found))[: limits.SIGHTING_NAMES_MAX]


def _resolver(servers: Sequence[str], port: int) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not servers)
    except dns.resolver.NoResolverConfiguration as error:
        raise Unavailable(f"this machine has no resolver for names ({error})") from None
    if servers:
        resolver.nameservers = list(servers)
    resolver.port = port
    resolver.lifetime = limits.REVERSE_ANSWER_S
    return resolver


async def _all(
    resolver: dns.asyncresolver.Resolver,
    addresses: Sequence[Address],
    pace: Pace,
    room: trio.Semaphore,
    send: trio.MemorySendChannel[Sighting],
) -> None:
    async with send, trio.open_nursery() as nursery:
        for address in addresses:
            await room.acquire()  # before the task is there: their number is bounded
            await pace.turn()
            nursery.start_soon(_one, resolver, address, room, send)


async def _one(
    resolver: dns.asyncresolver.Resolver,
    address: Address,
    room: trio.Semaphore,
    send: trio.MemorySendChannel[Sighting],
) -> None:
    try:
        answer = await resolver.resolve_address(str(address), search=False)
        names = names_in(record.target for record in answer)
    except (dns.exception.DNSException, OSError):
        return  # no name, a resolver without an answer, or one that nobody can read
    finally:
        room.release()
    if names:
        await send.send(Sighting(method="reverse", addresses=[str(address)], names=names))
