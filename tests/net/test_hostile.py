"""What a neighbour may do to a link on purpose, and what it costs us: one connection, no more."""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import Any

import h2.config
import h2.connection
import hyperframe.frame
import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.net.events import AnswerStarted, BodyEnded, RequestStarted, SessionEnded, StreamReset
from p2pdist.net.framing import pack_frame
from p2pdist.net.http2 import Session
from p2pdist.net.link import Link, RequestHandler, open_link, open_stranger_link
from p2pdist.net.tls import TlsIdentity, client_context, server_context
from p2pdist.wire import codec
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import Problem, Torrent, TorrentRequest
from tests.net.raw_peer import asking, both_sides

pytestmark = pytest.mark.slow  # real processes, many kills or a whole server: not in the fast subset

ASKED = TorrentRequest(info_hash="0" * 64)


async def still_serves(server: Any, fleet: Any) -> bool:
    """Whether a well-behaved member is served as ever."""
    async with open_link(server.host, server.port, identity=fleet.identity(), expect=server.node) as link:
        return bool(await link.request("/torrent", ASKED, Torrent))


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    """Read until the other side closes, in whatever way."""
    received = b""
    with contextlib.suppress(trio.BrokenResourceError):
        while data := await stream.receive_some(65_536):
            received += data
    return received


async def tls_dial(server: Any, identity: Any) -> trio.SSLStream[trio.SocketStream]:
    """Shake hands like a member, and say nothing yet."""
    tcp = await trio.open_tcp_stream(server.host, server.port)
    stream = trio.SSLStream(tcp, client_context(identity))
    await stream.do_handshake()
    return stream


