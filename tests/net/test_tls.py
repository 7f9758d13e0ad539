"""Who is let in: certificates, on both sides of a link."""

from __future__ import annotations

import dataclasses
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio

from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.net.link import Link, RequestHandler, open_link, open_stranger_link
from p2pdist.net.tls import TlsIdentity, client_context, server_context, stranger_context
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import Torrent, TorrentRequest

ASKED = TorrentRequest(info_hash="0" * 64)
YESTERDAY = timedelta(days=1)


async def refused_dial(server: Any, identity: TlsIdentity, expect: Any = None) -> P2PDistError:
    """Dial, and return the error with which the dial fails."""
    with pytest.raises(P2PDistError) as caught:
        async with open_link(server.host, server.port, identity=identity, expect=expect):
            pass
    return caught.value


async def test_a_server_of_another_fleet_is_not_trusted(serving: Any, fleet: Any) -> None:
    other = type(fleet)()
    async with serving(identity=other.identity(ca_pem=fleet.authority.certificate_pem)) as server:
        error = await refused_dial(server, fleet.identity())

    assert isinstance(error, TrustError)
    assert f"127.0.0.1:{server.port}" in str(error)


async def test_a_device_of_another_fleet_is_refused_and_told(serving: Any, fleet: Any) -> None:
    links = []

    async def on_link(link: Link) -> None:
        links.append(link)

    other = type(fleet)()
    async with serving(on_link=on_link) as server:
        error = await refused_dial(server, other.identity(ca_pem=fleet.authority.certificate_pem))

    assert isinstance(error, TrustError)
    assert "refuses our certificate" in str(error)
    assert links == []


async def test_a_device_whose_certificate_has_expired_is_refused_and_told(serving: Any, fleet: Any) -> None:
    expired = fleet.identity(now=datetime.now(UTC) - YESTERDAY, life_s=60)
    async with serving() as server:
        error = await refused_dial(server, expired)

    assert isinstance(error, TrustError)
    assert "expired" in str(error)


async def test_a_server_whose_certificate_has_expired_is_not_trusted(serving: Any, fleet: Any) -> None:
    expired = fleet.identity(now=datetime.now(UTC) - YESTERDAY, life_s=60)
    async with serving(identity=expired) as server:
        error = await refused_dial(server, fleet.identity())

    assert isinstance(error, TrustError)
    assert "expired" in str(error)


async def test_a_certificate_from_the_future_is_not_trusted(serving: Any, fleet: Any) -> None:
    early = fleet.identity(now=datetime.now(UTC) + YESTERDAY)
    async with serving(identity=early) as server:
        assert isinstance(await refused_dial(server, fleet.identity()), TrustError)


async def test_another_member_than_the_expected_one_is_not_taken(serving: Any, fleet: Any) -> None:
    expected = IdentityKey.generate().node
    async with serving() as server:
        error = await refused_dial(server, fleet.identity(), expect=expected)

    assert isinstance(error, TrustError)
    assert expected in str(error)
    assert server.node in str(error)


async def test_a_certificate_without_its_key_is_of_no_use(fleet: Any) -> None:
    stolen = dataclasses.replace(fleet.identity(), key_pem=fleet.identity().key_pem)

    with pytest.raises(UsageError, match="fit together"):
        client_context(stolen)
    with pytest.raises(UsageError, match="fit together"):
        server_context(stolen)


@pytest.mark.parametrize("damaged", [b"", b"-----BEGIN CERTIFICATE-----", "schlüssel".encode()])
def test_a_damaged_ca_certificate_is_a_usage_error(damaged: bytes) -> None:
    with pytest.raises(UsageError, match="CA certificate"):
        stranger_context(damaged)


@pytest.mark.parametrize("damaged", [b"", b"nonsense"])
def test_a_damaged_own_certificate_is_a_usage_error(damaged: bytes, fleet: Any) -> None:
    with pytest.raises(UsageError, match="enrol"):
        client_context(dataclasses.replace(fleet.identity(), certificate_pem=damaged))


def test_an_identity_does_not_show_its_key(fleet: Any) -> None:
    assert "PRIVATE" not in repr(fleet.identity())


def test_making_contexts_leaves_no_file_open(fleet: Any) -> None:
    identity = fleet.identity()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        client_context(identity)
        server_context(identity)

    assert len(list(Path("/proc/self/fd").iterdir())) <= before


async def test_a_revoked_node_is_told_so_and_gets_nothing(serving: Any, fleet: Any) -> None:
    revoked = fleet.identity()
    welcome = fleet.identity()
    nodes = []

    async def on_link(link: Link) -> None:
        nodes.append(link.remote and link.remote.node)
        await link.wait_ended()

    async with serving(on_link=on_link, revoked={fleet.node_of(revoked)}.__contains__) as server:
        error = await refused_dial(server, revoked)
        assert isinstance(error, TrustError)
        assert "not a member" in str(error)
        async with open_link(server.host, server.port, identity=welcome, expect=None) as link:
            await link.request("/torrent", ASKED, Torrent)

    assert nodes == [fleet.node_of(welcome)]


