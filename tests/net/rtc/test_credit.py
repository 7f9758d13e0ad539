"""Flow control: neither side ever has more outstanding than the window, whatever it does."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.net.rtc.credit import CLOSE, Close, Credit, Data, Flow, cost, parse_frame


@given(st.binary(max_size=64))
def test_any_message_is_a_frame_or_the_peers_fault(message: bytes) -> None:
    with suppress(PeerError):
        parse_frame(message)


@given(st.lists(st.tuples(st.sampled_from(["send", "carry", "read"]), st.integers(1, 40_000)), max_size=300))
def test_what_was_sent_arrives_and_never_exceeds_the_window(steps: list[tuple[str, int]]) -> None:
    ours, theirs = Flow(), Flow()
    wire: deque[bytes] = deque()
    inbox: deque[int] = deque()
    read = 0
    for what, size in steps:
        if what == "send" and (fits := min(size, ours.sendable_bytes)):
            wire.append(ours.send(bytes(fits)))
        elif what == "carry" and wire:
            frame = parse_frame(wire.popleft())
            theirs.receive(frame)
            assert isinstance(frame, Data)
            inbox.append(len(frame.data))
        elif what == "read" and inbox:
            read += inbox[0]
            if grant := theirs.consume(inbox.popleft()):
                ours.receive(parse_frame(grant))
        outstanding = sum(len(frame) - 1 for frame in wire) + sum(inbox)
        assert outstanding == ours.sent_bytes - read
        assert (
            sum(map(cost, inbox)) + sum(cost(len(frame) - 1) for frame in wire) <= limits.PUNCH_WINDOW_BYTES
        )


def test_a_reader_that_keeps_up_never_starves_the_sender() -> None:
    ours, theirs = Flow(), Flow()
    for _ in range(10_000):
        assert ours.sendable_bytes, "there is always credit"
        frame = parse_frame(ours.send(b"k"))
        theirs.receive(frame)
        if grant := theirs.consume(1):
            ours.receive(parse_frame(grant))


def test_data_beyond_the_credit_is_the_peers_fault() -> None:
    flow = Flow()
    for _ in range(limits.PUNCH_WINDOW_BYTES // limits.PUNCH_FRAME_BYTES):
        flow.receive(Data(bytes(limits.PUNCH_FRAME_BYTES)))
    with pytest.raises(PeerError, match="credit was left for 0"):
        flow.receive(Data(b"k"))


def test_many_short_frames_are_bounded_like_few_long_ones() -> None:
    flow = Flow()
    for _ in range(limits.PUNCH_WINDOW_BYTES // limits.PUNCH_FRAME_COST_MIN):
        flow.receive(Data(b"k"))
    with pytest.raises(PeerError, match="credit"):
        flow.receive(Data(b"k"))


@pytest.mark.parametrize("amount", [0, 1, limits.PUNCH_WINDOW_BYTES, 2**32 - 1])
def test_credit_for_what_was_never_sent_is_the_peers_fault(amount: int) -> None:
    with pytest.raises(PeerError, match="was not sent"):
        Flow().receive(Credit(amount))


@pytest.mark.parametrize("frame", [Data(b"k"), Close()])
def test_nothing_may_follow_the_close(frame: Data | Close) -> None:
    flow = Flow()
    flow.receive(parse_frame(CLOSE))
    with pytest.raises(PeerError, match="after the end"):
        flow.receive(frame)


def test_credit_may_follow_the_close_because_the_reader_goes_on() -> None:
    flow = Flow()
    flow.send(bytes(limits.PUNCH_FRAME_BYTES))
    flow.receive(Close())
    flow.receive(Credit(limits.PUNCH_FRAME_BYTES))


def test_sending_without_credit_is_our_own_mistake() -> None:
    with pytest.raises(UsageError):
        Flow().send(bytes(limits.PUNCH_FRAME_BYTES + 1))
