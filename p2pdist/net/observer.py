"""A gateway's observers on UDP: real sockets around :class:`~p2pdist.core.observer.Observer`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from p2pdist import limits
from p2pdist.core.observer import Observer
from p2pdist.logs import get_logger
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.stun import endpoint_of

_log = get_logger()
_COMPLAINTS_MAX = 64

OBSERVERS = 2
"""At each address: two ports are enough to tell whether a NAT maps by destination."""


@dataclass(frozen=True, slots=True)
class _Stand:
    """What is open at one address: nothing, where it could not be had."""

    endpoints: tuple[Endpoint, ...]
    scopes: tuple[trio.CancelScope, ...]


class Observers:
    """The sockets of one gateway, two at each address at which nodes reach it.

    Those at an address that this machine has no more are closed, and what could not be had is tried again:
    when somebody asks, every :data:`p2pdist.limits.OBSERVER_LOOK_S`. Closed by whoever runs :meth:`run`.

    Args:
        seen: Takes a token, the number of the observer (0 or 1), and from where the datagram came.
        port: The port of the first; the second has the next but one, as the next is the swarm's by default.
            In place of one that is taken any free port is used, until it is free.
    """

    def __init__(self, seen: Callable[[str, int, Endpoint], None], *, port: int) -> None:
        self._ports = [port + 2 * number if port else 0 for number in range(OBSERVERS)]
        self._observer = Observer(seen, key=secrets.token_bytes(16), now=trio.current_time())
        self._stands: dict[str, _Stand] = {}
        self._complaints: dict[str, str] = {}
        self._look_at = 0.0
        self._new, self._waiting = trio.open_memory_channel[tuple[int, socket.socket, trio.CancelScope]](
            OBSERVERS * limits.OBSERVER_ADDRESSES_MAX
        )

    def at(self, host: str) -> tuple[Endpoint, ...]:
        """Return the observers at one of this machine's addresses; they are opened when first asked for.

        None for an address that cannot be had now, or beyond :data:`p2pdist.limits.OBSERVER_ADDRESSES_MAX`.
        """
        now = trio.current_time()
        if now >= self._look_at:
            self._look_at = now + limits.OBSERVER_LOOK_S
            self._give_up_stale()
        if host not in self._stands:
            if len(self._stands) >= limits.OBSERVER_ADDRESSES_MAX:
                self._complain(host, "a gateway observes at no more addresses", "add a gateway")
                return ()
            self._stands[host] = self._opened(host)
        return self._stands[host].endpoints

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                async for number, bound, scope in self._waiting:
                    nursery.start_soon(self._serve, number, bound, scope)
        finally:
            with self._waiting, suppress(trio.WouldBlock):
                while True:
                    self._waiting.receive_nowait()[1].close()

    def _give_up_stale(self) -> None:
        """Close what is at addresses that are gone or not at the ports that are free now; forget failures."""
        for host, stand in list(self._stands.items()):
            others = [p for p, e in zip(self._ports, stand.endpoints, strict=False) if p not in (0, e.port)]
            if not stand.endpoints or not _is_free(host, 0) or any(_is_free(host, port) for port in others):
                for scope in stand.scopes:
                    scope.cancel()
                del self._stands[host]

    def _opened(self, host: str) -> _Stand:
        endpoints, scopes, complaint = [], [], ("", "")
        for number, port in enumerate(self._ports):
            try:
                try:
                    bound = _bound(host, port)
                except OSError as error:
                    bound = _bound(host, 0)
                    hint = f"free it, or let UDP come through to port {bound.getsockname()[1]} instead"
                    complaint = f"UDP port {port} cannot be had: {error.strerror}", hint
            except OSError as error:
                complaint = f"no UDP port can be had: {error.strerror}", "it is tried again"
                break
            endpoints.append(Endpoint(host=host, port=bound.getsockname()[1]))
            scopes.append(trio.CancelScope())
            self._new.send_nowait((number, bound, scopes[-1]))
        self._complain(host, *complaint)
        return _Stand(tuple(endpoints), tuple(scopes))

    def _complain(self, host: str, complaint: str, hint: str) -> None:
        """Log what is wrong at an address, unless that was said already."""
        if self._complaints.get(host, "") == complaint:
            return
        if len(self._complaints) >= _COMPLAINTS_MAX:
            self._complaints.clear()
        self._complaints[host] = complaint
        if complaint:
            _log.warning("observer.restricted", host=host, reason=complaint, hint=hint)

    async def _serve(self, number: int, bound: socket.socket, scope: trio.CancelScope) -> None:
        with scope, bound:
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


def _is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def _bound(host: str, port: int) -> socket.socket:
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
        raise
    return bound
