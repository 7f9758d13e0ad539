"""Which of some TCP ports answer, at which addresses."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Sequence
from ipaddress import IPv4Address, IPv6Address

import trio

from p2pdist import limits
from p2pdist.duties.discovery.pace import Pace
from p2pdist.errors import UsageError
from p2pdist.wire.discovery import Sighting

Address = IPv4Address | IPv6Address


@trio.as_safe_channel
async def poll(
    addresses: Sequence[Address], ports: Sequence[int], *, per_s: float
) -> AsyncGenerator[Sighting, None]:
    """Connect to each port of each address, and yield those addresses where anything answers.

    A refusal is an answer, too: somebody is there, who offers nothing at that port.

    Args:
        addresses: In the order in which they are asked.
        ports: At most ``DISCOVERY_PORTS_MAX``.
        per_s: How many connections are begun in a second.

    Raises:
        UsageError: there are too many ports.
    """
    if len(ports) > limits.DISCOVERY_PORTS_MAX:
        raise UsageError(f"more than {limits.DISCOVERY_PORTS_MAX} ports are to be tried")
    pace = Pace(per_s)
    room = trio.Semaphore(limits.DISCOVERY_CONNECTS_AT_ONCE)
    send, found = trio.open_memory_channel[Sighting](0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_all, addresses, ports, pace, room, send)
        async for sighting in found:
            yield sighting


async def _all(
    addresses: Sequence[Address],
    ports: Sequence[int],
    pace: Pace,
    room: trio.Semaphore,
    send: trio.MemorySendChannel[Sighting],
) -> None:
    async with send, trio.open_nursery() as nursery:
        for address in addresses:
            await room.acquire()  # before the task is there: their number is bounded
            nursery.start_soon(_one, address, ports, pace, room, send)


async def _one(
    address: Address,
    ports: Sequence[int],
    pace: Pace,
    room: trio.Semaphore,
    send: trio.MemorySendChannel[Sighting],
) -> None:
    try:
        answers = {}
        for port in ports:
            await pace.turn()
            answers[port] = await _connect(address, port)
    finally:
        room.release()
    if any(answer is not None for answer in answers.values()):
        services = [f"tcp/{port}" for port, answer in answers.items() if answer]
        await send.send(Sighting(method="connect", addresses=[str(address)], services=services))


async def _connect(address: Address, port: int) -> bool | None:
    """Say whether a port takes connections; None when nobody answers."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with trio.socket.socket(family, socket.SOCK_STREAM) as opened:
        with trio.move_on_after(limits.DISCOVERY_CONNECT_S):
            try:
                await opened.connect((str(address), port))
            except ConnectionRefusedError:
                return False
            except OSError:
                return None
            return True
    return None
