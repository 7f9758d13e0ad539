"""What nodes are given to do, and say of it, on the wire."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire import codec
from p2pdist.wire.polling import Poll
from p2pdist.wire.tasks import Assignment, TaskItem, TaskItems
from p2pdist.wire.work import decode_work, encode_work, kind_of

POLL = Poll(ranges=["10.1.0.0/24"], excluded=["10.1.0.7"], per_s=50)


def test_work_comes_back_as_it_was_and_has_a_name() -> None:
    assert decode_work(encode_work(POLL)) == POLL
    assert kind_of(POLL) == "poll"


def test_what_does_not_say_its_kind_is_no_work() -> None:
    with pytest.raises(PeerError, match="work"):
        decode_work(msgpack.packb({}))


@given(st.binary(max_size=200))
def test_garbage_is_no_work(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode_work(data)


@given(st.data())
def test_work_that_was_changed_anywhere_is_other_work_or_none(data: st.DataObject) -> None:
    changed = bytearray(encode_work(POLL))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(decode_work(bytes(changed)), Poll)
    except PeerError:
        return


def test_a_node_that_does_not_know_a_kind_of_work_still_reads_its_assignment() -> None:
    newer = msgpack.packb({"work": "of-next-year", "how": 3})
    assignment = Assignment(task="a", run=1, not_after=7, work=newer)
    assert codec.decode(codec.encode(assignment), Assignment) == assignment
    with pytest.raises(PeerError, match="of-next-year"):
        decode_work(newer)


def test_work_that_no_assignment_could_carry_is_refused_with_the_way_out() -> None:
    large = Poll(ranges=["1" * 49] * (limits.WORK_BYTES_MAX // 49))
    with pytest.raises(UsageError, match="split it"):
        encode_work(large)


def test_the_largest_items_fit_into_one_envelope() -> None:
    wide = "\U0001f4e6"
    item = TaskItem(
        subject=wide * 255,
        state="waiting",
        step=wide * limits.TASK_STEP_CHARS_MAX,
        detail=wide * limits.TASK_DETAIL_CHARS_MAX,
        size_bytes=2**53,
    )
    items = TaskItems(id="a" * 64, task="a" * 64, run=2**31 - 1, items=[item] * limits.TASK_ITEMS_AT_ONCE)
    assert (
        codec.decode(codec.encode(items, bytes_max=limits.ENVELOPE_BYTES_MAX - limits.KIB), TaskItems)
        == items
    )
