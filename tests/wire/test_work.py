"""What nodes are given to do, and say of it, on the wire."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.wire import codec
from p2pdist.wire.installing import Install, InstallHost
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


_NAMES = st.text("abc.-0", min_size=1, max_size=20)
_HOSTS = st.builds(
    InstallHost,
    id=_NAMES,
    address=_NAMES,
    port=st.integers(1, 65_535),
    key=st.sampled_from(["", "SHA256:" + "a" * 43]),
    group=st.sampled_from(["/", "/emea"]),
)


@given(
    st.lists(_HOSTS, min_size=1, max_size=3),
    st.booleans(),
    st.integers(1, limits.INSTALL_PARALLEL_MAX),
    st.text(max_size=20),
)
def test_work_is_packed_alike_where_it_is_sealed_for_and_where_it_is_done(
    hosts: list[InstallHost], sudo: bool, parallel: int, config: str
) -> None:
    work = Install(hosts=hosts, target="stable/a/1/a", sudo=sudo, parallel=parallel, config=config)
    through_the_api = msgspec.json.decode(msgspec.json.encode(work), type=Install)
    stored_and_shown = decode_work(encode_work(through_the_api))
    assert encode_work(stored_and_shown) == encode_work(through_the_api) == encode_work(work)


def test_as_many_hosts_as_there_may_be_fit_into_an_assignment() -> None:
    host = InstallHost(id="d" * 40, address="fd00::1234:5678", key="SHA256:" + "a" * 43, group="/branches/x")
    encode_work(Install(hosts=[host] * limits.INSTALL_HOSTS_MAX, target="t" * 100, config="#" * 8_192))


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
