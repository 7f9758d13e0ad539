"""What the NATs between this machine and a gateway do: sockets around :class:`~p2pdist.core.nat.NatProbe`."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import trio

from p2pdist import limits
from p2pdist.core.nat import PROBE_SOCKETS, NatProbe, ProbeSocket
from p2pdist.errors import Unavailable
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.stun import Endpoint, endpoint_of


async def probe_nat(gateway: Endpoint) -> NatBehaviour:
    """Find out what the NATs between this machine and *gateway* do, in about 10 s at most.

    Cancelling it closes its sockets and leaves nothing behind.

    Raises:
        Unavailable: this machine has no way to the gateway's address at all.
    """
    with ExitStack() as stack:
        local_host = _local_host(gateway)
        sockets = {each: stack.enter_context(_bound(local_host, gateway)) for each in PROBE_SOCKETS}
        local = {each: endpoint_of(*sockets[each].getsockname()[:2]) for each in PROBE_SOCKETS}
        probe = NatProbe(gateway, local, random_bytes=secrets.token_bytes, now=trio.current_time())
        changed = trio.Event()

        async def receive(name: ProbeSocket) -> None:
            while True:
                await trio.lowlevel.wait_readable(sockets[name])
                try:
                    data, source = sockets[name].recvfrom(limits.STUN_BYTES_MAX + 1)
                except OSError:  # nothing after all, or word that a datagram was not delivered
                    continue
                probe.handle_datagram(name, data, endpoint_of(source[0], source[1]), trio.current_time())
                changed.set()

        async with trio.open_nursery() as nursery:
            for name in PROBE_SOCKETS:
                nursery.start_soon(receive, name)
            while (deadline := probe.next_deadline()) is not None:
                _send(probe, sockets)
                with trio.move_on_at(deadline):
                    await changed.wait()
                changed = trio.Event()
                probe.handle_tick(trio.current_time())
            nursery.cancel_scope.cancel()
        behaviour = probe.behaviour
        assert behaviour is not None
        return behaviour


async def probe_nats(gateways: Sequence[Endpoint]) -> Sequence[NatBehaviour]:
    """Find out what the NATs between this machine and several gateways do, side by side.

    It takes as long as :func:`probe_nat`. At most :data:`~p2pdist.limits.PROBES_MAX` are asked: of each
    address family the first, and the last. Those to which this machine has no way at all are left out.
    """
    found: dict[Endpoint, NatBehaviour] = {}

    async def probe(gateway: Endpoint) -> None:
        with contextlib.suppress(Unavailable):
            found[gateway] = await probe_nat(gateway)

    families = ([each for each in gateways if each.ip.version == version] for version in (4, 6))
    chosen = [each for family in families for each in dict.fromkeys([*family[:1], *family[-1:]])]
    async with trio.open_nursery() as nursery:
        for gateway in chosen:
            nursery.start_soon(probe, gateway)
    return [found[gateway] for gateway in chosen if gateway in found]


def _send(probe: NatProbe, sockets: Mapping[ProbeSocket, socket.socket]) -> None:
    while (command := probe.poll_command()) is not None:
        with contextlib.suppress(OSError):  # lost on the way, as far as the probe is concerned
            sockets[command.socket].sendto(command.data, command.to.address)


def _local_host(gateway: Endpoint) -> str:
    """Return which of this machine's addresses packets to the gateway leave from. Sends nothing."""
    with _udp(gateway) as asking:
        try:
            asking.connect(gateway.address)
        except OSError as error:
            raise Unavailable(
                f"there is no way to {gateway}: {error.strerror}", hint="is this machine on a network?"
            ) from error
        return endpoint_of(asking.getsockname()[0], 0).host


@contextmanager
def _bound(host: str, gateway: Endpoint) -> Iterator[socket.socket]:
    with _udp(gateway) as bound:
        bound.setblocking(False)
        bound.bind((host, 0))
        yield bound


def _udp(gateway: Endpoint) -> socket.socket:
    family = socket.AF_INET if gateway.ip.version == 4 else socket.AF_INET6
    return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