async def test_a_stranger_may_only_ask_what_admits_strangers(serving: Any, fleet: Any) -> None:
    links = []

    async def on_link(link: Link) -> None:
        links.append(link)

    async with (
        serving(on_link=on_link) as server,
        open_stranger_link(
            server.host, server.port, ca_pem=fleet.authority.certificate_pem, expect=server.node
        ) as link,
    ):
        assert await link.request("/enrol", ASKED, Torrent)
        with pytest.raises(TrustError, match="certificate"):
            await link.request("/torrent", ASKED, Torrent)
        with pytest.raises(TrustError, match="certificate"):
            await link.request("/nothing", ASKED, Torrent)
        with pytest.raises(UsageError, match="no frames"):
            await link.send(MetadataVersions(versions={}))
    assert links == []


async def test_a_handler_sees_that_a_stranger_is_one(serving: Any, fleet: Any) -> None:
    async def who(link: Link, request: TorrentRequest) -> Torrent:
        assert link.remote is None
        return Torrent(torrent=link.remote_host.encode())

    async with (
        serving(requests={"/enrol": RequestHandler(TorrentRequest, who, strangers=True)}) as server,
        open_stranger_link(
            server.host,
            server.port,
            ca_pem=fleet.authority.certificate_pem,
            expect=None,
            local_host="127.0.0.77",
        ) as link,
    ):
        assert (await link.request("/enrol", ASKED, Torrent)).torrent == b"127.0.0.77"


async def test_a_stranger_checks_the_server_too(serving: Any, fleet: Any) -> None:
    other = type(fleet)()
    async with serving(identity=other.identity()) as server:
        with pytest.raises(TrustError):
            async with open_stranger_link(
                server.host, server.port, ca_pem=fleet.authority.certificate_pem, expect=None
            ):
                pass


async def test_a_stranger_that_opens_the_control_stream_is_refused(serving: Any, fleet: Any) -> None:
    async with serving() as server:
        tcp = await trio.open_tcp_stream(server.host, server.port)
        stream = trio.SSLStream(tcp, stranger_context(fleet.authority.certificate_pem))
        link = Link(
            stream,
            dialler=True,
            remote=None,
            remote_host="test",
            local_host="test",
            requests={},
            streams={},
            member=True,
            sever=tcp.socket.close,
        )
        async with link.running():
            with pytest.raises(TrustError, match="certificate"):
                await link.wait_established()


async def test_new_links_use_the_newest_certificate(fleet: Any, serving: Any) -> None:
    key = IdentityKey.generate()
    shown = [fleet.identity(key)]
    async with serving(identity=lambda: shown[-1]) as server:
        serials = []
        for _ in range(2):
            async with open_link(
                server.host, server.port, identity=fleet.identity(), expect=key.node
            ) as link:
                assert link.remote is not None
                serials.append(link.remote.serial)
            shown.append(fleet.identity(key))
    assert serials[0] != serials[1]


async def test_an_older_tls_is_not_spoken(serving: Any, fleet: Any) -> None:
    async with serving() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        stream = trio.SSLStream(await trio.open_tcp_stream(server.host, server.port), context)
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)


async def test_somebody_who_speaks_another_protocol_is_turned_away(serving: Any, fleet: Any) -> None:
    async with serving() as server:
        context = client_context(fleet.identity())
        context.set_alpn_protocols(["h2"])
        stream = trio.SSLStream(await trio.open_tcp_stream(server.host, server.port), context)
        await stream.do_handshake()
        try:
            received = await stream.receive_some()
        except trio.BrokenResourceError:
            received = b""  # the end came as a reset, or without TLS's own goodbye
        finally:
            await trio.aclose_forcefully(stream)
        assert received == b""


async def test_a_server_of_another_protocol_is_named(fleet: Any) -> None:
    context = server_context(fleet.identity())
    context.set_alpn_protocols(["h2"])
    listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
    port = listeners[0].transport_listener.socket.getsockname()[1]

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with trio.move_on_after(5):
            try:
                await stream.receive_some()
            except trio.BrokenResourceError:
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        with pytest.raises(PeerError, match=f"127.0.0.1:{port}"):
            async with open_link("127.0.0.1", port, identity=fleet.identity(), expect=None):
                pass
        nursery.cancel_scope.cancel()


async def test_where_nobody_listens_there_is_no_link(fleet: Any) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()

    with pytest.raises(Unavailable, match=rf"127.0.0.1:{port} cannot be reached \(Connection refused\)"):
        async with open_link("127.0.0.1", port, identity=fleet.identity(), expect=None):
            pass


async def test_a_name_that_does_not_exist_cannot_be_reached(fleet: Any) -> None:
    with pytest.raises(Unavailable, match="no-such-host"):
        async with open_link("no-such-host.invalid", 7, identity=fleet.identity(), expect=None):
            pass
