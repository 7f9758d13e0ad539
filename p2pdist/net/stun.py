"""A gateway's STUN responder on UDP: real sockets around :class:`~p2pdist.core.stun.StunResponder`."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from p2pdist import limits
from p2pdist.core.stun import StunResponder, StunStatistics
from p2pdist.errors import Unavailable, UsageError
from p2pdist.wire.stun import Endpoint, endpoint_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StunAddress:
    """One address of a gateway.

    Attributes:
        bind: The address of this machine that the sockets are bound to; not the one that means all.
        outside: The address that devices know it by, where a NAT forwards the two ports to this machine
            (both, with their numbers unchanged, answers too). Empty: the same.
    """

    bind: str
    outside: str = ""


class StunService:
    """A responder that runs: where, and what it has done."""

    def __init__(self, responder: StunResponder) -> None:
        self._responder = responder

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where devices ask, the first address and port first: that one is a gateway's STUN endpoint."""
        return self._responder.endpoints

    def statistics(self) -> StunStatistics:
        """Count what happened so far."""
        return self._responder.statistics()


async def serve_stun(
    addresses: Sequence[StunAddress],
    ports: tuple[int, int],
    *,
    known: Callable[[str], bool] = lambda host: False,
    task_status: trio.TaskStatus[StunService] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer STUN requests until cancelled (RFC 8489 section 6, RFC 5780 section 6), in one address family.

    Args:
        addresses: One, or two of one family. With two, devices learn all of what their NAT does.
        ports: The two ports on each address; 0 takes a free one.
        known: Whether somebody at this address is known to be there; called for every datagram.
        task_status: Is told the :class:`StunService` once it answers.

    Raises:
        UsageError: the addresses or ports make no sense.
        Unavailable: one of them cannot be had on this machine.
    """
    if ports[0] == ports[1] != 0:
        raise UsageError("a STUN responder has two different ports")
    with ExitStack() as stack:
        taken = list(ports)
        sockets: list[socket.socket] = []
        for address in addresses:
            for number in range(len(taken)):
                bound = stack.enter_context(_bound(address.bind, taken[number]))
                taken[number] = bound.getsockname()[1]
                sockets.append(bound)
        responder = StunResponder(
            [endpoint_of(each.outside or each.bind, 0).host for each in addresses],
            (taken[0], taken[1]),
            known=known,
            key=secrets.token_bytes(16),
            now=trio.current_time(),
        )
        by_endpoint = dict(zip(responder.endpoints, sockets, strict=True))
        async with trio.open_nursery() as nursery:
            for local in by_endpoint:
                nursery.start_soon(_serve, responder, local, by_endpoint)
            task_status.started(StunService(responder))


async def _serve(responder: StunResponder, local: Endpoint, sockets: dict[Endpoint, socket.socket]) -> None:
    """Answer what arrives at one socket: many at once, and never waiting to send, so a flood stays small."""
    receiving = sockets[local]
    while True:
        await trio.lowlevel.wait_readable(receiving)
        now = trio.current_time()
        for data, (host, port, *_) in _arrived(receiving):
            reply = responder.handle_datagram(data, host, port, local, now)
            if reply is not None:
                try:
                    sockets[reply.origin].sendto(reply.data, (host, port))
                except OSError:  # its queue is full, or there is no such place
                    responder.handle_unsent()


def _arrived(receiving: socket.socket) -> Iterator[tuple[bytes, Any]]:
    for _ in range(limits.STUN_BATCH):
        try:
            yield receiving.recvfrom(limits.STUN_BYTES_MAX + 1)
        except OSError:  # nothing more, or no memory for it: it is asked again
            return


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    ip = endpoint_of(host, port).ip
    if ip.is_unspecified:
        raise UsageError(
            f"a STUN responder cannot listen on {host}",
            hint="name each address: an answer has to leave from the address that was asked",
        )
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as bound:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, limits.STUN_RECEIVE_BYTES)
        try:
            bound.bind((host, port))
        except OSError as error:
            where = f"UDP port {port} of {host}"
            raise Unavailable(
                f"{where} cannot be had for STUN: {error.strerror}", hint="free it, or configure another"
            ) from error
        yield bound
