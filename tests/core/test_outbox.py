"""What the admin server said and nobody has opened yet: when it is sent again, and when it is forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.outbox import Outbox
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.trust.sealing import ReplayWindow
from p2pdist.wire.envelope import Envelope, Opened

SERVER, D, E = (NodeId(letter * 32) for letter in "sde")
NOW = 1_800_000_000
AGAIN = limits.OUTBOX_AGAIN_S


def envelope(counter: int, node: NodeId = D, *, size: int = 100, expires: int = NOW + 60) -> Envelope:
    return Envelope(sender=SERVER, recipient=node, counter=counter, expires=expires, box=bytes(size))


def opened(*counters: int) -> Opened:
    window = ReplayWindow()
    for counter in counters:
        window.accept(counter)
    return window.opened()


def outbox(*counters: int, way: str = "through A") -> Outbox:
    made = Outbox()
    for counter in counters:
        made.keep(envelope(counter), subject="", way=way, now=0.0)
    return made


def due(box: Outbox, way: str, now: float = 1.0, unix: int = NOW) -> list[int]:
    return [each.counter for each in box.due(D, way=way, now=now, unix=unix)]


def test_what_a_device_has_opened_is_forgotten_and_what_it_has_not_is_kept() -> None:
    box = outbox(1, 2, 3)
    assert box.opened(D, opened(1, 3)) == []
    assert box.unopened(D) == (2,)


def test_what_went_another_way_is_due_at_once_in_order_and_what_went_this_way_is_not() -> None:
    box = outbox(2, 1)
    box.keep(envelope(3), subject="", way="through B", now=0.0)
    assert due(box, "through B") == [1, 2]
    assert due(box, "through A") == [3]


def test_what_was_sent_again_is_not_due_at_once_a_second_time() -> None:
    box = outbox(1)
    (again,) = box.due(D, way="through B", now=1.0, unix=NOW)
    box.sent_again(again, way="through B", now=1.0)
    assert due(box, "through B", now=2.0) == []


def test_what_is_not_opened_for_long_is_due_again_over_the_same_way() -> None:
    box = outbox(1)
    assert due(box, "through A", now=AGAIN - 0.1) == []
    assert due(box, "through A", now=AGAIN) == [1]


def test_a_message_takes_the_place_of_an_older_one_on_its_subject_and_of_no_other() -> None:
    box = outbox(1)
    for counter, subject in ((2, "state"), (3, "certificate"), (4, "state")):
        box.keep(envelope(counter), subject=subject, way="through A", now=0.0)
    assert box.unopened(D) == (1, 3, 4)


def test_what_has_expired_is_not_sent_again() -> None:
    assert due(outbox(1), "through B", unix=NOW + 61) == []


def test_what_a_device_would_refuse_as_too_old_is_named_and_forgotten() -> None:
    box = outbox(1, 2)
    assert box.opened(D, opened(limits.REPLAY_WINDOW + 1)) == [1]
    assert box.unopened(D) == (2,)


def test_a_device_that_never_opens_anything_uses_its_share_and_no_more() -> None:
    box = outbox(*range(1, limits.OUTBOX_NODE_ENVELOPES_MAX + 1))
    with pytest.raises(Unavailable):
        box.keep(envelope(1_000), subject="", way="through A", now=0.0)
    box.keep(envelope(1, E), subject="", way="through A", now=0.0)
    assert box.unopened(E) == (1,)


def test_however_many_devices_never_open_anything_there_is_room_for_another_one() -> None:
    box = Outbox(size_bytes_max=100_000)
    for number in range(200):
        node = NodeId(f"{number:032d}".translate(str.maketrans("01", "ab")))
        for counter in range(1, 5):
            try:
                box.keep(envelope(counter, node, size=1_000), subject="", way="", now=0.0)
            except Unavailable:
                break
    assert box.size_bytes <= 100_000
    box.keep(envelope(1, E, size=100), subject="", way="", now=0.0)


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    box = outbox(1, 2)
    box.forget(D)
    assert (box.unopened(D), box.size_bytes) == ((), 0)


@given(
    said=st.lists(st.integers(1, 2_000), unique=True, max_size=30),
    read=st.sets(st.integers(1, 2_000), max_size=30),
)
def test_after_a_device_has_spoken_exactly_what_it_can_still_open_is_kept(
    said: list[int], read: set[int]
) -> None:
    box = outbox(*said)
    window = ReplayWindow()
    for counter in sorted(read):
        window.accept(counter)
    late = box.opened(D, window.opened())
    assert set(box.unopened(D)) == {counter for counter in said if window.is_new(counter)}
    assert not {counter for counter in late if window.is_new(counter)}
    assert box.size_bytes == 100 * len(box.unopened(D))
