"""Where wakes are listened for and sent from: real sockets on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest
import trio

from p2pdist import limits
from p2pdist.core.listening import EVERYWHERE
from p2pdist.errors import Unavailable
from p2pdist.net.wakes import Segment, WakeSocket, open_wake_sender, open_wake_socket, segments
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.wakes import DATAGRAM_BYTES, MAGIC

PREFIX = MAGIC + b"ONE-TAG."
OURS = PREFIX + bytes(DATAGRAM_BYTES - len(PREFIX))
HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture
def listening() -> Iterator[WakeSocket]:
    with open_wake_socket(EVERYWHERE, 0, PREFIX) as found:
        yield found


async def first(found: WakeSocket) -> bytes:
    with trio.fail_after(5):
        return await found.receive()


@pytest.mark.parametrize("host", HOSTS)
async def test_a_wake_arrives_over_either_family(host: str, listening: WakeSocket) -> None:
    with open_wake_sender() as sender:
        sender.to(OURS, [Endpoint(host=host, port=listening.port)])
    assert await first(listening) == OURS


@pytest.mark.parametrize("host", HOSTS)
async def test_one_address_is_listened_on_alone(host: str) -> None:
    with open_wake_socket(host, 0, PREFIX) as found, open_wake_sender() as sender:
        sender.to(OURS, [Endpoint(host=host, port=found.port)])
        assert await first(found) == OURS


async def test_what_is_for_another_device_or_no_wake_is_dropped_before_the_process_sees_it(
    listening: WakeSocket,
) -> None:
    family = socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as stranger:
        for number in range(10_000):
            data = (OURS[:11] + b"!" + OURS[12:], b"", PREFIX, OURS + b"\0", OURS[:-1])[number % 5]
            stranger.sendto(data, ("127.0.0.1", listening.port))
        stranger.sendto(OURS, ("127.0.0.1", listening.port))
    assert await first(listening) == OURS
    assert listening.read == 1


async def test_a_flood_of_datagrams_that_begin_right_is_read_at_a_bounded_rate(
    listening: WakeSocket,
) -> None:
    began = time.monotonic()
    async with trio.open_nursery() as nursery:

        async def flood() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                while True:
                    for _ in range(200):
                        stranger.sendto(OURS, ("127.0.0.1", listening.port))
                    await trio.sleep(0.001)

        nursery.start_soon(flood)
        with trio.move_on_after(1):
            while True:
                await listening.receive()
        nursery.cancel_scope.cancel()
    allowed = limits.WAKES_READ_BURST + limits.WAKES_READ_PER_S * (time.monotonic() - began)
    assert limits.WAKES_READ_BURST <= listening.read <= allowed + 1


def test_a_port_that_somebody_has_is_said_to_be_taken(listening: WakeSocket) -> None:
    with pytest.raises(Unavailable, match="cannot be had"), open_wake_socket("::", listening.port, PREFIX):
        pass


def test_what_cannot_be_sent_is_left() -> None:
    with open_wake_sender() as sender:
        for host in ("no.such.address.invalid", "255.255.255.255", "224.0.0.1", "ff02::1", "0.0.0.0"):
            sender.to(OURS, [Endpoint(host=host, port=9)])
        sender.to_segments(OURS, 9, [Segment(index=2**30, ipv4=True, ipv6=True)])
        assert sender.sent == 0


def test_loopback_is_no_segment() -> None:
    assert socket.if_nametoindex("lo") not in [segment.index for segment in segments()]
