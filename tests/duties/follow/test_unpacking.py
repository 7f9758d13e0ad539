"""Packed indexes: the same in whatever pieces they come, and nothing but refused where they are wrong."""

from __future__ import annotations

import gzip
import hashlib
import lzma
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.aptindexes import Listed
from p2pdist.duties.follow.unpacking import IndexStream
from p2pdist.errors import P2PDistError, PeerError

TEXT = b"Package: tool\nVersion: 1\n\n" * 300
PACKED = {"Packages.xz": lzma.compress(TEXT), "Packages.gz": gzip.compress(TEXT), "Packages": TEXT}

paths = st.sampled_from(sorted(PACKED))


def unpack(path: str, packed: bytes, *cuts: int) -> bytes:
    stream = IndexStream(Listed(path=path, size_bytes=len(packed), sha256=hashlib.sha256(packed).hexdigest()))
    edges = sorted({0, *(cut for cut in cuts if cut < len(packed)), len(packed)})
    pieces = [packed[begin:end] for begin, end in pairwise(edges)]
    data = b"".join(piece for part in pieces for piece in stream.feed(part))
    stream.finish()
    return data


@given(paths, st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_an_index_is_the_same_in_whatever_pieces_it_comes(path: str, cuts: list[int]) -> None:
    assert unpack(path, PACKED[path], *cuts) == TEXT


@given(paths, st.integers(0, 10_000), st.binary(min_size=1, max_size=8), st.integers(0, 10_000))
def test_an_altered_index_is_unpacked_to_something_or_refused(
    path: str, place: int, new: bytes, cut: int
) -> None:
    packed = PACKED[path]
    place %= len(packed)
    try:
        unpack(path, packed[:place] + new + packed[place + len(new) :], cut)
    except P2PDistError:
        return


@given(st.sampled_from(["Packages.xz", "Packages.gz"]), st.binary(max_size=200))
def test_what_is_not_packed_at_all_is_refused(path: str, data: bytes) -> None:
    with pytest.raises(PeerError):
        unpack(path, data)


@pytest.mark.parametrize("path", ["Packages.xz", "Packages.gz"])
def test_a_second_index_behind_the_first_is_refused(path: str) -> None:
    for cut in (10, len(PACKED[path])):
        with pytest.raises(PeerError):
            unpack(path, PACKED[path] * 2, cut)
