"""Dialling: from the addresses of a neighbour to a link."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from p2pdist import limits
from p2pdist.errors import PeerError, TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.net.answering import RequestTable
from p2pdist.net.endpoints import format_endpoint
from p2pdist.net.established import Link
from p2pdist.net.racing import Address, first_to_answer
from p2pdist.net.secure import SecureStream
from p2pdist.net.streaming import StreamTable
from p2pdist.net.tls import PROTOCOL, TlsIdentity, client_context, failure, lapsed_context, stranger_context
from p2pdist.trust.certificates import NodeCertificate, parse_certificate


@dataclass(frozen=True, slots=True)
class _Answered:
    """A link with somebody who is whom we expect, before its first byte; and where that is."""

    link: Link
    sever: Callable[[], None]
    where: str


@asynccontextmanager
async def open_link(
    host: str,
    port: int,
    *,
    identity: TlsIdentity,
    expect: NodeId | None,
    requests: RequestTable | None = None,
    streams: StreamTable | None = None,
    local_host: str | None = None,
    others: Sequence[Address] = (),
) -> AsyncIterator[Link]:
    """Dial a neighbour; the block has the link, and leaving the block or cancelling it closes it.

    The neighbour has accepted the link when the block begins. An exception of the block comes out as
    it is. The whole handshake takes at most :data:`~p2pdist.limits.LINK_HANDSHAKE_S`.

    Args:
        host: A name or an address; all addresses of a name are tried.
        port: A TCP port.
        identity: What we show, and whom we believe.
        expect: The node that has to answer; None takes any member of the fleet.
        requests: What the neighbour may ask of us.
        streams: What byte streams it may open to us.
        local_host: The address to dial from; None leaves it to the system.
        others: Further addresses of the neighbour; see :func:`~p2pdist.net.racing.first_to_answer`.

    Raises:
        Unavailable: nobody answers there in time, or the neighbour has no room.
        TrustError: who answers is not a member or not the expected one, or refuses us.
        PeerError: something else answers there.
    """
    async with _open(
        host,
        port,
        client_context(identity),
        expect=expect,
        requests=requests or {},
        streams=streams or {},
        member=True,
        local_host=local_host,
        others=others,
    ) as link:
        yield link


@asynccontextmanager
async def open_stranger_link(
    host: str,
    port: int,
    *,
    ca_pem: bytes,
    expect: NodeId | None,
    local_host: str | None = None,
    others: Sequence[Address] = (),
) -> AsyncIterator[Link]:
    """Dial without a certificate of our own, for the requests that admit strangers.

    Otherwise like :func:`open_link`. Such a link carries no frames, and the neighbour ends it after
    :data:`~p2pdist.limits.LINK_STRANGER_S`.
    """
    context = stranger_context(ca_pem)
    async with _open(
        host,
        port,
        context,
        expect=expect,
        requests={},
        streams={},
        member=False,
        local_host=local_host,
        others=others,
    ) as link:
        yield link


@asynccontextmanager
async def open_lapsed_link(
    host: str,
    port: int,
    *,
    identity: TlsIdentity,
    expect: NodeId,
    local_host: str | None = None,
    others: Sequence[Address] = (),
) -> AsyncIterator[Link]:
    """Dial a member whose certificate has run out, to bring it another one and for nothing else.

    Otherwise like :func:`open_link`; we serve nothing on it. Only a request that is made on the link
    notices when the other side falls silent.
    """
    async with _open(
        host,
        port,
        lapsed_context(identity),
        expect=expect,
        requests={},
        streams={},
        member=True,
        local_host=local_host,
        others=others,
        watched=True,  # whoever watches would end it for its certificate
    ) as link:
        yield link


@asynccontextmanager
async def _open(
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    expect: NodeId | None,
    requests: RequestTable,
    streams: StreamTable,
    member: bool,
    local_host: str | None,
    others: Sequence[Address],
    watched: bool = False,
) -> AsyncIterator[Link]:
    deadline = trio.current_time() + limits.LINK_HANDSHAKE_S

    async def dial(host: str, port: int) -> _Answered:
        where = format_endpoint(host, port)
        stream = await _connect(host, port, where, context, local_host, deadline)
        try:
            remote = _checked(stream, where, expect)
            local_address, remote_address = stream.addresses()
            link = Link(
                stream,
                dialler=True,
                remote=remote,
                remote_host=remote_address,
                local_host=local_address,
                requests=requests,
                streams=streams,
                member=member,
                sever=stream.sever,
            )
        except OSError as error:
            stream.sever()
            raise Unavailable(f"the connection with {where} was lost ({error.strerror})") from error
        except BaseException:
            stream.sever()
            raise
        return _Answered(link, stream.sever, where)

    answered = await first_to_answer(((host, port), *others), dial, discard=lambda late: late.sever())
    link = answered.link
    async with link.running(watched=watched):
        with trio.move_on_at(deadline) as scope:
            await link.wait_established()
        if scope.cancelled_caught:
            raise _too_slow(answered.where)
        yield link


async def _connect(
    host: str, port: int, where: str, context: ssl.SSLContext, local_host: str | None, deadline: float
) -> SecureStream:
    try:
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(host, port, local_address=local_host)
            _notice_its_loss(tcp)
            stream = SecureStream(tcp, context, server_side=False)
            try:
                await stream.do_handshake()
            except BaseException:
                stream.sever()
                raise
    except trio.TooSlowError:
        raise _too_slow(where) from None
    except trio.BrokenResourceError as error:
        raise failure(where, error) from error
    except OSError as error:
        raise Unavailable(
            f"{where} cannot be reached ({_reason(error)})", hint="check the address and the network"
        ) from error
    return stream


def _notice_its_loss(tcp: trio.SocketStream) -> None:
    """Have the kernel end the connection within seconds when the other machine is out of reach.

    It asks the other kernel, so that an idle link costs neither program anything.
    """
    for option, value in (
        (socket.TCP_KEEPIDLE, limits.LINK_PROBE_AFTER_S),
        (socket.TCP_KEEPINTVL, limits.LINK_PROBE_EVERY_S),
        (socket.TCP_USER_TIMEOUT, limits.LINK_UNREACHABLE_S * 1_000),
    ):
        tcp.setsockopt(socket.IPPROTO_TCP, option, value)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _checked(stream: SecureStream, where: str, expect: NodeId | None) -> NodeCertificate:
    """Return what the other side's certificate says. TLS has verified it."""
    if stream.protocol() != PROTOCOL:
        raise PeerError(f"what answers at {where} is not a p2pdist node of this version")
    remote = parse_certificate(stream.certificate() or b"")
    if expect is not None and remote.node != expect:
        raise TrustError(
            f"{remote.node} answers at {where}, where {expect} was expected", hint="check the address"
        )
    return remote


def _too_slow(where: str) -> Unavailable:
    return Unavailable(f"{where} did not answer within {limits.LINK_HANDSHAKE_S:g} s", hint="try again later")


def _reason(error: BaseException) -> str:
    """Find the cause behind a failed dial: trio reports one error for all addresses that it tried."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(dict.fromkeys(_reason(each) for each in error.exceptions))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.rpartition("): ")[2]  # trio puts the address before it
    return _reason(error.__cause__) if error.__cause__ is not None else str(error)
