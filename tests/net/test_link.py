"""Links over real sockets and certificates: what members do with them."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.link import Link, RequestHandler, open_link, serve_links
from p2pdist.wire.frames import AnyFrame, Attached, MetadataVersions
from p2pdist.wire.requests import Bundle, BundleRequest, Torrent, TorrentRequest
from tests.fleet.fleet_addresses import AddressRange

ASKED = TorrentRequest(info_hash="0" * 64)


def versions(number: int) -> MetadataVersions:
    return MetadataVersions(versions={"root": number})


async def echo(link: Link) -> None:
    async for frame in link.frames():
        await link.send(frame)


async def test_frames_go_both_ways_in_order(linked: Any) -> None:
    async with linked(on_link=echo) as (link, _):
        frames = link.frames()
        for number in range(1, 300):
            await link.send(versions(number))
        for number in range(1, 300):
            assert await anext(frames) == versions(number)


async def test_the_acceptor_speaks_first_if_it_likes(linked: Any) -> None:
    async def greet(link: Link) -> None:
        link.send_nowait(versions(7))
        await echo(link)

    async with linked(on_link=greet) as (link, _):
        assert await anext(link.frames()) == versions(7)


async def test_each_side_knows_who_the_other_is(serving: Any, fleet: Any) -> None:
    met = []

    async def meet(link: Link) -> None:
        met.append((link.remote, link.remote_host, link.local_host))
        await echo(link)

    identity = fleet.identity(group="/emea/berlin")
    async with (
        serving(on_link=meet) as server,
        open_link(
            server.host, server.port, identity=identity, expect=server.node, local_host="127.0.0.9"
        ) as link,
    ):
        await link.send(versions(1))
        await anext(link.frames())
        assert link.remote is not None
        assert link.remote.node == server.node
        assert (link.local_host, link.remote_host) == ("127.0.0.9", "127.0.0.1")

    [(remote, remote_host, local_host)] = met
    assert remote is not None
    assert (remote.node, remote.group) == (fleet.node_of(identity), "/emea/berlin")
    assert (remote_host, local_host) == ("127.0.0.9", "127.0.0.1")


async def test_a_frame_of_the_largest_size_passes(linked: Any) -> None:
    nodes = {f"{number:032b}".replace("0", "a").replace("1", "b"): 2**62 for number in range(8_192)}
    frame = Attached(carrier="a" * 32, nodes=nodes, gone=list(nodes))
    async with linked(on_link=echo) as (link, _):
        frames = link.frames()
        for _ in range(3):
            await link.send(frame)
        for _ in range(3):
            assert await anext(frames) == frame


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_requests_are_answered_many_at_once(both_ways: Any, acceptor_asks: bool) -> None:
    async with both_ways(acceptor_asks=acceptor_asks) as (link, _, _):

        async def ask(number: int) -> None:
            info_hash = f"{number:064x}"
            answer = await link.request("/torrent", TorrentRequest(info_hash=info_hash), Torrent)
            assert answer.torrent == info_hash.encode()

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
        assert link.statistics().requests == 200
        assert link.statistics().requests_under_way == 0


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_an_answer_may_be_as_large_as_a_bundle(both_ways: Any, acceptor_asks: bool) -> None:
    files = {f"{number}.root.json": bytes([number]) * (7 * limits.MIB) for number in range(1, 5)}

    async def bundle(link: Link, request: BundleRequest) -> Bundle:
        return Bundle(files=files)

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/bundle": RequestHandler(BundleRequest, bundle)}
    ) as (link, _, _):
        answer = await link.request("/bundle", BundleRequest(have={}), Bundle)

    assert answer.files == files


@pytest.mark.parametrize("kind", [UsageError, PeerError, TrustError, Unavailable])
@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_what_the_other_side_cannot_do_is_raised_here_in_the_same_family(
    kind: type[P2PDistError], both_ways: Any, acceptor_asks: bool
) -> None:
    async def fail(link: Link, request: TorrentRequest) -> Torrent:
        raise kind("the token was used before", hint="ask for another")

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/torrent": RequestHandler(TorrentRequest, fail)}
    ) as (link, _, _):
        with pytest.raises(kind, match="the token was used before; ask for another"):
            await link.request("/torrent", ASKED, Torrent)


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_a_defect_in_a_handler_costs_one_answer_and_nothing_else(
    both_ways: Any, acceptor_asks: bool
) -> None:
    async def fail(link: Link, request: TorrentRequest) -> Torrent:
        if request == ASKED:
            raise ZeroDivisionError("secret details")
        return Torrent(torrent=b"fine")

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/torrent": RequestHandler(TorrentRequest, fail)}
    ) as (link, _, _):
        with pytest.raises(Unavailable) as caught:
            await link.request("/torrent", ASKED, Torrent)
        assert "secret" not in str(caught.value)
        answer = await link.request("/torrent", TorrentRequest(info_hash="1" * 64), Torrent)
        assert answer.torrent == b"fine"


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_an_unknown_path_is_refused(both_ways: Any, acceptor_asks: bool) -> None:
    async with both_ways(acceptor_asks=acceptor_asks) as (link, _, _):
        with pytest.raises(UsageError, match="/nothing"):
            await link.request("/nothing", ASKED, Torrent)


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_a_body_of_the_wrong_kind_is_refused_and_the_link_lives(
    both_ways: Any, acceptor_asks: bool
) -> None:
    async with both_ways(acceptor_asks=acceptor_asks) as (link, _, _):
        with pytest.raises(PeerError, match="TorrentRequest"):
            await link.request("/torrent", BundleRequest(have={}), Torrent)
        await link.request("/torrent", ASKED, Torrent)


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_an_answer_of_the_wrong_kind_names_the_neighbour(both_ways: Any, acceptor_asks: bool) -> None:
    async with both_ways(acceptor_asks=acceptor_asks) as (link, _, _):
        with pytest.raises(PeerError, match=link.peer):
            await link.request("/torrent", ASKED, Bundle)


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_an_answer_that_is_too_large_is_not_sent(both_ways: Any, acceptor_asks: bool) -> None:
    async def too_much(link: Link, request: TorrentRequest) -> Torrent:
        return Torrent(torrent=bytes(limits.TORRENT_BYTES_MAX + 2 * limits.KIB))

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/torrent": RequestHandler(TorrentRequest, too_much)}
    ) as (link, _, _):
        with pytest.raises(Unavailable, match="too large"):
            await link.request("/torrent", ASKED, Torrent)


async def test_both_sides_ask_at_the_same_time(both_ways: Any) -> None:
    async with both_ways(acceptor_asks=True) as (acceptor, dialler, _), trio.open_nursery() as nursery:

        async def ask(link: Link, number: int) -> None:
            info_hash = f"{number:064x}"
            answer = await link.request("/torrent", TorrentRequest(info_hash=info_hash), Torrent)
            assert answer.torrent == info_hash.encode()

        for number in range(100):
            nursery.start_soon(ask, acceptor, number)
            nursery.start_soon(ask, dialler, 1_000 + number)


async def test_the_acceptor_is_answered_what_the_dialler_answers(linked: Any) -> None:
    caught = []

    async def ask(link: Link) -> None:
        with pytest.raises(UsageError, match="/torrent"):
            await link.request("/torrent", ASKED, Torrent)
        caught.append(link)

    async with linked(on_link=ask) as (link, _):
        await link.wait_ended()
    assert caught


async def test_a_handler_may_ask_back(both_ways: Any) -> None:
    async def ask_back(link: Link, request: TorrentRequest) -> Torrent:
        depth = int(request.info_hash, 16)
        if depth == 0:
            return Torrent(torrent=b"bottom")
        return await link.request("/torrent", TorrentRequest(info_hash=f"{depth - 1:064x}"), Torrent)

    table = {"/torrent": RequestHandler(TorrentRequest, ask_back)}
    async with both_ways(acceptor_asks=False, requests=table) as (link, _, _):
        answer = await link.request("/torrent", TorrentRequest(info_hash=f"{5:064x}"), Torrent)
        assert answer.torrent == b"bottom"


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_a_cancelled_request_cancels_its_handler(both_ways: Any, acceptor_asks: bool) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def wait(link: Link, request: TorrentRequest) -> Torrent:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/torrent": RequestHandler(TorrentRequest, wait)}
    ) as (link, _, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.request, "/torrent", ASKED, Torrent)
            await started.wait()
            nursery.cancel_scope.cancel()
        await cancelled.wait()
        assert link.statistics().requests_under_way == 0
        await link.send(versions(1))


@pytest.mark.parametrize("acceptor_asks", [False, True])
async def test_the_end_of_a_link_cancels_handlers_and_fails_requests(
    both_ways: Any, acceptor_asks: bool
) -> None:
    started, cancelled = trio.Event(), trio.Event()

    async def wait(link: Link, request: TorrentRequest) -> Torrent:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with both_ways(
        acceptor_asks=acceptor_asks, requests={"/torrent": RequestHandler(TorrentRequest, wait)}
    ) as (link, other, _):

        async def ask() -> None:
            with pytest.raises(Unavailable):
                await link.request("/torrent", ASKED, Torrent)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await started.wait()
            await other.aclose()
        await cancelled.wait()
        with pytest.raises(Unavailable):
            await link.request("/torrent", ASKED, Torrent)


async def test_the_iterator_ends_when_either_side_closes(linked: Any) -> None:
    async def three(link: Link) -> None:
        for number in (1, 2, 3):
            await link.send(versions(number))

    async with linked(on_link=three) as (link, _):
        assert [frame async for frame in link.frames()] == [versions(1), versions(2), versions(3)]
        assert "closed the link" in link.end_reason

    ended = trio.Event()

    async def until_end(link: Link) -> None:
        async for _ in link.frames():
            pass
        ended.set()

    async with linked(on_link=until_end) as (link, _):
        await link.send(versions(1))
        await link.aclose()
        await ended.wait()


async def test_what_was_queued_before_closing_still_arrives(linked: Any) -> None:
    arrived: list[AnyFrame] = []
    done = trio.Event()

    async def collect(link: Link) -> None:
        async for frame in link.frames():
            arrived.append(frame)
        done.set()

    large = Attached(carrier="a" * 32, nodes={}, gone=["a" * 32] * 8_192)
    async with linked(on_link=collect) as (link, _):
        for _ in range(5):
            await link.send(large)
        await link.aclose()
        await done.wait()
    assert arrived == [large] * 5


async def test_it_still_arrives_when_the_other_side_is_sending_too(linked: Any) -> None:
    large = Attached(carrier="a" * 32, nodes={}, gone=["a" * 32] * 8_192)
    arrived: list[AnyFrame] = []
    reasons: list[str] = []
    done = trio.Event()

    async def send(link: Link) -> None:
        with contextlib.suppress(Unavailable):
            while True:
                await link.send(large)

    async def collect_and_send(link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, link)
            async for frame in link.frames():
                arrived.append(frame)
        reasons.append(link.end_reason)
        done.set()

    for _ in range(5):
        arrived.clear()
        done = trio.Event()
        async with linked(on_link=collect_and_send) as (link, _):
            await anext(link.frames())
            for _ in range(5):
                await link.send(large)
            await link.aclose()
            await done.wait()
        assert arrived == [large] * 5
    assert all("closed the link" in reason for reason in reasons)


async def test_a_link_that_was_closed_takes_nothing_more(linked: Any) -> None:
    async with linked() as (link, _):
        await link.aclose()
        await link.aclose()
        with pytest.raises(Unavailable):
            link.send_nowait(versions(1))
        with pytest.raises(Unavailable):
            await link.send(versions(1))
        assert [frame async for frame in link.frames()] == []


async def test_cancelling_the_dialler_closes_the_link_cleanly(serving: Any, fleet: Any) -> None:
    reason = ""
    ended = trio.Event()

    async def until_end(link: Link) -> None:
        nonlocal reason
        async for _ in link.frames():
            pass
        reason = link.end_reason
        ended.set()

    async with serving(on_link=until_end) as server:
        with trio.CancelScope() as scope:
            async with open_link(server.host, server.port, identity=fleet.identity(), expect=None):
                scope.cancel()
                await trio.sleep_forever()
        await ended.wait()
    assert "closed the link" in reason


async def test_cancelling_the_server_closes_its_links_cleanly(linked: Any) -> None:
    async with linked() as (link, server):
        server.scope.cancel()
        with trio.CancelScope(shield=True):
            assert [frame async for frame in link.frames()] == []
            assert "closed the link" in link.end_reason


async def test_an_error_in_the_block_comes_out_as_it_is(serving: Any, fleet: Any) -> None:
    async with serving() as server:
        with pytest.raises(ZeroDivisionError):
            async with open_link(server.host, server.port, identity=fleet.identity(), expect=None):
                raise ZeroDivisionError
        with pytest.raises(UsageError, match="mine"):
            async with open_link(server.host, server.port, identity=fleet.identity(), expect=None):
                raise UsageError("mine")


async def test_the_reason_why_an_owner_gives_a_link_up_reaches_the_neighbour(linked: Any) -> None:
    async def refuse(link: Link) -> None:
        await anext(link.frames())
        raise TrustError("you stand outside the scope")

    async def refuse_in_a_nursery(link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refuse, link)

    for on_link in (refuse, refuse_in_a_nursery):
        async with linked(on_link=on_link) as (link, _):
            await link.send(versions(1))
            with pytest.raises(Unavailable, match="you stand outside the scope"):
                await anext(link.frames())


async def test_a_defect_in_the_owner_of_one_link_does_not_hurt_the_others(serving: Any, fleet: Any) -> None:
    async def fragile(link: Link) -> None:
        async for frame in link.frames():
            if frame == versions(13):
                raise ZeroDivisionError
            await link.send(frame)

    async with (
        serving(on_link=fragile) as server,
        open_link(server.host, server.port, identity=fleet.identity(), expect=None) as good,
        open_link(server.host, server.port, identity=fleet.identity(), expect=None) as bad,
    ):
        await bad.send(versions(13))
        assert [frame async for frame in bad.frames()] == []
        await good.send(versions(1))
        assert await anext(good.frames()) == versions(1)


async def test_the_owner_may_cut_the_links_of_one_node_at_once(serving: Any, fleet: Any) -> None:
    async with serving(on_link=echo) as server:
        doomed, other = fleet.identity(), fleet.identity()
        async with (
            open_link(server.host, server.port, identity=doomed, expect=None) as first,
            open_link(server.host, server.port, identity=doomed, expect=None) as second,
            open_link(server.host, server.port, identity=other, expect=None) as third,
        ):
            assert len(server.links) == 3
            assert server.links.cut(fleet.node_of(doomed), "revoked") == 2
            await first.wait_ended()
            await second.wait_ended()
            await third.send(versions(1))
            assert await anext(third.frames()) == versions(1)
            assert server.links.of(fleet.node_of(doomed)) == ()


async def test_a_restarted_server_is_found_again_on_the_same_port(
    linked: Any, serving: Any, fleet: Any
) -> None:
    identity = fleet.identity()
    with AddressRange() as addresses:  # whose ports nobody else takes meanwhile
        host = addresses.host(1)
        async with linked(on_link=echo, identity=identity, host=host) as (link, server):
            server.scope.cancel()
            with trio.CancelScope(shield=True):
                await link.wait_ended()
        async with linked(on_link=echo, identity=identity, host=host, port=server.port) as (link, _):
            await link.send(versions(1))
            assert await anext(link.frames()) == versions(1)


@pytest.mark.slow
async def test_two_hundred_links_at_once(serving: Any, fleet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINK_HANDSHAKE_S", 100.0)  # both ends share one busy process
    async with serving(on_link=echo) as server:
        identity = fleet.identity()
        up = 0
        all_up = trio.Event()

        async def device(number: int) -> None:
            nonlocal up
            async with open_link(server.host, server.port, identity=identity, expect=server.node) as link:
                up += 1
                if up == 200:
                    all_up.set()
                await all_up.wait()
                await link.send(versions(number))
                assert await anext(link.frames()) == versions(number)

        async with trio.open_nursery() as nursery:
            for number in range(1, 201):
                nursery.start_soon(device, number)
        assert up == 200


async def test_links_on_ipv6_work_too(fleet: Any) -> None:
    identity = fleet.identity()

    async def serve(*, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        await serve_links(
            host="::1",
            port=0,
            identity=lambda: identity,
            requests={},
            on_link=echo,
            revoked=lambda node: False,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        try:
            host, port = await nursery.start(serve)
        except UsageError:
            pytest.skip("no IPv6 loopback here")
        async with open_link(host, port, identity=fleet.identity(), expect=None) as link:
            assert link.remote_host == "::1"
        nursery.cancel_scope.cancel()


async def test_a_listening_address_that_is_taken_is_a_usage_error(serving: Any, fleet: Any) -> None:
    async with serving() as server:
        with pytest.raises(UsageError, match=f"127.0.0.1:{server.port}"):
            await serve_links(
                host="127.0.0.1",
                port=server.port,
                identity=fleet.identity,
                requests={},
                on_link=echo,
                revoked=lambda node: False,
            )
