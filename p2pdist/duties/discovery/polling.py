"""Does a poll: ICMP echo, who answered ARP from the kernel's table, then the other methods one by one."""

from __future__ import annotations

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address, ip_interface

import ifaddr
import trio

from p2pdist import limits
from p2pdist.core.polling import addresses_to_ask, excludes, on_segment
from p2pdist.duties.discovery import connects, netbios
from p2pdist.duties.discovery.found import Found
from p2pdist.duties.discovery.logins import Login, login_for
from p2pdist.duties.run import Ended, RunPort
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.net.neighbours import read_neighbours
from p2pdist.net.pings import ALL_NODES, Pinger, open_pinger
from p2pdist.node.directorysettings import DirectorySettings
from p2pdist.wire.discovery import Sighting
from p2pdist.wire.polling import Poll, PollMethod

_LOOK_S = 20.0  # the kernel keeps who answers ARP, and nothing else, for a minute


async def poll(work: Poll, port: RunPort, directories: Sequence[DirectorySettings] = ()) -> Ended:
    """Poll, and say of each address that was found how it was, and with which hardware address.

    Args:
        work: What is asked.
        port: The run's way to say how far it is.
        directories: The node's own users of directory services, for polls that name none.

    Raises:
        UsageError: the ranges are none, or too large; or the node's own settings of a directory do not fit.
        Unavailable: a directory wants a password, and nobody has given it.
    """
    found = Found(port)
    login = await login_for(work.directory, port, directories)
    asked = await trio.to_thread.run_sync(addresses_to_ask, work.ranges, work.excluded)
    wanted = frozenset(asked)
    reads = "neighbours" in work.methods
    failures: list[str] = []

    async def look() -> None:
        for address, mac in await trio.to_thread.run_sync(read_neighbours):
            wished = address in wanted or (not work.ranges and not excludes(work.excluded, address))
            if wished or found.has(address):
                await found.neighbour(address, mac)

    async def look_meanwhile() -> None:
        if reads:
            async with _collecting([]):  # the last look says why there is none
                await look()

    if "echo" in work.methods and asked:
        async with _collecting(failures), open_pinger() as pinger:
            await _echo(pinger, asked, work.per_s, found, port, look_meanwhile)
    if "multicast" in work.methods:
        async with _collecting(failures), open_pinger(6) as pinger:
            await _multicast(pinger, found, port)
    if reads:
        port.progress("reading the table of neighbours")
        async with _collecting(failures):
            await look()
    for method, begin in _methods(work, asked, login):
        port.progress(f"asking by {method}")
        async with _collecting(failures), begin() as sightings:
            async for sighting in sightings:
                if _wished(sighting, work, wanted):
                    await found.saw(method, sighting)
    figures = {"asked": len(asked), **found.figures()}
    if not failures:
        return Ended(figures=figures)
    some = len(failures) < len(work.methods)
    return Ended(outcome="partly" if some else "failed", reason="; ".join(failures), figures=figures)


@asynccontextmanager
async def _collecting(failures: list[str]) -> AsyncIterator[None]:
    """A method that cannot be used here ends by itself; the others go on."""
    try:
        yield
    except (Unavailable, PeerError, TrustError) as error:
        failures.append(str(error))


def _methods(
    work: Poll, asked: Sequence[IPv4Address], login: Login
) -> Iterator[tuple[PollMethod, Callable[[], AbstractAsyncContextManager[AsyncIterable[Sighting]]]]]:
    """The methods of *work* beyond ICMP; each is imported only when it is asked for."""
    if "connect" in work.methods:
        yield "connect", lambda: connects.poll(asked, work.ports, per_s=work.per_s)
    if "reverse" in work.methods:
        from p2pdist.duties.discovery import reverse

        yield "reverse", lambda: reverse.poll(asked, per_s=work.per_s)
    if "netbios" in work.methods:
        yield "netbios", lambda: netbios.poll(asked, per_s=work.per_s)
    if "mdns" in work.methods:
        from p2pdist.duties.discovery import mdns

        yield "mdns", mdns.poll
    if "wsd" in work.methods:
        from p2pdist.duties.discovery import wsd

        yield "wsd", wsd.poll
    if work.directory is not None:
        from p2pdist.duties.discovery import directory

        of = directory.of_poll(work.directory, login)
        yield "directory", lambda: directory.poll(of)


def _wished(sighting: Sighting, work: Poll, wanted: Collection[IPv4Address]) -> bool:
    """Whether a poll is about who answered a question to everybody: within the ranges, or by IPv6."""
    addresses = [ip_address(address) for address in sighting.addresses]
    if any(address in wanted for address in addresses):
        return True
    beyond = all(isinstance(address, IPv6Address) for address in addresses)
    return (beyond or not work.ranges) and not any(excludes(work.excluded, each) for each in addresses)


async def _echo(
    pinger: Pinger,
    asked: Collection[IPv4Address],
    per_s: int,
    found: Found,
    port: RunPort,
    look: Callable[[], Awaitable[None]],
) -> None:
    """Ask every address; *look* at the table of neighbours before the kernel forgets who answered ARP."""
    segments = await trio.to_thread.run_sync(_segments)
    most_on_segment = limits.POLL_ON_SEGMENT_PER_S
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear, pinger, found)
        due = looked = trio.current_time()
        for number, address in enumerate(asked, start=1):
            near = on_segment(address, segments)
            await pinger.ask(address)
            port.progress("asking", done=number, total=len(asked))
            if trio.current_time() > looked + _LOOK_S:
                await look()
                looked = trio.current_time()
            due = max(due, trio.current_time() - 1) + 1 / (min(per_s, most_on_segment) if near else per_s)
            await trio.sleep_until(due)
        port.progress("waiting for answers", done=len(asked), total=len(asked))
        await trio.sleep(limits.POLL_ANSWER_S)
        nursery.cancel_scope.cancel()


async def _multicast(pinger: Pinger, found: Found, port: RunPort) -> None:
    """Ask everybody on every segment of this machine, twice: one datagram may be lost."""
    port.progress("asking all neighbours over IPv6")
    interfaces = await trio.to_thread.run_sync(_interfaces)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hear, pinger, found)
        for _ in range(2):
            for interface in interfaces:
                await pinger.ask(ALL_NODES, interface=interface)
            await trio.sleep(limits.POLL_ANSWER_S)
        nursery.cancel_scope.cancel()


async def _hear(pinger: Pinger, found: Found) -> None:
    async for address in pinger.answers():
        await found.answered(address)


def _interfaces() -> list[int]:
    """The numbers of the interfaces that have a segment of IPv6."""
    return [
        adapter.index
        for adapter in ifaddr.get_adapters()
        if adapter.index is not None
        and any(ip.is_IPv6 and ip_interface(ip.ip[0]).is_link_local for ip in adapter.ips)
    ]


def _segments() -> list[IPv4Network]:
    """The networks on which this machine stands itself."""
    addresses = [ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return [IPv4Network(ip_interface(f"{ip.ip}/{ip.network_prefix}").network) for ip in addresses]
