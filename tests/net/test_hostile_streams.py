"""What a neighbour may do on purpose with byte streams, from either side, and what it costs us."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.net.events import AnswerStarted, BodyEnded, RequestStarted, StreamReset
from p2pdist.net.link import Link, OfferedStream, StreamHandler
from p2pdist.wire import codec
from p2pdist.wire.requests import Problem, Torrent, TorrentRequest
from tests.net.conftest import REQUESTS
from tests.net.raw_peer import RawPeer, asking, both_sides, open_against

pytestmark = pytest.mark.slow  # many examples, a link for each

OPENING = TorrentRequest(info_hash="0" * 64)
PACKED = codec.encode(OPENING)


class Served:
    """A handler that keeps what it was offered."""

    def __init__(self, *, accept: bool = True) -> None:
        self.running = 0
        self.streams: list[Any] = []
        self.release = trio.Event()
        self._accept = accept

    @property
    def table(self) -> dict[str, StreamHandler]:
        return {"/session": StreamHandler(TorrentRequest, self._serve)}

    async def _serve(self, link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        self.running += 1
        try:
            if self._accept:
                self.streams.append(offered.accept())
            await self.release.wait()
        finally:
            self.running -= 1


async def offer(raw: Any) -> int:
    """Open a byte stream from the raw peer's side, and wait until it is accepted."""
    stream: int = raw.session.open("/session", PACKED)
    await raw.flush()
    assert (await raw.hear_on(stream, AnswerStarted)).status == 200
    return stream


# Streams that the neighbour opens ----------------------------------------------------------------------


@pytest.mark.parametrize("opening", [b"\xc1", b"\x80", b"x" * 2_000])
@both_sides
async def test_an_opening_that_makes_no_sense_is_refused(
    dialler: bool, opening: bytes, standing: Any
) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (_link, raw):
        stream = raw.session.open("/session", opening)
        await raw.flush()
        assert (await raw.hear_on(stream, AnswerStarted)).status == 400
        await raw.hear_on(stream, BodyEnded)
        problem: Problem = codec.decode(raw.body(stream), Problem)
        assert problem.family == "peer"
        assert await offer(raw)


@pytest.mark.parametrize("end", [False, True])
@both_sides
async def test_bytes_that_come_before_the_stream_is_accepted_cost_the_stream(
    dialler: bool, end: bool, standing: Any
) -> None:
    served = Served(accept=False)
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        stream = raw.session.open("/session", PACKED)
        raw.session.send(stream, b"" if end else b"impatient", end=end)
        await raw.flush()
        await raw.hear_on(stream, StreamReset)
        await trio.testing.wait_all_tasks_blocked()
        assert (served.running, link.statistics().streams, link.end_reason) == (0, 0, "")


