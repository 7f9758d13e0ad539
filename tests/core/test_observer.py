"""What a gateway's observer answers, and whom it believes."""

from __future__ import annotations

import struct
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.observer import Observer
from p2pdist.errors import PeerError
from p2pdist.wire.frames import Endpoint
from p2pdist.wire.observation import decode_request

TOKEN = "5f" * 16
CONNECT = bytes.fromhex("0000041727101980") + struct.pack("!II", 0, 7)


def observing() -> tuple[Observer, list[tuple[str, int, Endpoint]]]:
    seen: list[tuple[str, int, Endpoint]] = []
    return Observer(lambda *what: seen.append(what), key=bytes(16), now=0.0), seen


def announce(connection: bytes, token: str = TOKEN) -> bytes:
    """As libtorrent announces: 98 bytes, and the URL's path (BEP 41)."""
    path = f"/{token}".encode()
    return connection + struct.pack("!II", 1, 8) + bytes(82) + bytes([2, len(path)]) + path


def test_who_shows_its_connection_id_is_noted_with_its_outside_endpoint() -> None:
    observer, seen = observing()
    connected = observer.handle_datagram(CONNECT, "203.0.113.7", 4_000, 0, 1.0)
    assert connected is not None
    assert connected[:8] == struct.pack("!II", 0, 7)
    noted = observer.handle_datagram(announce(connected[8:]), "203.0.113.7", 4_001, 1, 1.1)
    assert noted is not None and noted[:8] == struct.pack("!II", 1, 8)
    assert seen == [(TOKEN, 1, Endpoint(host="203.0.113.7", port=4_001))]


def test_an_invented_source_is_not_believed() -> None:
    observer, seen = observing()
    connected = observer.handle_datagram(CONNECT, "203.0.113.7", 4_000, 0, 1.0)
    assert connected is not None
    assert observer.handle_datagram(announce(connected[8:]), "203.0.113.8", 4_000, 0, 1.1) is None
    assert seen == []


def test_a_connection_id_is_good_for_some_minutes_only() -> None:
    observer, seen = observing()
    connected = observer.handle_datagram(CONNECT, "203.0.113.7", 4_000, 0, 1.0)
    assert connected is not None
    late = 1.0 + 2 * limits.OBSERVER_ID_S
    assert observer.handle_datagram(announce(connected[8:]), "203.0.113.7", 4_000, 0, late) is None
    assert seen == []


def test_a_flood_from_one_source_gets_no_more_than_its_share() -> None:
    observer, _ = observing()
    answers = [observer.handle_datagram(CONNECT, "203.0.113.7", n, 0, 1.0) for n in range(2_000)]
    assert sum(answer is not None for answer in answers) <= limits.OBSERVER_SOURCE_BURST + 1


@given(
    st.one_of(st.binary(max_size=200), st.binary(max_size=120).map(lambda tail: announce(bytes(8)) + tail))
)
def test_any_datagram_is_parsed_or_refused_and_no_answer_is_larger_than_it(data: bytes) -> None:
    with suppress(PeerError):
        decode_request(data)
    observer, _ = observing()
    answer = observer.handle_datagram(data, "2a00::1", 9, 0, 1.0)
    assert answer is None or len(answer) <= len(data)
