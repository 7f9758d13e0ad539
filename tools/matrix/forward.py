"""A port forward into a network from which nothing may be dialled: for the operator who sits in there.

    python -m matrix.forward near LISTEN DOOR     in there: takes the operator's connections
    python -m matrix.forward far DOOR GOAL        outside: dials the door, and carries each to the goal

Each endpoint is ``host:port``. The far side keeps some connections to the door open and waiting; the near
side gives each of the operator's to one of them. It is what ``ssh -R`` does, run from outside.
"""

from __future__ import annotations

import sys

import trio

from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.splicing import splice

_WAITING = 4
_AGAIN_S = 0.2
_READ_BYTES = 64 * 1024


async def near(listen: str, door: str) -> None:
    """Serve in there, until cancelled."""
    waiting, take = trio.open_memory_channel[tuple[trio.SocketStream, trio.Event]](0)

    async def wait_at_door(stream: trio.SocketStream) -> None:
        used = trio.Event()
        await waiting.send((stream, used))
        await used.wait()

    async def carry(stream: trio.SocketStream) -> None:
        outwards, used = await take.receive()
        try:
            await splice(stream, outwards)
        finally:
            used.set()

    async with trio.open_nursery() as nursery:
        for endpoint, serve in ((door, wait_at_door), (listen, carry)):
            host, port = parse_endpoint(endpoint)
            listeners = await trio.open_tcp_listeners(port, host=host)
            nursery.start_soon(trio.serve_listeners, serve, listeners)


async def far(door: str, goal: str) -> None:
    """Serve outside, until cancelled."""
    async with trio.open_nursery() as nursery:
        for _ in range(_WAITING):
            nursery.start_soon(_carry_each, door, goal)


async def _carry_each(door: str, goal: str) -> None:
    while True:
        try:
            async with await trio.open_tcp_stream(*parse_endpoint(door)) as outwards:
                first = await outwards.receive_some(_READ_BYTES)
                if first:
                    async with await trio.open_tcp_stream(*parse_endpoint(goal)) as inwards:
                        await inwards.send_all(first)
                        await splice(outwards, inwards)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.sleep(_AGAIN_S)


def main() -> None:
    """Run one side until killed."""
    side, one, other = sys.argv[1:]
    trio.run({"near": near, "far": far}[side], one, other)


if __name__ == "__main__":
    main()
