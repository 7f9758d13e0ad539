"""Frames on a byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, UsageError
from p2pdist.net.framing import FrameSplitter, pack_frame, unpack_frame
from p2pdist.wire.frames import Attached, MetadataVersions

FRAMES = st.lists(
    st.builds(
        MetadataVersions,
        versions=st.dictionaries(st.text(min_size=1, max_size=20), st.integers(1, 2**40), max_size=5),
    ),
    max_size=10,
)


@given(frames=FRAMES, cut=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    frames: list[MetadataVersions], cut: int
) -> None:
    stream = b"".join(map(pack_frame, frames))
    splitter = FrameSplitter()

    packed = [
        frame for start in range(0, len(stream), cut) for frame in splitter.feed(stream[start : start + cut])
    ]

    assert [unpack_frame(each) for each in packed] == frames


@pytest.mark.parametrize("length", [0, limits.FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_an_impossible_length_is_refused_before_its_bytes_arrive(length: int) -> None:
    with pytest.raises(PeerError, match=str(length)):
        list(FrameSplitter().feed(length.to_bytes(4, "big")))


def test_the_largest_frame_is_taken() -> None:
    frame = (limits.FRAME_BYTES_MAX).to_bytes(4, "big") + bytes(limits.FRAME_BYTES_MAX)

    assert list(FrameSplitter().feed(frame)) == [bytes(limits.FRAME_BYTES_MAX)]


def test_a_frame_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(UsageError, match="Attached"):
        pack_frame(Attached(carrier="a" * 32, nodes={}, gone=["a" * 32] * 40_000))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_random_bytes_are_frames_or_a_peers_fault(data: bytes) -> None:
    splitter = FrameSplitter()
    try:
        for packed in splitter.feed(data):
            unpack_frame(packed)
    except PeerError:
        pass