@both_sides
async def test_only_so_many_streams_of_one_link_are_served_at_once(dialler: bool, standing: Any) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (_link, raw):
        for _ in range(limits.LINK_STREAMS_MAX - 1):
            raw.session.open("/session", PACKED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            nursery.start_soon(raw.hear_all)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert served.running == limits.LINK_BYTE_STREAMS_MAX
            nursery.cancel_scope.cancel()


@both_sides
async def test_more_streams_than_were_allowed_end_the_link(dialler: bool, standing: Any) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        raw.session._h2.remote_settings._values[3] = 1_000  # it does not care what we allow
        for _ in range(limits.LINK_STREAMS_MAX + 1):
            raw.session.open("/session", PACKED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            nursery.start_soon(raw.hear_all)
            with pytest.raises(PeerError, match="streams"):
                await anext(link.frames())
        await trio.testing.wait_all_tasks_blocked()
        assert served.running == 0


@pytest.mark.parametrize("accept", [False, True])
@both_sides
async def test_opening_streams_only_to_give_them_up_ends_the_link(
    dialler: bool, accept: bool, standing: Any
) -> None:
    served = Served(accept=accept)
    async with standing(dialler=dialler, streams=served.table) as (link, raw):

        async def churn() -> None:
            with contextlib.suppress(trio.BrokenResourceError, Unavailable):
                for _ in range(1_000):
                    stream = raw.session.open("/session", PACKED)
                    await raw.flush()
                    raw.session.reset(stream)
                    await raw.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(churn)
            nursery.start_soon(raw.hear_all)
            with pytest.raises(PeerError, match="give them up"):
                await anext(link.frames())
        await trio.testing.wait_all_tasks_blocked()
        assert served.running <= (limits.LINK_BYTE_STREAMS_MAX if accept else 0)


@both_sides
async def test_a_refused_stream_that_is_not_let_go_is_given_up(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (_link, raw):
        stream = raw.session.open("/session", PACKED)
        raw.session.send(stream, bytes(4 * limits.MIB))
        await raw.flush()
        started = trio.current_time()
        await raw.hear_on(stream, StreamReset)
        assert trio.current_time() - started <= limits.REQUEST_TIMEOUT_S + 2 * limits.LINK_WATCH_S


@both_sides
async def test_what_is_not_read_is_bounded_and_more_is_a_fault(dialler: bool, standing: Any) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        stream = await offer(raw)
        raw.session._h2.streams[stream].outbound_flow_control_window = (
            2**30
        )  # it does not care for the window
        raw.session.send(stream, bytes(2 * limits.LINK_WINDOW_BYTES))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            nursery.start_soon(raw.hear_all)
            with pytest.raises(PeerError, match="broke HTTP/2"):
                await anext(link.frames())
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError):
            await served.streams[0].receive_some()


@both_sides
async def test_a_neighbour_that_takes_nothing_makes_the_sender_wait_and_the_close_be_given_up(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        await offer(raw)
        [ours] = served.streams
        sent = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.hear_all)  # it answers pings, and never opens its window
            with trio.move_on_after(600):
                while True:
                    await ours.send_all(bytes(1_000))
                    sent += 1_000
            assert link.end_reason == "", "how long a stream may stand is its owner's business"
            assert sent <= limits.LINK_WINDOW_BYTES + limits.LINK_STREAM_QUEUE_BYTES + 1_000
            started = trio.current_time()
            await ours.aclose()
            assert trio.current_time() - started == pytest.approx(limits.REQUEST_TIMEOUT_S)
            nursery.cancel_scope.cancel()


@both_sides
async def test_a_reset_reaches_both_halves(dialler: bool, standing: Any) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        stream = await offer(raw)
        raw.session.send(stream, b"dropped with the stream")
        await raw.flush()
        raw.session.reset(stream)
        await raw.flush()
        await trio.testing.wait_all_tasks_blocked()
        [ours] = served.streams
        with pytest.raises(trio.BrokenResourceError, match="gave the stream up"):
            await ours.receive_some()
        with pytest.raises(trio.BrokenResourceError, match="gave the stream up"):
            await ours.send_all(b"x")
        served.release.set()
        await trio.testing.wait_all_tasks_blocked()
        assert link.statistics().streams == 0


@pytest.mark.parametrize(
    "problem", [b"\xc1", b"x" * 1_000, codec.encode(Problem(family="trust", what="\x1b[2J"))]
)
@both_sides
async def test_whatever_is_said_as_a_reason_is_one_of_our_errors(
    dialler: bool, problem: bytes, standing: Any
) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (_link, raw):
        stream = await offer(raw)
        raw.session.break_off(stream, problem)
        await raw.flush()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await served.streams[0].receive_some()
        assert isinstance(caught.value.__cause__, PeerError | TrustError)
        assert str(caught.value).isprintable()


@both_sides
async def test_trailers_that_no_reset_follows_end_the_stream_all_the_same(
    dialler: bool, standing: Any
) -> None:
    served = Served()
    async with standing(dialler=dialler, streams=served.table) as (link, raw):
        stream = await offer(raw)
        raw.session._h2.send_headers(stream, [("problem", "eA==")], end_stream=True)
        await raw.flush()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await served.streams[0].receive_some()
        served.release.set()
        await raw.hear_on(stream, StreamReset)
        assert link.statistics().streams == 0


# Streams that we open ----------------------------------------------------------------------------------


async def want(link: Link, **arguments: Any) -> bytes:
    """Open a stream; return the first bytes that come."""
    async with link.open_stream("/session", OPENING, **arguments) as stream:
        return bytes(await stream.receive_some())


@both_sides
async def test_a_stream_that_is_never_accepted_is_given_up(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw):
        started = trio.current_time()
        async with asking(raw, lambda: want(link, timeout_s=7)) as (stream, caught):
            await raw.hear_on(stream, StreamReset)
        assert trio.current_time() - started == pytest.approx(7)
        assert link.statistics().streams == 0
    assert isinstance(caught[0], Unavailable)
    assert "did not accept /session within 7 s" in str(caught[0])


@both_sides
async def test_a_neighbour_that_falls_silent_instead_of_accepting_is_given_up_within_seconds(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, _raw):
        started = trio.current_time()
        with pytest.raises(Unavailable, match="nothing was heard"):
            await want(link)
        silent_s = limits.LINK_AWAITED_S + 2 * limits.LINK_ANSWER_S
        assert trio.current_time() - started == pytest.approx(silent_s, abs=0.1)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, b"", PeerError),
        (403, b"not a problem", PeerError),
        (403, bytes(limits.REQUEST_BYTES_MAX + 1), PeerError),
        (204, b"x", PeerError),
        (503, codec.encode(Problem(family="unavailable", what="later")), Unavailable),
        (403, codec.encode(Problem(family="trust", what="no")), TrustError),
    ],
)
@both_sides
async def test_whatever_comes_back_is_a_stream_or_one_of_our_errors(
    dialler: bool, status: int, body: bytes, kind: type[Exception], standing: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw):
        async with asking(raw, lambda: want(link)) as (stream, caught):
            raw.session.answer(stream, status)
            raw.session.send(stream, body, end=True)
            await raw.flush()
        assert (link.statistics().streams, link.end_reason) == (0, "")
    assert isinstance(caught[0], kind)


