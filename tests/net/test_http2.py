"""The HTTP/2 session without I/O: what it carries, bounds and refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import hyperframe.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import PeerError, Unavailable
from p2pdist.net.events import (
    AnswerStarted,
    BodyEnded,
    BodyReceived,
    PaceSet,
    PingAnswered,
    RequestStarted,
    SessionEnded,
    SessionEvent,
    SessionReady,
    StreamBroken,
    StreamReset,
)
from p2pdist.net.http2 import CHUNK_BYTES, Session

pytestmark = pytest.mark.slow  # a connection for each


class Pair:
    """A dialler's and an acceptor's session with nothing between them."""

    def __init__(self) -> None:
        self.dialler = Session(dialler=True)
        self.acceptor = Session(dialler=False)
        self.settle()

    def settle(self) -> tuple[list[SessionEvent], list[SessionEvent]]:
        """Pass bytes until both are quiet; return what the dialler and the acceptor heard."""
        heard: tuple[list[SessionEvent], list[SessionEvent]] = ([], [])
        moved = True
        while moved:
            moved = False
            for source, sink, events in (
                (self.dialler, self.acceptor, heard[1]),
                (self.acceptor, self.dialler, heard[0]),
            ):
                while data := source.output():
                    moved = True
                    events += sink.receive(data)
        return heard


def body_of(events: list[SessionEvent], stream: int) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, BodyReceived) and e.stream == stream)


def raw_dialler() -> h2.connection.H2Connection:
    """Return a plain HTTP/2 client, which can misbehave."""
    return raw_peer(dialler=True)


def raw_peer(*, dialler: bool) -> h2.connection.H2Connection:
    """Return one plain end of HTTP/2, which can misbehave."""
    peer = h2.connection.H2Connection(h2.config.H2Configuration(client_side=dialler))
    peer.initiate_connection()
    return peer


def greeted(peer: h2.connection.H2Connection, *, dialler: bool) -> Session:
    """Return the session of the other end, which has heard that *peer* speaks HTTP/2."""
    session = Session(dialler=not dialler)
    session.receive(peer.data_to_send())
    return session


FIRST = {True: 1, False: 2}  # stream of a dialler, of an acceptor
HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "p2pdist"), (":path", "/x")]


def test_both_sides_learn_that_the_other_speaks_http2() -> None:
    dialler, acceptor = Session(dialler=True), Session(dialler=False)

    heard = acceptor.receive(dialler.output())
    heard_back = dialler.receive(acceptor.output())

    assert heard == [SessionReady()]
    assert heard_back == [SessionReady()]


@pytest.mark.parametrize("acceptor_asks", [False, True])
def test_a_request_and_its_answer_arrive_whole(acceptor_asks: bool) -> None:
    pair = Pair()
    asker, answerer = (pair.acceptor, pair.dialler) if acceptor_asks else (pair.dialler, pair.acceptor)
    stream = asker.open("/bundle")
    asker.send(stream, b"question", end=True)

    asked = [event for heard in pair.settle() for event in heard]
    answerer.answer(stream, 200)
    answerer.send(stream, b"answer", end=True)
    answered = [event for heard in pair.settle() for event in heard]

    assert asker.opened_here(stream)
    assert not answerer.opened_here(stream)

    assert asked == [
        RequestStarted(stream=stream, path="/bundle"),
        BodyReceived(stream=stream, data=b"question"),
        BodyEnded(stream=stream),
    ]
    assert answered == [
        AnswerStarted(stream=stream, status=200),
        BodyReceived(stream=stream, data=b"answer"),
        BodyEnded(stream=stream),
    ]


def test_both_sides_open_streams_at_the_same_moment() -> None:
    dialler, acceptor = Session(dialler=True), Session(dialler=False)
    theirs, ours = acceptor.open("/first"), dialler.open("/control")

    heard = acceptor.receive(dialler.output())
    heard_back = dialler.receive(acceptor.output())

    assert heard == [SessionReady(), RequestStarted(stream=ours, path="/control")]
    assert heard_back == [SessionReady(), RequestStarted(stream=theirs, path="/first")]


def test_what_a_stream_is_for_stands_in_its_header() -> None:
    pair = Pair()
    opening = bytes(range(256)) * (limits.LINK_OPENING_BYTES_MAX // 256)
    stream = pair.acceptor.open("/session", opening)

    assert pair.settle()[0] == [RequestStarted(stream=stream, path="/session", opening=opening)]


@pytest.mark.parametrize("by_opener", [True, False])
def test_a_stream_that_is_broken_off_says_why_and_drops_what_waits(by_opener: bool) -> None:
    pair = Pair()
    stream = pair.dialler.open("/session", b"x")
    pair.settle()
    pair.acceptor.answer(stream, 200)
    pair.settle()
    side, other = (pair.dialler, pair.acceptor) if by_opener else (pair.acceptor, pair.dialler)
    side.send(stream, bytes(3 * limits.MIB))
    pair.settle()

    side.break_off(stream, b"you stand outside the scope")
    heard = [event for each in pair.settle() for event in each]

    assert heard == [
        StreamBroken(stream=stream, problem=b"you stand outside the scope"),
        BodyEnded(stream=stream),
        StreamReset(stream=stream, code=h2.errors.ErrorCodes.CANCEL),
    ]
    assert not side.unfinished(stream)
    other.break_off(stream, b"too late; nothing happens")
    assert pair.settle() == ([], [])


def test_a_sender_stops_at_the_window_and_goes_on_when_the_reader_has_consumed() -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    sent = bytes(range(256)) * (3 * limits.LINK_WINDOW_BYTES // 256)
    pair.dialler.send(stream, sent, end=True)

    _, heard = pair.settle()
    received = body_of(heard, stream)
    assert len(received) == limits.LINK_WINDOW_BYTES
    assert pair.dialler.waiting(stream)[1] == len(sent) - len(received)

    while not any(isinstance(event, BodyEnded) for event in heard):
        before = len(received)
        pair.acceptor.consumed(stream, 100_000)
        _, heard = pair.settle()
        received += body_of(heard, stream)
        assert len(received) - before <= 100_000 + 64 * limits.KIB
    assert received == sent


def test_a_reader_that_consumes_nothing_of_one_stream_does_not_hold_up_another() -> None:
    pair = Pair()
    slow = [pair.dialler.open("/slow") for _ in range(8)]
    for stream in slow:
        pair.dialler.send(stream, bytes(2 * limits.MIB), end=True)
    pair.settle()

    quick = pair.dialler.open("/quick")
    pair.dialler.send(quick, bytes(500_000), end=True)
    _, heard = pair.settle()

    assert len(body_of(heard, quick)) == 500_000
    assert BodyEnded(stream=quick) in heard


def test_the_urgent_stream_is_sent_before_the_others() -> None:
    pair = Pair()
    big = pair.dialler.open("/big")
    urgent = pair.dialler.open("/control")
    pair.dialler.urgent = urgent
    pair.settle()
    pair.dialler.send(big, bytes(500_000), end=True)
    pair.dialler.send(urgent, b"now")

    first = pair.acceptor.receive(pair.dialler.output())

    assert first[0] == BodyReceived(stream=urgent, data=b"now")


def test_streams_take_turns() -> None:
    pair = Pair()
    streams = [pair.dialler.open("/x") for _ in range(3)]
    pair.settle()
    for stream in streams:
        pair.dialler.send(stream, bytes(4 * CHUNK_BYTES), end=True)

    order = [pair.acceptor.receive(pair.dialler.output())[0].stream for _ in range(6)]  # type: ignore[union-attr]  # bodies only

    assert order == streams * 2


def test_output_comes_in_portions_of_one_tls_record() -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    pair.settle()
    pair.dialler.send(stream, bytes(100_000), end=True)

    assert len(pair.dialler.output()) == 16 * limits.KIB


def test_small_parts_travel_together() -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    pair.settle()
    for _ in range(100):
        pair.dialler.send(stream, b"0123456789")

    assert pair.acceptor.receive(pair.dialler.output()) == [
        BodyReceived(stream=stream, data=b"0123456789" * 100)
    ]


def test_giving_a_stream_up_drops_what_waits_on_it_and_tells_the_other_side() -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    pair.dialler.send(stream, bytes(4 * limits.MIB), end=True)
    pair.settle()

    pair.dialler.reset(stream)
    _, heard = pair.settle()

    assert heard == [StreamReset(stream=stream, code=h2.errors.ErrorCodes.CANCEL)]
    assert not pair.dialler.unfinished(stream)
    pair.acceptor.answer(stream, 200)  # too late; nothing happens
    pair.acceptor.send(stream, b"late", end=True)
    assert pair.settle() == ([], [])
    assert not pair.acceptor.unfinished(stream)


def test_a_goodbye_arrives_with_its_reason() -> None:
    pair = Pair()
    pair.acceptor.close("you misbehaved")
    pair.acceptor.close("said twice")

    heard, _ = pair.settle()

    assert heard == [SessionEnded(code=h2.errors.ErrorCodes.PROTOCOL_ERROR, reason="you misbehaved")]
    with pytest.raises(Unavailable):
        pair.dialler.open("/x")


def test_both_sides_may_say_goodbye_at_the_same_moment() -> None:
    pair = Pair()
    pair.acceptor.close()
    pair.dialler.close()

    heard, heard_back = pair.settle()

    assert [type(event) for event in (*heard, *heard_back)] == [SessionEnded, SessionEnded]


def test_what_is_under_way_when_we_say_goodbye_is_still_taken_in() -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    pair.settle()
    pair.acceptor.answer(stream, 200)
    pair.acceptor.send(stream, bytes(200_000))
    under_way = []
    while data := pair.acceptor.output():
        under_way.append(data)

    pair.dialler.close()
    goodbye = pair.dialler.output()
    for data in under_way:
        pair.dialler.receive(data)
        assert pair.dialler.output() == b""

    assert [type(event) for event in pair.acceptor.receive(goodbye)] == [SessionEnded]


def test_a_ping_is_answered() -> None:
    pair = Pair()
    pair.acceptor.ping()

    heard, heard_back = pair.settle()

    assert heard == []
    assert heard_back == [PingAnswered()]


@pytest.mark.parametrize("dialler", [True, False])
def test_more_streams_than_the_other_side_allows_are_not_opened(dialler: bool) -> None:
    pair = Pair()
    side, other = (pair.dialler, pair.acceptor) if dialler else (pair.acceptor, pair.dialler)
    for _ in range(limits.LINK_STREAMS_MAX):
        side.open("/x")

    with pytest.raises(Unavailable, match="/x"):
        side.open("/x")
    other.open("/x")  # which counts its own


@pytest.mark.parametrize("dialler", [True, False])
def test_a_peer_that_opens_more_streams_than_allowed_is_at_fault(dialler: bool) -> None:
    peer = raw_peer(dialler=dialler)
    session = greeted(peer, dialler=dialler)
    for number in range(limits.LINK_STREAMS_MAX + 1):
        peer.send_headers(FIRST[dialler] + 2 * number, HEADERS)

    with pytest.raises(PeerError):
        session.receive(peer.data_to_send())
    assert session.output()  # it is told


@pytest.mark.parametrize("dialler", [True, False])
def test_a_peer_that_opens_a_stream_in_our_name_is_at_fault(dialler: bool) -> None:
    peer = raw_peer(dialler=dialler)
    session = greeted(peer, dialler=dialler)
    block = peer.encoder.encode(HEADERS)
    frame = hyperframe.frame.HeadersFrame(FIRST[not dialler], data=block, flags=["END_HEADERS"])

    with pytest.raises(PeerError):
        session.receive(frame.serialize())


@pytest.mark.parametrize("acceptor_asks", [False, True])
def test_a_second_answer_is_a_fault(acceptor_asks: bool) -> None:
    pair = Pair()
    asker, answerer = (pair.acceptor, pair.dialler) if acceptor_asks else (pair.dialler, pair.acceptor)
    stream = asker.open("/x")
    pair.settle()
    answerer.answer(stream, 200)
    asker.receive(answerer.output())
    block = answerer._h2.encoder.encode([(":status", "200")])
    again = hyperframe.frame.HeadersFrame(stream, data=block, flags=["END_HEADERS"])

    with pytest.raises(PeerError):
        asker.receive(again.serialize())


@pytest.mark.parametrize("dialler", [True, False])
def test_a_peer_that_ignores_the_window_is_at_fault(dialler: bool) -> None:
    peer = raw_peer(dialler=dialler)
    session = greeted(peer, dialler=dialler)
    peer.send_headers(FIRST[dialler], HEADERS)
    session.receive(peer.data_to_send())

    def flood() -> None:
        for _ in range(2 * limits.LINK_WINDOW_BYTES // 16_384):
            frame = hyperframe.frame.DataFrame(FIRST[dialler], data=bytes(16_384))
            session.receive(frame.serialize())
            session.output()

    with pytest.raises(PeerError):
        flood()


def ping_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    while True:
        yield hyperframe.frame.PingFrame(0, opaque_data=b"12345678").serialize() * 100


def settings_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    while True:
        yield hyperframe.frame.SettingsFrame(0).serialize() * 100


def empty_data_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    peer.send_headers(first, HEADERS)
    yield peer.data_to_send()
    while True:
        yield hyperframe.frame.DataFrame(first).serialize() * 100


def reset_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    number = first
    while True:
        peer.send_headers(number, HEADERS)
        peer.reset_stream(number)
        number += 2
        yield peer.data_to_send()


def broken_stream_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    number = first
    while True:
        peer.send_headers(number, HEADERS)
        peer.send_headers(number, [("problem", "eA==")], end_stream=True)
        peer.reset_stream(number)
        number += 2
        yield peer.data_to_send()


def unknown_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    while True:
        yield b"\x00\x00\x04\xee\x00\x00\x00\x00\x00abcd" * 100


def continuation_flood(peer: h2.connection.H2Connection, first: int) -> Iterator[bytes]:
    yield hyperframe.frame.HeadersFrame(first, data=peer.encoder.encode(HEADERS)).serialize()
    while True:
        yield hyperframe.frame.ContinuationFrame(
            first, data=peer.encoder.encode([("a", "b" * 999)])
        ).serialize()


@pytest.mark.parametrize(
    "flood",
    [
        ping_flood,
        settings_flood,
        empty_data_flood,
        reset_flood,
        broken_stream_flood,
        unknown_flood,
        continuation_flood,
    ],
)
@pytest.mark.parametrize("dialler", [True, False])
@pytest.mark.parametrize("reads", [True, False])
def test_a_flood_of_control_traffic_is_cut_off_early(flood, dialler: bool, reads: bool) -> None:  # type: ignore[no-untyped-def]
    peer = raw_peer(dialler=dialler)
    session = greeted(peer, dialler=dialler)
    taken = 0

    def drown() -> None:
        nonlocal taken
        for data in flood(peer, FIRST[dialler]):
            session.receive(data)
            taken += len(data)
            if reads:
                session.output()

    with pytest.raises(PeerError):
        drown()
    assert taken <= limits.LINK_OVERHEAD_BYTES


def test_a_header_bomb_is_refused() -> None:
    client, acceptor = raw_dialler(), Session(dialler=False)
    value = "v" * 1_000
    client.send_headers(1, [*HEADERS, *[("bomb", value)] * 1_000])  # small packed, a megabyte unpacked

    with pytest.raises(PeerError):
        acceptor.receive(client.data_to_send())


def test_a_year_of_keepalives_is_no_flood() -> None:
    pair = Pair()
    for _ in range(2_500):
        pair.dialler.ping()
        pair.acceptor.ping()
        pair.settle()
        pair.dialler.forgive()
        pair.acceptor.forgive()


def test_streams_broken_off_now_and_then_are_no_flood() -> None:
    pair = Pair()
    for _ in range(3 * limits.LINK_RESETS_MAX):
        stream = pair.acceptor.open("/session", b"x")
        pair.settle()
        pair.dialler.answer(stream, 200)
        pair.dialler.send(stream, bytes(1_000))
        pair.settle()
        pair.acceptor.break_off(stream, b"why")
        pair.settle()


def test_requests_given_up_now_and_then_are_no_flood() -> None:
    pair = Pair()
    for number in range(3 * limits.LINK_RESETS_MAX):
        stream = pair.dialler.open("/x")
        pair.dialler.send(stream, b"question", end=True)
        pair.settle()
        if number % 2:
            pair.dialler.reset(stream)
        else:
            pair.acceptor.answer(stream, 200)
            pair.acceptor.send(stream, b"answer", end=True)
        pair.settle()


@pytest.mark.parametrize(
    "headers",
    [
        [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/bundle")],
        [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/" + "x" * 500)],
    ],
)
def test_a_request_that_makes_no_sense_has_no_path(headers: list[tuple[str, str]]) -> None:
    client, acceptor = raw_dialler(), Session(dialler=False)
    client.send_headers(1, headers)

    assert acceptor.receive(client.data_to_send())[-1] == RequestStarted(stream=1, path="")


def test_many_requests_leave_nothing_behind() -> None:
    pair = Pair()
    for _ in range(500):
        stream = pair.dialler.open("/x")
        pair.dialler.send(stream, b"question", end=True)
        pair.settle()
        pair.acceptor.consumed(stream, 8)
        pair.acceptor.answer(stream, 200)
        pair.acceptor.send(stream, b"answer", end=True)
        pair.settle()
        pair.dialler.consumed(stream, 6)

    for session in (pair.dialler, pair.acceptor):
        assert set(session._owed) == {0}
        assert not session._outgoing
        assert len(session._h2._closed_streams) <= 256


@given(chunks=st.lists(st.binary(max_size=40_000), max_size=12), cut=st.integers(1, 5_000))
@settings(max_examples=40, deadline=None)
def test_a_body_arrives_as_it_was_sent_however_the_bytes_are_cut(chunks: list[bytes], cut: int) -> None:
    pair = Pair()
    stream = pair.dialler.open("/x")
    for chunk in chunks:
        pair.dialler.send(stream, chunk)
    pair.dialler.send(stream, b"", end=True)

    events: list[SessionEvent] = []
    while data := pair.dialler.output():
        for start in range(0, len(data), cut):
            events += pair.acceptor.receive(data[start : start + cut])

    assert body_of(events, stream) == b"".join(chunks)
    assert events[-1] == BodyEnded(stream=stream)


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_random_bytes_are_a_peers_fault_or_harmless(
    chunks: list[bytes], dialler: bool, greeted: bool
) -> None:
    session = Session(dialler=dialler)
    if greeted:
        session.receive(Session(dialler=not dialler).output())
    for chunk in chunks:
        try:
            session.receive(chunk)
        except PeerError:
            break
        session.output()


FRAME = st.builds(
    lambda kind, flags, stream, body: (
        len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    ),
    st.integers(0, 12),
    st.integers(0, 255),
    st.integers(0, 9),
    st.binary(max_size=60),
)


@given(st.lists(FRAME, max_size=20), st.booleans())
@settings(max_examples=100, deadline=None)
def test_random_frames_are_a_peers_fault_or_harmless(frames: list[bytes], dialler: bool) -> None:
    pair = Pair()
    streams = [pair.dialler.open("/x") for _ in range(3)]
    pair.settle()
    for stream in streams[:2]:
        pair.acceptor.answer(stream, 200)
        pair.acceptor.send(stream, b"part")
    pair.settle()
    session = pair.dialler if dialler else pair.acceptor
    try:
        for frame in frames:
            if any(isinstance(event, SessionEnded) for event in session.receive(frame)):
                break
            session.output()
    except PeerError:
        pass
    session.close()
    session.output()


@given(st.data(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_mutated_conversation_is_a_peers_fault_or_harmless(data: st.DataObject, dialler: bool) -> None:
    peer = raw_peer(dialler=dialler)
    session = Session(dialler=not dialler)
    first = FIRST[dialler]
    for number in (first, first + 2, first + 4):
        peer.send_headers(number, HEADERS)
        peer.send_data(number, b"question", end_stream=number == first)
    peer.ping(b"12345678")
    peer.send_headers(first + 2, [("problem", "d2h5")], end_stream=True)
    peer.reset_stream(first + 4)
    conversation = bytearray(peer.data_to_send())
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(24 if dialler else 0, len(conversation) - 1))
        conversation[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PeerError):
        session.receive(bytes(conversation))
    session.output()


def test_how_often_the_acceptor_may_be_asked_for_a_sign_of_life_arrives_whenever_it_is_said() -> None:
    dialler, acceptor = Session(dialler=True), Session(dialler=False)
    acceptor.set_pace(3)
    assert dialler.receive(acceptor.output()) == [SessionReady(), PaceSet(seconds=3)]
    acceptor.set_pace(20)
    assert dialler.receive(acceptor.output()) == [PaceSet(seconds=20)]
    assert acceptor.receive(dialler.output()) == [SessionReady()]
