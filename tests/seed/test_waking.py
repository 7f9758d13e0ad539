"""What a distribution point sends when it is asked to wake devices, and when it stops."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.seed import waking
from p2pdist.seed.waking import PointWaker
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.messages import SendWakes
from p2pdist.wire.wakes import DATAGRAM_BYTES, WakeOrder

NODE = node_id_of(bytes([7]) * 32)
PLAIN, FROM_SLEEP = bytes([1]) * DATAGRAM_BYTES, bytes([2]) * DATAGRAM_BYTES
MAC = "02:00:00:00:00:07"


def grant(*duties: str) -> SeedGrant:
    return SeedGrant(node=NODE, duties=duties, scope=GroupPath("/emea"), addresses=(), expires=2**40)


def orders(*, magic: bool = False) -> SendWakes:
    order = WakeOrder(
        node=NODE,
        endpoints=[Endpoint(host="192.0.2.7", port=7604)],
        port=7604,
        datagram=PLAIN,
        macs=[MAC] if magic else [],
        magic=FROM_SLEEP if magic else None,
    )
    return SendWakes(orders=[order])


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes]]:
    """What was sent, and to whom: an address, or the segment."""
    found: list[tuple[str, bytes]] = []

    def to(sender: object, datagram: bytes, endpoints: Sequence[Endpoint]) -> None:
        found.extend((endpoint.host, datagram) for endpoint in endpoints)

    def to_segments(sender: object, datagram: bytes, port: int, near: object) -> None:
        found.append((f"segment {port}", datagram))

    monkeypatch.setattr(waking.WakeSender, "to", to)
    monkeypatch.setattr(waking.WakeSender, "to_segments", to_segments)
    monkeypatch.setattr(waking, "segments", lambda: [])
    monkeypatch.setattr(waking, "send_magic", lambda sender, macs, near: found.append((*macs, b"magic")))
    return found


async def until(sent: list[tuple[str, bytes]], count: int) -> None:
    with trio.fail_after(5):
        while len(sent) < count:
            await trio.sleep(0.01)


async def test_it_sends_to_the_device_then_to_the_whole_segment(
    nursery: trio.Nursery, sent: list[tuple[str, bytes]]
) -> None:
    waker = PointWaker(lambda: grant("seed", "push"), lambda node: False)
    nursery.start_soon(waker.run)
    waker.take(orders())
    await until(sent, 3)
    assert sent[:3] == [("192.0.2.7", PLAIN), ("192.0.2.7", PLAIN), ("segment 7604", PLAIN)]


async def test_a_device_that_may_sleep_gets_magic_packets_and_the_datagram_that_goes_with_them(
    nursery: trio.Nursery, sent: list[tuple[str, bytes]]
) -> None:
    waker = PointWaker(lambda: grant("push"), lambda node: False)
    nursery.start_soon(waker.run)
    waker.take(orders(magic=True))
    await until(sent, 6)
    assert sent[3:6] == [(MAC, b"magic"), ("192.0.2.7", FROM_SLEEP), ("segment 7604", FROM_SLEEP)]


async def test_it_stops_once_it_carries_the_device(
    nursery: trio.Nursery, sent: list[tuple[str, bytes]]
) -> None:
    carried: set[NodeId] = set()
    waker = PointWaker(lambda: grant("push"), lambda node: node in carried)
    nursery.start_soon(waker.run)
    waker.take(orders())
    await until(sent, 1)
    carried.add(NODE)
    with trio.fail_after(5):
        while waker._orders:
            await trio.sleep(0.01)
    assert sent == [("192.0.2.7", PLAIN)]


async def test_without_the_duty_it_wakes_nobody(sent: list[tuple[str, bytes]]) -> None:
    waker = PointWaker(lambda: grant("seed", "gateway"), lambda node: False)
    waker.take(orders())
    assert waker._waking is None and not sent