@both_sides
async def test_bytes_that_come_right_behind_the_answer_belong_to_the_stream(
    dialler: bool, standing: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw), asking(raw, lambda: want(link)) as (stream, caught):
        raw.session.answer(stream, 200)
        raw.session.send(stream, b"at once", end=True)
        await raw.flush()
    assert caught == [b"at once"]


@both_sides
async def test_a_stream_that_is_answered_twice_ends_the_link(dialler: bool, standing: Any) -> None:
    async with standing(dialler=dialler) as (link, raw), asking(raw, lambda: want(link)) as (stream, caught):
        raw.session.answer(stream, 200)
        await raw.flush()
        raw.session._h2.streams[stream].state_machine._headers_sent = False
        raw.session._h2.streams[stream].state_machine.headers_sent = None
        raw.session.answer(stream, 200)
        await raw.flush()
    assert isinstance(caught[0], trio.BrokenResourceError)
    assert isinstance(caught[0].__cause__, PeerError)


@both_sides
async def test_a_refusal_with_a_reset_or_a_reason_in_trailers_is_heard(dialler: bool, standing: Any) -> None:
    for reason in (b"", codec.encode(Problem(family="trust", what="no"))):
        async with (
            standing(dialler=dialler) as (link, raw),
            asking(raw, lambda: want(link)) as (stream, caught),
        ):
            if reason:
                raw.session.answer(stream, 403)
                raw.session.break_off(stream, reason)
            else:
                raw.session.reset(stream)
            await raw.flush()
        assert isinstance(caught[0], TrustError if reason else Unavailable)


# Anything at all ---------------------------------------------------------------------------------------

NUMBER = st.integers(0, 7)
ACTION = st.one_of(
    st.tuples(
        st.just("open"),
        st.sampled_from(["/session", "/torrent", "/nothing"]),
        st.sampled_from([b"", PACKED, b"\xc1"]),
    ),
    st.tuples(st.just("answer"), NUMBER, st.sampled_from([200, 204, 403])),
    st.tuples(st.just("send"), NUMBER, st.binary(max_size=60) | st.just(PACKED), st.booleans()),
    st.tuples(st.just("break_off"), NUMBER, st.sampled_from([b"x", PACKED])),
    st.tuples(st.just("reset"), NUMBER),
    st.tuples(st.just("consumed"), NUMBER, st.integers(0, 100_000)),
)


def act(raw: RawPeer, action: tuple[Any, ...]) -> None:
    """Do what one action says, on a stream that either side has opened."""
    kind, *arguments = action
    started = [event.stream for event in raw.events if isinstance(event, RequestStarted)]
    opened = raw.opened
    with contextlib.suppress(Unavailable):
        if kind == "open":
            opened.append(raw.session.open(*arguments))
        elif streams := [*started, *opened]:
            stream = streams[arguments[0] % len(streams)]
            if kind == "send":
                raw.session.send(stream, arguments[1], end=arguments[2])
            else:
                getattr(raw.session, kind)(stream, *arguments[1:])


@given(actions=st.lists(ACTION, max_size=16), dialler=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_a_neighbour_does_on_streams_is_its_own_fault_or_harmless(
    server_certificate: Any, actions: list[tuple[Any, ...]], dialler: bool
) -> None:
    async def echo(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        stream = offered.accept()
        while data := await stream.receive_some():
            await stream.send_all(data)

    async def ask(link: Link) -> None:
        with contextlib.suppress(P2PDistError):
            await link.request("/torrent", OPENING, Torrent)

    async def open_one(link: Link) -> None:
        with contextlib.suppress(PeerError, TrustError, Unavailable, trio.BrokenResourceError):
            await want(link)

    async def run() -> None:
        table = {"/session": StreamHandler(TorrentRequest, echo)}
        remote = server_certificate
        async with open_against(remote, dialler=dialler, requests=REQUESTS, streams=table) as (link, raw):
            await raw.stand(link)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(raw.hear_all)
                for _ in range(2):
                    nursery.start_soon(open_one, link)
                    nursery.start_soon(ask, link)
                for action in actions:
                    await trio.testing.wait_all_tasks_blocked()
                    act(raw, action)
                    with contextlib.suppress(trio.BrokenResourceError):
                        await raw.flush()
                await trio.testing.wait_all_tasks_blocked()
                link.abort("test")
            await trio.testing.wait_all_tasks_blocked()
            assert (link.statistics().streams, link.statistics().requests_under_way) == (0, 0)

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_streams_of_one_side_fit_into_what_http2_allows_it() -> None:
    assert limits.LINK_BYTE_STREAMS_MAX + limits.LINK_QUESTIONS_MAX + 1 == limits.LINK_STREAMS_MAX
