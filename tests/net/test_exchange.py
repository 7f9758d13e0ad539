"""Envelopes at the ends of their way: kept until the neighbour answers for them, and answered for."""

from __future__ import annotations

import pytest

from p2pdist import limits
from p2pdist.errors import PeerError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.net.exchange import Exchange
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Routed, Taken

A, SERVER = NodeId("a" * 32), NodeId("s" * 32)


def envelope(counter: int, size: int = 40) -> Envelope:
    return Envelope(sender=A, recipient=SERVER, counter=counter, expires=0, box=bytes(size))


class Outlet:
    """A link's end that keeps what is sent on it, up to as much as the test says."""

    def __init__(self, room: int = 10_000) -> None:
        self.frames: list[AnyFrame] = []
        self.room = room

    def send_nowait(self, frame: AnyFrame) -> None:
        if len(self.frames) >= self.room:
            raise Unavailable("full")
        self.frames.append(frame)

    @property
    def counters(self) -> list[int]:
        return [frame.envelope.counter for frame in self.frames if isinstance(frame, Routed)]


def test_what_was_sent_is_kept_until_the_neighbour_answers_for_it() -> None:
    exchange = Exchange(outlet := Outlet())
    for counter in (1, 2, 3):
        exchange.send(envelope(counter))
    assert outlet.counters == [1, 2, 3]
    assert exchange.taken(Taken(count=2)) == 0
    assert [each.counter for each in exchange.untaken()] == [3]
    assert exchange.open == 1


def test_what_the_neighbour_has_no_room_for_is_counted_and_not_kept() -> None:
    exchange = Exchange(Outlet())
    exchange.send(envelope(1))
    exchange.send(envelope(2))
    assert exchange.taken(Taken(count=2, refused=[2])) == 1
    assert exchange.untaken() == []


def test_more_than_the_window_waits_and_leaves_as_receipts_come() -> None:
    most = limits.MAILBOX_FLIGHT_ENVELOPES_MAX
    exchange = Exchange(outlet := Outlet())
    for counter in range(1, most + 6):
        exchange.send(envelope(counter), for_others=True)
    assert len(outlet.counters) == most
    exchange.taken(Taken(count=2))
    assert outlet.counters == list(range(1, most + 3))
    assert len(exchange.untaken()) == most + 3


def test_what_a_full_link_does_not_take_leaves_with_the_next_envelope() -> None:
    exchange = Exchange(outlet := Outlet(room=1))
    exchange.send(envelope(1))
    exchange.send(envelope(2))
    assert outlet.counters == [1]
    outlet.room = 10
    exchange.send(envelope(3))
    assert outlet.counters == [1, 2, 3]


def test_beyond_its_bounds_an_exchange_takes_nothing_more() -> None:
    exchange = Exchange(Outlet(room=0))
    large = limits.EXCHANGE_BYTES_MAX // limits.ENVELOPE_BYTES_MAX
    for counter in range(large):
        exchange.send(envelope(counter + 1, limits.ENVELOPE_BYTES_MAX), for_others=True)
    with pytest.raises(Unavailable, match="wait for a neighbour"):
        exchange.send(envelope(99), for_others=True)
    assert len(exchange.untaken()) == large


def test_what_is_for_the_neighbour_itself_may_use_little_of_it() -> None:
    exchange = Exchange(Outlet(room=0))
    for counter in range(limits.EXCHANGE_ENVELOPES_MAX // limits.EXCHANGE_OWN_SHARE):
        exchange.send(envelope(counter + 1))
    with pytest.raises(Unavailable, match="wait for a neighbour"):
        exchange.send(envelope(9_999))
    exchange.send(envelope(9_999), for_others=True)


def test_receipts_are_given_when_all_that_came_is_dealt_with_and_now_and_then_before() -> None:
    exchange = Exchange(outlet := Outlet())
    numbers = [exchange.arrived() for _ in range(100)]
    for number in numbers:
        exchange.settle(number)
    assert outlet.frames == [Taken(count=32), Taken(count=64), Taken(count=96), Taken(count=100)]


def test_a_receipt_that_a_full_link_did_not_take_comes_with_the_next() -> None:
    exchange = Exchange(outlet := Outlet(room=0))
    exchange.settle(exchange.arrived())
    outlet.room = 10
    exchange.settle(exchange.arrived())
    assert outlet.frames == [Taken(count=2)]


def test_a_full_link_is_looked_at_again() -> None:
    exchange = Exchange(outlet := Outlet(room=0))
    exchange.send(envelope(1))
    exchange.settle(exchange.arrived())
    outlet.room = 10
    exchange.look()
    assert outlet.frames == [Taken(count=1), Routed(envelope=envelope(1))]
    exchange.look()
    assert len(outlet.frames) == 2


def test_a_neighbour_that_answers_for_what_was_not_sent_is_at_fault() -> None:
    exchange = Exchange(Outlet())
    with pytest.raises(PeerError):
        exchange.taken(Taken(count=1))