async def tcp_with_a_greeting(server: Any, identity: Any) -> trio.SocketStream:
    """Begin to shake hands."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_context(identity).wrap_bio(incoming, outgoing).do_handshake()
    tcp = await trio.open_tcp_stream(server.host, server.port)
    await tcp.send_all(outgoing.read())
    return tcp


async def wait_cut(stream: trio.abc.ReceiveStream, cut: trio.Event) -> None:
    """Set *cut* when the other side has closed, in whatever way."""
    await read_to_end(stream)
    cut.set()


class Knocks:
    """An identity to serve with, which is asked for when a connection has been accepted: it counts them."""

    def __init__(self, identity: TlsIdentity) -> None:
        self._identity = identity
        self.count = -1  # the fixture asks for it once
        self._more = trio.Event()

    def __call__(self) -> TlsIdentity:
        self.count += 1
        self._more.set()
        self._more = trio.Event()
        return self._identity

    async def wait(self, count: int) -> None:
        """Wait until so many connections have been accepted, and whoever serves them waits for a word."""
        while self.count < count:
            await self._more.wait()
        await trio.testing.wait_all_tasks_blocked()


# Before there is a link ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", os.urandom(4_000)]
)
async def test_garbage_instead_of_tls_ends_one_connection(garbage: bytes, serving: Any, fleet: Any) -> None:
    async with serving() as server:
        async with await trio.open_tcp_stream(server.host, server.port) as tcp:
            with contextlib.suppress(trio.BrokenResourceError):
                await tcp.send_all(garbage)
                await tcp.send_eof()
            await read_to_end(tcp)
        assert await still_serves(server, fleet)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/1.0", os.urandom(4_000)])
async def test_garbage_instead_of_http2_ends_one_connection(garbage: bytes, serving: Any, fleet: Any) -> None:
    async with serving() as server:
        stream = await tls_dial(server, fleet.identity())
        await stream.send_all(garbage)
        await read_to_end(stream)
        await trio.aclose_forcefully(stream)
        assert await still_serves(server, fleet)
        assert len(server.links) == 0


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", os.urandom(4_000)])
async def test_a_dialler_that_gets_garbage_instead_of_tls_names_the_address(
    garbage: bytes, fleet: Any
) -> None:
    async def serve(tcp: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the dialler may have hung up on it already
            await tcp.send_all(garbage)
            await tcp.send_eof()
        await read_to_end(tcp)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with pytest.raises(PeerError, match=f"127.0.0.1:{port}"):
            async with open_link("127.0.0.1", port, identity=fleet.identity(), expect=None):
                pass
        nursery.cancel_scope.cancel()


async def test_a_dialler_that_gets_garbage_instead_of_http2_names_the_node(fleet: Any) -> None:
    identity = fleet.identity()

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await read_to_end(stream)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, server_context(identity), host="127.0.0.1")
        port = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with pytest.raises(PeerError, match=fleet.node_of(identity)):
            async with open_link("127.0.0.1", port, identity=fleet.identity(), expect=None):
                pass
        nursery.cancel_scope.cancel()


async def test_a_connection_that_says_nothing_is_cut_when_the_time_for_a_handshake_is_over(
    serving: Any, fleet: Any, mock_clock: trio.testing.MockClock
) -> None:
    knocks = Knocks(fleet.identity())
    async with serving(identity=knocks) as server, trio.open_nursery() as nursery:
        tcp = await trio.open_tcp_stream(server.host, server.port)
        await knocks.wait(1)
        cut = trio.Event()
        nursery.start_soon(wait_cut, tcp, cut)
        mock_clock.jump(limits.LINK_HANDSHAKE_S - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not cut.is_set()
        mock_clock.jump(1)
        await cut.wait()
        await tcp.aclose()


async def test_a_handshake_in_small_drops_is_cut_at_the_same_time(
    serving: Any, fleet: Any, mock_clock: trio.testing.MockClock
) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    knocks = Knocks(fleet.identity())
    async with serving(identity=knocks) as server, trio.open_nursery() as nursery:
        tcp = await trio.open_tcp_stream(server.host, server.port)
        await knocks.wait(1)
        cut = trio.Event()
        nursery.start_soon(wait_cut, tcp, cut)
        for second in range(int(limits.LINK_HANDSHAKE_S)):
            assert not cut.is_set()
            await tcp.send_all(hello[second : second + 1])
            mock_clock.jump(1)
            await trio.testing.wait_all_tasks_blocked()
        await cut.wait()
        await tcp.aclose()


@pytest.mark.parametrize("greeting", [b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
async def test_a_member_that_never_opens_the_link_is_cut_at_the_same_time(
    greeting: bytes, serving: Any, fleet: Any, mock_clock: trio.testing.MockClock
) -> None:
    async with serving() as server, trio.open_nursery() as nursery:
        stream = await tls_dial(server, fleet.identity())
        await stream.send_all(greeting)
        cut = trio.Event()
        nursery.start_soon(wait_cut, stream, cut)
        mock_clock.jump(limits.LINK_HANDSHAKE_S - 1)
        await trio.testing.wait_all_tasks_blocked()
        assert not cut.is_set()
        mock_clock.jump(1)
        mock_clock.autojump_threshold = 0.05  # to say goodbye takes time, too
        await cut.wait()
        await trio.aclose_forcefully(stream)


async def test_a_dialler_does_not_wait_for_a_silent_server(fleet: Any, autojump_clock: Any) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    started = trio.current_time()
    with pytest.raises(Unavailable, match="did not answer"):
        async with open_link(
            "127.0.0.1", listener.socket.getsockname()[1], identity=fleet.identity(), expect=None
        ):
            pass
    assert trio.current_time() - started == pytest.approx(limits.LINK_HANDSHAKE_S, abs=1)
    await listener.aclose()


async def test_where_too_many_shake_hands_one_that_keeps_us_waiting_makes_room(
    serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINKS_BEGUN_MAX", 1)
    monkeypatch.setattr(limits, "LINKS_PENDING_MAX", 3)
    monkeypatch.setattr(limits, "LINK_PATIENCE_S", 0.0)
    knocks = Knocks(fleet.identity())
    async with serving(identity=knocks) as server:
        silent = []
        for count in range(1, 4):
            silent.append(await trio.open_tcp_stream(server.host, server.port))
            await knocks.wait(count)
        assert await still_serves(server, fleet)
        assert await read_to_end(silent[0]) == b""
        newest = trio.SSLStream(silent[2], client_context(fleet.identity()))
        await newest.do_handshake()  # it is still there
        await trio.aclose_forcefully(newest)
        for tcp in silent:
            await tcp.aclose()


async def test_where_too_many_shake_hands_and_none_is_late_the_newcomer_waits_for_a_place(
    serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINKS_BEGUN_MAX", 2)
    monkeypatch.setattr(limits, "LINK_PATIENCE_S", 60.0)
    knocks = Knocks(fleet.identity())
    async with serving(identity=knocks) as server, trio.open_nursery() as nursery:
        early = [await trio.open_tcp_stream(server.host, server.port) for _ in range(2)]
        await knocks.wait(2)
        nursery.start_soon(still_serves, server, fleet)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert knocks.count == 2
        await early[0].aclose()
        await knocks.wait(3)
        await early[1].aclose()


async def test_for_who_has_given_up_before_its_turn_nothing_is_begun(
    serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINKS_BEGUN_MAX", 1)
    monkeypatch.setattr(limits, "LINK_PATIENCE_S", 60.0)
    knocks = Knocks(fleet.identity())
    async with serving(identity=knocks) as server:
        early = await trio.open_tcp_stream(server.host, server.port)
        await knocks.wait(1)
        for _ in range(3):
            await (await tcp_with_a_greeting(server, fleet.identity())).aclose()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await early.aclose()
        assert await still_serves(server, fleet)
        assert knocks.count == 2


async def test_a_member_that_comes_again_after_it_was_revoked_is_refused(serving: Any, fleet: Any) -> None:
    revoked: set[NodeId] = set()
    identity = fleet.identity()
    async with serving(revoked=revoked.__contains__) as server:
        async with open_link(server.host, server.port, identity=identity, expect=server.node):
            revoked.add(fleet.node_of(identity))
        with pytest.raises(TrustError, match="not a member of this fleet any more"):
            async with open_link(server.host, server.port, identity=identity, expect=server.node):
                pass


async def test_a_stranger_is_not_kept_for_long(
    serving: Any, fleet: Any, mock_clock: trio.testing.MockClock
) -> None:
    async with (
        serving() as server,
        open_stranger_link(
            server.host, server.port, ca_pem=fleet.authority.certificate_pem, expect=None
        ) as link,
    ):
        mock_clock.jump(limits.LINK_STRANGER_S)
        mock_clock.autojump_threshold = 0.05  # to say goodbye takes time, too
        await link.wait_ended()


async def test_where_too_many_strangers_stay_the_oldest_idle_one_makes_room(
    serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = trio.Event()

    async def wait(link: Link, request: TorrentRequest) -> Torrent:
        asked.set()
        await trio.sleep_forever()
        raise AssertionError

    async def answer(link: Link, request: TorrentRequest) -> Torrent:
        return Torrent(torrent=b"x")

    monkeypatch.setattr(limits, "LINK_STRANGERS_MAX", 2)
    ca_pem = fleet.authority.certificate_pem
    table = {
        "/enrol": RequestHandler(TorrentRequest, wait, strangers=True),
        "/renew": RequestHandler(TorrentRequest, answer, strangers=True),
    }
    async with (
        serving(requests=table) as server,
        open_stranger_link(server.host, server.port, ca_pem=ca_pem, expect=None) as busy,
        open_stranger_link(server.host, server.port, ca_pem=ca_pem, expect=None) as idle,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(busy.request, "/enrol", ASKED, Torrent)
        await asked.wait()
        await idle.request("/renew", ASKED, Torrent)  # so the server knows both
        await trio.testing.wait_all_tasks_blocked()
        async with open_stranger_link(server.host, server.port, ca_pem=ca_pem, expect=None) as third:
            await idle.wait_ended()
            assert (busy.end_reason, third.end_reason) == ("", "")
        nursery.cancel_scope.cancel()


async def test_a_member_that_falls_silent_is_cut_by_the_server(
    serving: Any, fleet: Any, mock_clock: trio.testing.MockClock
) -> None:
    async with serving() as server:
        stream = await tls_dial(server, fleet.identity())
        session = Session(dialler=True)
        session.open("/control")
        await stream.send_all(session.output())
        while not any(isinstance(e, AnswerStarted) for e in session.receive(await stream.receive_some())):
            pass
        [link] = server.links
        started = trio.current_time()
        while not link.end_reason:
            mock_clock.jump(limits.LINK_WATCH_S)
            await trio.testing.wait_all_tasks_blocked()
        silent = trio.current_time() - started
        assert limits.LINK_DEAD_AFTER_S - 1 <= silent <= limits.LINK_DEAD_AFTER_S + limits.LINK_WATCH_S + 1
        mock_clock.autojump_threshold = 0.05
        await read_to_end(stream)
        await link.wait_ended()
        await trio.aclose_forcefully(stream)


async def test_a_neighbours_words_do_not_move_a_terminals_cursor(standing: Any) -> None:
    async with standing(dialler=True) as (link, raw):
        raw.session.close("red \x1b[31m alert\n")
        await raw.flush()
        with pytest.raises(Unavailable, match="alert") as caught:
            await anext(link.frames())
        assert str(caught.value).isprintable()


# On the control stream -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        (limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        b"\0\0\0\x01\xc1",
        b"\0\0\0\x04" + b"\xdd\xff\xff\xff",
        pack_frame(MetadataVersions(versions={})).replace(b"metadata-versions", b"metadata-varsions"),
    ],
)
@pytest.mark.parametrize("dialler", [True, False])
async def test_what_is_no_frame_is_raised_and_told(sent: bytes, dialler: bool, against: Any) -> None:
    async with against(dialler=dialler) as (link, raw):
        stream = await raw.stand(link)
        raw.session.send(stream, pack_frame(MetadataVersions(versions={"root": 1})) + sent)
        await raw.flush()

        frames = link.frames()
        assert await anext(frames) == MetadataVersions(versions={"root": 1})
        with pytest.raises(PeerError, match=link.peer):
            await anext(frames)
        with pytest.raises(PeerError):
            await anext(frames)
        with pytest.raises(PeerError):
            await link.send(MetadataVersions(versions={}))
        goodbye = await raw.hear_until(SessionEnded)
        assert "frame" in goodbye.reason or "msgpack" in goodbye.reason or "valid" in goodbye.reason


async def test_an_acceptor_that_opens_a_control_stream_is_at_fault(standing: Any) -> None:
    async with standing(dialler=True) as (link, raw):
        raw.session.open("/control")
        await raw.flush()
        with pytest.raises(PeerError, match="control stream"):
            await anext(link.frames())


async def test_a_second_control_stream_is_a_fault(standing: Any) -> None:
    async with standing(dialler=False) as (link, raw):
        raw.session.open("/control")
        await raw.flush()
        with pytest.raises(PeerError, match="second control stream"):
            await anext(link.frames())


async def test_a_neighbour_that_ends_the_control_stream_ends_the_link(against: Any) -> None:
    async with against(dialler=False) as (link, raw):
        stream = await raw.stand(link)
        raw.session.send(stream, b"", end=True)
        await raw.flush()
        assert [frame async for frame in link.frames()] == []


async def test_unread_frames_are_held_packed_and_within_the_window(against: Any) -> None:
    async with against(dialler=False) as (link, raw):
        stream = await raw.stand(link)
        frame = MetadataVersions(versions={str(number) * 100: 1 for number in range(1, 10)})
        packed = pack_frame(frame)
        count = 4 * limits.LINK_WINDOW_BYTES // len(packed)
        raw.session.send(stream, packed * count)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            nursery.start_soon(raw.hear_all)
            await trio.testing.wait_all_tasks_blocked(0.1)
            held = link.statistics().frames_unread * len(packed)
            assert limits.LINK_WINDOW_BYTES - len(packed) <= held <= limits.LINK_WINDOW_BYTES

            frames = link.frames()
            for _ in range(count):
                assert await anext(frames) == frame
            nursery.cancel_scope.cancel()


async def test_a_neighbour_that_reads_no_frames_makes_senders_wait_and_is_cut_in_the_end(
    standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=False) as (link, raw):
        frame = MetadataVersions(versions={str(number) * 100: 1 for number in range(10, 20)})
        sent = 0

        async def send_forever() -> None:
            nonlocal sent
            while True:
                await link.send(frame)
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.hear_all)  # it answers pings, and never opens its window
            started = trio.current_time()
            with pytest.raises(Unavailable, match="read nothing"):
                await send_forever()
            waited = trio.current_time() - started
            assert limits.LINK_DEAD_AFTER_S <= waited <= limits.LINK_DEAD_AFTER_S + 2 * limits.LINK_WATCH_S
            held = sent * len(pack_frame(frame)) - limits.LINK_WINDOW_BYTES
            assert held <= limits.LINK_SEND_QUEUE_FRAMES * len(pack_frame(frame))
            nursery.cancel_scope.cancel()


async def test_a_full_queue_refuses_what_cannot_wait(standing: Any) -> None:
    async with standing(dialler=False) as (link, _raw):
        frame = MetadataVersions(versions={"x" * 100: 1})
        for _ in range(limits.LINK_SEND_QUEUE_FRAMES):
            link.send_nowait(frame)
        with pytest.raises(Unavailable, match="fast enough"):
            link.send_nowait(frame)
        assert link.statistics().frames_waiting == limits.LINK_SEND_QUEUE_FRAMES


async def test_a_silent_neighbour_is_given_up(against: Any, autojump_clock: Any) -> None:
    for dialler in (True, False):
        async with against(dialler=dialler) as (link, raw):
            await raw.stand(link)
            started = trio.current_time()
            assert [frame async for frame in link.frames()] == []
            silent = trio.current_time() - started
            assert limits.LINK_DEAD_AFTER_S <= silent <= limits.LINK_DEAD_AFTER_S + limits.LINK_WATCH_S
            assert "nothing was heard" in link.end_reason


async def test_a_flood_ends_the_link_and_is_told(standing: Any) -> None:
    async with standing(dialler=False) as (link, raw):

        async def flood() -> None:
            ping = hyperframe.frame.PingFrame(0, opaque_data=b"flooding").serialize()
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await raw.stream.send_all(ping * 10)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with pytest.raises(PeerError, match="flood"):
                await anext(link.frames())
        assert b"flood" in await read_to_end(raw.stream)


# Requests --------------------------------------------------------------------------------------------


async def answer_to(raw: Any, stream: int) -> Any:
    """Wait for the whole answer on *stream*, and return its status and body."""
    await raw.hear_on(stream, BodyEnded, StreamReset)
    [status] = [e.status for e in raw.events if isinstance(e, AnswerStarted) and e.stream == stream]
    return status, raw.body(stream)


@both_sides
async def test_a_body_that_is_too_large_is_refused_before_it_is_complete(dialler: bool, against: Any) -> None:
    async with against(dialler=dialler) as (_link, raw):
        stream = raw.session.open("/torrent")
        raw.session.send(stream, bytes(limits.REQUEST_BYTES_MAX + 1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            status, body = await answer_to(raw, stream)
        assert status == 400
        problem: Problem = codec.decode(body, Problem)
        assert (problem.family, "1048576" in problem.what) == ("usage", True)

        again = raw.session.open("/torrent")
        raw.session.send(again, codec.encode(ASKED), end=True)
        await raw.flush()
        assert (await answer_to(raw, again))[0] == 200


@both_sides
async def test_bodies_of_many_requests_together_are_bounded(
    dialler: bool, against: Any, autojump_clock: Any
) -> None:
    async with against(dialler=dialler) as (_link, raw):
        streams = [raw.session.open("/torrent") for _ in range(8)]
        for stream in streams:
            raw.session.send(stream, bytes(limits.REQUEST_BYTES_MAX))
        await raw.flush()

        with trio.move_on_after(1):  # of a clock that goes on when nobody has anything to do
            await raw.hear_all()
        refused = {e.stream for e in raw.events if isinstance(e, AnswerStarted) and e.status == 503}
        assert len(refused) == 8 - limits.LINK_BODIES_BYTES_MAX // limits.REQUEST_BYTES_MAX


@both_sides
async def test_a_body_that_never_ends_is_given_up(dialler: bool, against: Any, autojump_clock: Any) -> None:
    async with against(dialler=dialler) as (link, raw):
        stream = raw.session.open("/torrent")
        raw.session.send(stream, b"some")
        await raw.flush()
        started = trio.current_time()
        await raw.hear_on(stream, StreamReset)
        waited = trio.current_time() - started
        assert limits.REQUEST_TIMEOUT_S <= waited <= limits.REQUEST_TIMEOUT_S + 2 * limits.LINK_WATCH_S
        assert link.statistics().requests_under_way == 0


@both_sides
async def test_only_so_many_requests_of_one_link_are_worked_on_at_once(dialler: bool, against: Any) -> None:
    running = 0
    release = trio.Event()

    async def wait(link: Link, request: TorrentRequest) -> Torrent:
        nonlocal running
        running += 1
        await release.wait()
        return Torrent(torrent=b"x")

    table = {"/torrent": RequestHandler(TorrentRequest, wait)}
    async with against(dialler=dialler, requests=table) as (_link, raw):
        streams = [raw.session.open("/torrent") for _ in range(3 * limits.LINK_REQUESTS_RUNNING_MAX)]
        for stream in streams:
            raw.session.send(stream, codec.encode(ASKED), end=True)
        await raw.flush()
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert running == limits.LINK_REQUESTS_RUNNING_MAX
        release.set()
        for stream in streams:
            assert (await answer_to(raw, stream))[0] == 200


@both_sides
async def test_an_asker_that_does_not_read_its_answer_loses_it(
    dialler: bool, against: Any, autojump_clock: Any
) -> None:
    async def large(link: Link, request: TorrentRequest) -> Torrent:
        return Torrent(torrent=bytes(3 * limits.MIB))

    table = {"/torrent": RequestHandler(TorrentRequest, large)}
    async with against(dialler=dialler, requests=table) as (link, raw):
        stream = raw.session.open("/torrent")
        raw.session.send(stream, codec.encode(ASKED), end=True)
        await raw.flush()
        started = trio.current_time()
        await raw.hear_on(stream, StreamReset)  # and never says that it has consumed anything
        assert trio.current_time() - started == pytest.approx(limits.REQUEST_TIMEOUT_S, abs=5)
        assert len(raw.body(stream)) == limits.LINK_WINDOW_BYTES
        assert link.statistics().requests_under_way == 0


@both_sides
async def test_opening_requests_only_to_give_them_up_ends_the_link(dialler: bool, standing: Any) -> None:
    async with standing(dialler=dialler) as (link, raw):

        async def churn() -> None:
            with contextlib.suppress(trio.BrokenResourceError, Unavailable):
                for _ in range(1_000):
                    stream = raw.session.open("/torrent")
                    raw.session.send(stream, codec.encode(ASKED))
                    await raw.flush()
                    raw.session.reset(stream)
                    await raw.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(churn)
            nursery.start_soon(raw.hear_all)
            with pytest.raises(PeerError, match="give them up"):
                await anext(link.frames())


async def test_a_plain_http2_client_that_misses_the_windows_gets_no_more_than_they_allow(
    against: Any, autojump_clock: Any
) -> None:
    async def large(link: Link, request: TorrentRequest) -> Torrent:
        return Torrent(torrent=bytes(limits.MIB))

    table = {"/torrent": RequestHandler(TorrentRequest, large)}
    async with against(dialler=False, requests=table) as (_link, raw):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()  # with the standard's windows of 65,535 bytes
        headers = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", "/torrent")]
        for stream in (1, 3):
            client.send_headers(stream, headers)
            client.send_data(stream, codec.encode(ASKED), end_stream=True)
        await raw.stream.send_all(client.data_to_send())
        received = 0
        with trio.move_on_after(1):  # of a clock that goes on when nobody has anything to do
            while True:
                for event in client.receive_data(await raw.stream.receive_some(65_536)):
                    received += len(getattr(event, "data", b"") or b"")
        assert received == 65_535


# Asking ----------------------------------------------------------------------------------------------


async def ask(link: Link, **arguments: Any) -> Torrent:
    """Ask for a torrent."""
    return await link.request("/torrent", ASKED, Torrent, **arguments)


@both_sides
async def test_a_question_without_an_answer_is_given_up(
    dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw):
        started = trio.current_time()
        async with asking(raw, lambda: ask(link, timeout_s=7)) as (stream, caught):
            await raw.hear_on(stream, StreamReset)
        assert trio.current_time() - started == pytest.approx(7)
    assert isinstance(caught[0], Unavailable)
    assert "/torrent within 7 s" in str(caught[0])


@pytest.mark.parametrize(("chunk_bytes", "fine"), [(200 * limits.KIB, True), (4 * limits.KIB, False)])
@both_sides
async def test_a_long_answer_may_take_its_time_but_not_forever(
    chunk_bytes: int, fine: bool, dialler: bool, standing: Any, autojump_clock: Any
) -> None:
    answer = codec.encode(Torrent(torrent=bytes(4 * limits.MIB)), bytes_max=5 * limits.MIB)
    async with (
        standing(dialler=dialler) as (link, raw),
        asking(raw, lambda: ask(link)) as (stream, caught),
        trio.open_nursery() as nursery,
    ):
        raw.session.answer(stream, 200)
        nursery.start_soon(raw.hear_all)
        for start in range(0, len(answer), chunk_bytes):
            raw.session.send(
                stream,
                answer[start : start + chunk_bytes],
                end=start + chunk_bytes >= len(answer),
            )
            await raw.flush()
            await trio.sleep(10)
            if caught:
                break
        while not caught:  # a thread decodes it, which the clock that jumps does not wait for
            await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert isinstance(caught[0], Torrent if fine else Unavailable)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"", PeerError),
        (200, b"\xc1", PeerError),
        (500, b"not a problem", PeerError),
        (0, b"", PeerError),
        (503, codec.encode(Problem(family="unavailable", what="later")), Unavailable),
        (403, codec.encode(Problem(family="trust", what="no")), TrustError),
    ],
)
@both_sides
async def test_whatever_comes_back_is_an_answer_or_one_of_our_errors(
    status: int, body: bytes, kind: type[Exception], dialler: bool, standing: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw), asking(raw, lambda: ask(link)) as (stream, caught):
        raw.session.answer(stream, status or 204)
        raw.session.send(stream, body, end=True)
        await raw.flush()
    assert isinstance(caught[0], kind)


@both_sides
async def test_an_answer_that_is_too_large_is_cut_off_while_it_arrives(dialler: bool, standing: Any) -> None:
    async with (
        standing(dialler=dialler) as (link, raw),
        asking(raw, lambda: ask(link)) as (stream, caught),
        trio.open_nursery() as nursery,
    ):
        raw.session.answer(stream, 200)
        nursery.start_soon(raw.hear_all)
        while not caught:
            raw.session.send(stream, bytes(limits.MIB))
            await raw.flush()
            await trio.testing.wait_all_tasks_blocked(0.001)
        nursery.cancel_scope.cancel()
    assert isinstance(caught[0], PeerError)
    assert "more than is allowed" in str(caught[0])


@both_sides
async def test_a_neighbour_that_gives_a_question_up_makes_it_unavailable(
    dialler: bool, standing: Any
) -> None:
    async with standing(dialler=dialler) as (link, raw), asking(raw, lambda: ask(link)) as (stream, caught):
        raw.session.reset(stream)
        await raw.flush()
    assert isinstance(caught[0], Unavailable)


@pytest.mark.parametrize("body", [b"", b"\xc1", bytes(2 * limits.MIB)])
async def test_a_link_that_is_refused_without_a_proper_reason_does_not_open(
    body: bytes, against: Any
) -> None:
    async with against(dialler=True) as (link, raw):
        started = await raw.hear_until(RequestStarted)
        raw.session.answer(started.stream, 403)
        raw.session.send(started.stream, body, end=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raw.flush)
            nursery.start_soon(raw.hear_all)
            with pytest.raises((PeerError, Unavailable)):
                await link.wait_established()
            nursery.cancel_scope.cancel()
