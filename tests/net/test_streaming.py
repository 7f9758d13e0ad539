"""Byte streams over a link: how they open, pass, end and break, whichever side wants them."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.link import Link, OfferedStream, StreamHandler, StreamTable, open_link, open_stranger_link
from p2pdist.net.splicing import splice
from p2pdist.net.tls import client_context, server_context
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import BundleRequest, Torrent, TorrentRequest

pytestmark = pytest.mark.slow  # a connection for each

OPENING = TorrentRequest(info_hash="0" * 64)

both_directions = pytest.mark.parametrize("acceptor_asks", [False, True])


def serving_with(serve: Callable[[Link, Any, OfferedStream], Awaitable[None]]) -> StreamTable:
    return {"/session": StreamHandler(TorrentRequest, serve)}


async def echo(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
    stream = offered.accept()
    while data := await stream.receive_some():
        await stream.send_all(data)


async def hold(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
    """Accept, and read nothing."""
    offered.accept()
    await trio.sleep_forever()


async def settle(link: Link, other: Link) -> None:
    """Wait until each side has heard everything that the other has said so far."""
    for side in (link, other):
        await side.request("/torrent", OPENING, Torrent)
    await trio.testing.wait_all_tasks_blocked()


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    received = b""
    while data := await stream.receive_some():
        received += data
    return received


@both_directions
async def test_either_side_opens_a_stream_and_bytes_go_both_ways(both_ways: Any, acceptor_asks: bool) -> None:
    async with (
        both_ways(acceptor_asks=acceptor_asks, streams=serving_with(echo)) as (link, _, _),
        link.open_stream("/session", OPENING) as stream,
    ):
        sent = bytes(range(256)) * 20_000  # several windows
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(sent)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await read_all(stream) == sent


@both_directions
async def test_the_handler_learns_what_the_stream_is_for_and_who_wants_it(
    both_ways: Any, acceptor_asks: bool
) -> None:
    met = []

    async def meet(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        met.append((link.peer, opening))
        offered.accept()

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(meet)) as (link, other, _):
        async with link.open_stream("/session", OPENING):
            pass
        assert met == [(other.peer, OPENING)]


@pytest.mark.parametrize("kind", [UsageError, PeerError, TrustError, Unavailable])
@both_directions
async def test_a_refusal_is_raised_where_the_stream_was_wanted_in_the_same_family(
    both_ways: Any, acceptor_asks: bool, kind: type[P2PDistError]
) -> None:
    async def refuse(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        raise kind("the port is not allowed", hint="ask the device's owner")

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(refuse)) as (link, other, _):
        for _ in range(2 * limits.LINK_RESETS_MAX):
            with pytest.raises(kind, match="the port is not allowed; ask the device's owner"):
                async with link.open_stream("/session", OPENING):
                    pass
        await settle(link, other)
        assert other.statistics().requests_under_way == 0
        assert (link.statistics().streams, other.statistics().streams) == (0, 0)


async def test_what_nobody_serves_is_refused(both_ways: Any) -> None:
    async with both_ways(acceptor_asks=True, streams=serving_with(echo)) as (link, _, _):
        with pytest.raises(UsageError, match="/nothing"):
            async with link.open_stream("/nothing", OPENING):
                pass
        with pytest.raises(PeerError, match="TorrentRequest"):
            async with link.open_stream("/session", BundleRequest(have={})):
                pass
        with pytest.raises(UsageError, match="/session"):
            await link.request("/session", OPENING, Torrent)
        with pytest.raises(UsageError, match="/torrent"):
            async with link.open_stream("/torrent", OPENING):
                pass
        with pytest.raises(UsageError, match="limit"):
            async with link.open_stream("/session", Torrent(torrent=bytes(limits.LINK_OPENING_BYTES_MAX))):
                pass
        async with link.open_stream("/session", OPENING) as stream:
            await stream.send_all(b"the link lives")
            assert await stream.receive_some() == b"the link lives"


async def test_strangers_have_no_streams(serving: Any, fleet: Any) -> None:
    async with (
        serving(streams=serving_with(echo)) as server,
        open_stranger_link(
            server.host, server.port, ca_pem=fleet.authority.certificate_pem, expect=None
        ) as link,
    ):
        with pytest.raises(TrustError, match="certificate"):
            async with link.open_stream("/session", OPENING):
                pass


async def test_a_handler_that_neither_accepts_nor_refuses_has_refused(both_ways: Any) -> None:
    async def ignore(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        pass

    async with both_ways(acceptor_asks=True, streams=serving_with(ignore)) as (link, _, _):
        with pytest.raises(Unavailable):
            async with link.open_stream("/session", OPENING):
                pass


@pytest.mark.parametrize("accepted", [False, True])
@both_directions
async def test_a_defect_in_a_handler_costs_one_stream_and_nothing_else(
    both_ways: Any, acceptor_asks: bool, accepted: bool
) -> None:
    async def fail(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        if accepted:
            offered.accept()
        raise ZeroDivisionError("secret details")

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(fail)) as (link, _, _):
        with pytest.raises((Unavailable, trio.BrokenResourceError)) as caught:
            async with link.open_stream("/session", OPENING) as stream:
                await stream.receive_some()
        assert "failed" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert link.end_reason == ""


# Ends and breaks --------------------------------------------------------------------------------------


@both_directions
async def test_a_half_that_has_ended_leaves_the_other_open(both_ways: Any, acceptor_asks: bool) -> None:
    async def answer(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        stream = offered.accept()
        question = await read_all(stream)
        for _ in range(3):
            await stream.send_all(question)

    async with (
        both_ways(acceptor_asks=acceptor_asks, streams=serving_with(answer)) as (link, _, _),
        link.open_stream("/session", OPENING) as stream,
    ):
        await stream.send_all(b"question")
        await stream.send_eof()
        assert await read_all(stream) == b"question" * 3


@both_directions
async def test_what_was_sent_before_closing_still_arrives(both_ways: Any, acceptor_asks: bool) -> None:
    arrived = trio.Event()

    async def collect(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        stream = offered.accept()
        await trio.testing.wait_all_tasks_blocked(0.05)  # the other side closes meanwhile
        assert await read_all(stream) == bytes(limits.MIB)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"nobody takes it")
        arrived.set()

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(collect)) as (link, _, _):
        async with link.open_stream("/session", OPENING) as stream:
            await stream.send_all(bytes(limits.MIB))
        await arrived.wait()


@both_directions
async def test_the_reason_why_a_stream_is_broken_off_reaches_whoever_opened_it(
    both_ways: Any, acceptor_asks: bool
) -> None:
    async def reject(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        stream = offered.accept()
        await stream.receive_some()
        raise TrustError("the session has expired", hint="begin another")

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(reject)) as (link, _, _):
        async with link.open_stream("/session", OPENING) as stream:
            await stream.send_all(b"x")
            with pytest.raises(trio.BrokenResourceError, match="expired; begin another") as caught:
                await stream.receive_some()
        assert isinstance(caught.value.__cause__, TrustError)


@both_directions
async def test_the_reason_reaches_whoever_serves_it(both_ways: Any, acceptor_asks: bool) -> None:
    caught: list[BaseException | None] = []
    over = trio.Event()

    async def serve(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        stream = offered.accept()
        try:
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            caught.append(error.__cause__)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")
        over.set()

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(serve)) as (link, other, _):

        async def open_and_fail() -> None:
            async with link.open_stream("/session", OPENING) as stream:
                await stream.send_all(b"dropped with the stream")
                raise UsageError("wrong password")

        with pytest.raises(UsageError, match="wrong"):
            await open_and_fail()
        await over.wait()
        await settle(link, other)
        assert other.statistics().streams == 0
    assert [str(error) for error in caught] == ["wrong password"]
    assert isinstance(caught[0], UsageError)


async def test_a_long_reason_is_cut(both_ways: Any) -> None:
    async def reject(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        offered.accept()
        raise Unavailable("\N{SNOWMAN}" * 10_000, hint="\N{SNOWMAN}" * 10_000)

    async with both_ways(acceptor_asks=False, streams=serving_with(reject)) as (link, _, _):
        with pytest.raises(trio.BrokenResourceError) as caught:
            async with link.open_stream("/session", OPENING) as stream:
                await stream.receive_some()
        assert isinstance(caught.value.__cause__, Unavailable)
        assert caught.value.__cause__.what == "\N{SNOWMAN}" * limits.LINK_REASON_CHARS_MAX


@both_directions
async def test_the_end_of_the_link_breaks_its_streams(both_ways: Any, acceptor_asks: bool) -> None:
    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(hold)) as (link, other, _):
        async with link.open_stream("/session", OPENING) as stream:
            other.abort("test")
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
        assert isinstance(caught.value.__cause__, Unavailable)
        with pytest.raises(Unavailable):
            async with link.open_stream("/session", OPENING):
                pass


@both_directions
async def test_cancelling_whoever_opened_it_breaks_the_stream(both_ways: Any, acceptor_asks: bool) -> None:
    broken = trio.Event()

    async def serve(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        with pytest.raises(trio.BrokenResourceError, match="given up"):
            await offered.accept().receive_some()
        broken.set()

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(serve)) as (link, _, _):
        with trio.CancelScope() as scope:
            async with link.open_stream("/session", OPENING):
                scope.cancel()
                await trio.sleep_forever()
        await broken.wait()


@both_directions
async def test_giving_up_before_the_stream_is_accepted_cancels_its_handler(
    both_ways: Any, acceptor_asks: bool
) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def wait(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(wait)) as (link, other, _):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def want() -> None:
                    async with link.open_stream("/session", OPENING):
                        raise AssertionError

                nursery.start_soon(want)
                await started.wait()
                scope.cancel()
        await cancelled.wait()
        await settle(link, other)
        assert (link.statistics().streams, other.statistics().streams) == (0, 0)


# Bounds -----------------------------------------------------------------------------------------------


@both_directions
async def test_a_stream_that_nobody_reads_makes_its_sender_wait_and_holds_up_nothing_else(
    both_ways: Any, acceptor_asks: bool
) -> None:
    async def serve(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        await (hold if opening == OPENING else echo)(link, opening, offered)

    queued = 0

    async def send_forever(stream: trio.abc.SendStream) -> None:
        nonlocal queued
        while True:
            await stream.send_all(bytes(10_000))
            queued += 10_000

    async with (
        both_ways(acceptor_asks=acceptor_asks, streams=serving_with(serve)) as (link, other, _),
        link.open_stream("/session", OPENING) as slow,
        link.open_stream("/session", OPENING) as slow_too,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_forever, slow)
            nursery.start_soon(send_forever, slow_too)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert queued <= 2 * (limits.LINK_WINDOW_BYTES + limits.LINK_STREAM_QUEUE_BYTES + 10_000)

            await link.send(MetadataVersions(versions={"root": 1}))
            await link.request("/torrent", OPENING, Torrent)
            await other.request("/torrent", OPENING, Torrent)
            async with link.open_stream("/session", TorrentRequest(info_hash="1" * 64)) as quick:
                for _ in range(100):
                    await quick.send_all(bytes(50_000))
                    received = 0
                    while received < 50_000:
                        received += len(await quick.receive_some())
            nursery.cancel_scope.cancel()
        for stream in (slow, slow_too):
            stream.abort(Unavailable("nobody reads it"))


@both_directions
async def test_only_so_many_streams_are_open_at_once(both_ways: Any, acceptor_asks: bool) -> None:
    async with both_ways(acceptor_asks=acceptor_asks, streams=serving_with(echo)) as (link, other, _):
        async with trio.open_nursery() as nursery:

            async def occupy(*, task_status: trio.TaskStatus[None]) -> None:
                async with link.open_stream("/session", OPENING):
                    task_status.started()
                    await trio.sleep_forever()

            for _ in range(limits.LINK_BYTE_STREAMS_MAX):
                await nursery.start(occupy)
            with pytest.raises(Unavailable, match=f"{limits.LINK_BYTE_STREAMS_MAX} streams"):
                async with link.open_stream("/session", OPENING):
                    pass
            await link.request("/torrent", OPENING, Torrent)
            async with other.open_stream("/session", OPENING):
                pass  # the other side counts its own
            nursery.cancel_scope.cancel()
        async with link.open_stream("/session", OPENING) as stream:
            await stream.send_all(b"there is room again")
            assert await stream.receive_some() == b"there is room again"


async def test_streams_that_are_opened_and_closed_leave_nothing_behind(both_ways: Any) -> None:
    async with both_ways(acceptor_asks=True, streams=serving_with(echo)) as (link, other, _):
        for _ in range(3 * limits.LINK_RESETS_MAX):
            async with link.open_stream("/session", OPENING) as stream:
                await stream.send_all(b"x")
                await stream.receive_some()
        await settle(link, other)
        for side in (link, other):
            assert side.statistics().streams == 0
            assert set(side._session._owed) <= {0, side._session.urgent}
            assert not side._session._outgoing


# What it is for ---------------------------------------------------------------------------------------


async def test_a_gateway_splices_an_end_to_end_tls_session_that_it_cannot_read(
    serving: Any, fleet: Any
) -> None:
    device_identity, server_identity = fleet.identity(), fleet.identity()
    up: dict[str, Link] = {}

    async def serve_device(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        tls = trio.SSLStream(offered.accept(), server_context(device_identity), server_side=True)
        while data := await tls.receive_some():
            await tls.send_all(data.upper())
        await tls.aclose()

    async def relay(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        async with up[opening.info_hash].open_stream("/session", opening) as onward:
            await splice(offered.accept(), onward)

    async def attach(link: Link) -> None:
        assert link.remote is not None
        if link.remote.node == fleet.node_of(device_identity):
            up["0" * 64] = link
        async for _ in link.frames():
            pass

    async with (
        serving(streams=serving_with(relay), on_link=attach) as gateway,
        open_link(
            gateway.host,
            gateway.port,
            identity=device_identity,
            expect=None,
            streams=serving_with(serve_device),
        ),
        open_link(gateway.host, gateway.port, identity=server_identity, expect=None) as link,
        link.open_stream("/session", OPENING) as stream,
    ):
        tls = trio.SSLStream(stream, client_context(server_identity))
        await tls.do_handshake()
        shown = tls.getpeercert(binary_form=True)
        assert shown == ssl.PEM_cert_to_DER_cert(device_identity.certificate_pem.decode())
        await tls.send_all(b"sealed end to end")
        assert await tls.receive_some() == b"SEALED END TO END"
        await tls.aclose()


async def test_a_device_that_refuses_a_session_is_heard_through_the_gateway(both_ways: Any) -> None:
    async def refuse(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        if opening.info_hash == "0" * 64:
            raise TrustError("port 22 is not allowed here")
        offered.accept()
        raise TrustError("the session has expired")

    async with both_ways(acceptor_asks=True, streams=serving_with(refuse)) as (down, _, _):

        async def relay(link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
            async with down.open_stream("/session", opening) as onward:
                await splice(offered.accept(), onward)

        async with both_ways(acceptor_asks=False, streams=serving_with(relay)) as (link, _, _):
            with pytest.raises(TrustError, match="port 22"):
                async with link.open_stream("/session", OPENING):
                    pass
            with pytest.raises(trio.BrokenResourceError, match="expired") as caught:
                async with link.open_stream("/session", TorrentRequest(info_hash="1" * 64)) as stream:
                    await stream.receive_some()
            assert isinstance(caught.value.__cause__, TrustError)
