"""Header blocks: what they carry, and that nonsense in them is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.net import headers

HEADER = st.tuples(
    st.sampled_from([b":method", b":path", b":status", b"opening", b"problem"]) | st.binary(max_size=10),
    st.sampled_from([b"POST", b"200", b"AA==", b"AA="]) | st.binary(max_size=200),
)


@given(st.binary(min_size=1, max_size=2_000))
def test_what_is_put_in_comes_out(data: bytes) -> None:
    assert headers.opening_of(headers.asking("/session", data)) == data
    assert headers.problem_of(headers.breaking(data)) == data
    assert headers.path_of(headers.asking("/session", data)) == "/session"


def test_a_request_has_no_opening() -> None:
    assert headers.opening_of(headers.asking("/bundle", b"")) == b""
    assert "opening" not in str(headers.asking("/bundle", b""))


@pytest.mark.parametrize("status", [200, 403, 503])
def test_a_status_comes_out(status: int) -> None:
    assert headers.status_of(headers.answering(status)) == status


@given(st.lists(HEADER, max_size=8))
def test_whatever_stands_there_is_read_without_an_error(block: list[tuple[bytes, bytes]]) -> None:
    path = headers.path_of(block)
    assert path == "" or path.isprintable()
    assert 0 <= headers.status_of(block) <= 999
    assert isinstance(headers.opening_of(block), bytes)
    assert isinstance(headers.problem_of(block), bytes)
