"""A gateway's observers on UDP: real sockets around :class:`~p2pdist.core.observer.Observer`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import trio

from p2pdist import limits
from p2pdist.core.observer import Observer
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.stun import endpoint_of

OBSERVERS = 2
"""At each address: two ports are enough to tell whether a NAT maps by destination."""


class Observers:
    """The sockets of one gateway, two at each address at which nodes reach it.

    Closed by :meth:`aclose`, or by whoever runs :meth:`run`.

    Args:
        seen: Takes a token, the number of the observer (0 or 1), and from where the datagram came.
        port: The port of the first; the second has the next but one, as the next is the swarm's by default.
            In place of one that is taken any free port is used.
    """

    def __init__(self, seen: Callable[[str, int, Endpoint], None], *, port: int) -> None:
        self._port = port
        self._observer = Observer(seen, key=secrets.token_bytes(16), now=trio.current_time())
        self._open: dict[str, tuple[Endpoint, ...]] = {}
        self._new, self._waiting = trio.open_memory_channel[tuple[int, socket.socket]](
            OBSERVERS * limits.OBSERVER_ADDRESSES_MAX
        )

    def at(self, host: str) -> tuple[Endpoint, ...]:
        """Return the observers at one of this machine's addresses; they are opened when first asked for.

        None for an address that cannot be had, or beyond :data:`p2pdist.limits.OBSERVER_ADDRESSES_MAX`.
        """
        if host not in self._open:
            if len(self._open) >= limits.OBSERVER_ADDRESSES_MAX:
                return ()
            self._open[host] = self._opened(host)
        return self._open[host]

    async def run(self) -> None:
        """Answer until cancelled."""
        with self._waiting:
            async with trio.open_nursery() as nursery:
                async for number, bound in self._waiting:
                    nursery.start_soon(self._serve, number, bound)

    def _opened(self, host: str) -> tuple[Endpoint, ...]:
        endpoints = []
        for number in range(OBSERVERS):
            bound = _bound(host, self._port + 2 * number if self._port else 0) or _bound(host, 0)
            if bound is None:
                break
            endpoints.append(Endpoint(host=host, port=bound.getsockname()[1]))
            self._new.send_nowait((number, bound))
        return tuple(endpoints)

    async def _serve(self, number: int, bound: socket.socket) -> None:
        with bound:
            while True:
                await trio.lowlevel.wait_readable(bound)
                for _ in range(limits.STUN_BATCH):
                    try:
                        data, (host, port, *_) = bound.recvfrom(limits.OBSERVER_BYTES_MAX + 1)
                        now = trio.current_time()
                        answer = self._observer.handle_datagram(data, host, port, number, now)
                        if answer is not None:
                            bound.sendto(answer, (host, port))
                    except OSError:  # nothing more, or no room to send: it is asked again
                        break


def _bound(host: str, port: int) -> socket.socket | None:
    """Bind to one address, not to all: an answer has to leave from the address that was asked."""
    ip = endpoint_of(host, 0).ip
    bound = socket.socket(
        socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    )
    try:
        bound.setblocking(False)
        bound.bind((host, port if port <= 65_535 else 0))
    except OSError:
        bound.close()
        return None
    return bound
