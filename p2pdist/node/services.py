"""What a device does in a session: each service on its conversation, until either side has had enough."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.logs import TAIL
from p2pdist.net.conversations import Conversation
from p2pdist.net.framing import PREFIX_BYTES
from p2pdist.net.splicing import splice
from p2pdist.wire import codec
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.services import Diagnosis, Echo, Logs, NetworkFacts, Reachability, Service, Tunnel

_READ_BYTES = 64 * limits.KIB
_LINES_WAITING = 1_000


Serve = Callable[[Conversation], Awaitable[None]]
"""Serves until the service is over, or cancelled. Raises BrokenResourceError when the other side is gone."""


@asynccontextmanager
async def open_service(
    service: Service,
    *,
    diagnose: Callable[[], Mapping[str, Any]],
    nats: Callable[[], Awaitable[tuple[NatBehaviour, ...]]],
) -> AsyncIterator[Serve]:
    """Get a service ready, before its initiator is told that it begins; the block serves it.

    Args:
        service: What was asked for, and is allowed.
        diagnose: Returns what the node thinks of itself.
        nats: Returns what stands between the node and its gateways, once it is known.

    Raises:
        Unavailable: the port of a tunnel does not answer.
    """
    match service:
        case Echo():
            yield _echo
        case Tunnel(port=port):
            async with await _connect(port) as tcp:
                yield partial(splice, tcp)
        case Logs(lines=lines, follow=follow):
            yield partial(_show_logs, lines=lines, follow=follow)
        case Diagnosis():
            yield lambda conversation: conversation.send_all(msgspec.json.encode(diagnose()))
        case Reachability():
            yield partial(_tell_network, nats=nats)


async def _connect(port: int) -> trio.SocketStream:
    try:
        with trio.fail_after(limits.TUNNEL_CONNECT_S):
            return await trio.open_tcp_stream("localhost", port)
    except trio.TooSlowError:
        raise Unavailable(
            f"port {port} of the device did not answer within {limits.TUNNEL_CONNECT_S:g} s",
            hint="the program there may hang: look at it, or start it anew",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"port {port} of the device does not answer: nothing listens there on localhost",
            hint="start the program there, or see at which address it listens",
        ) from error


async def _echo(conversation: Conversation) -> None:
    async for data in conversation:
        await conversation.send_all(data)


async def _tell_network(
    conversation: Conversation, nats: Callable[[], Awaitable[tuple[NatBehaviour, ...]]]
) -> None:
    async def tell() -> None:
        facts = codec.encode(NetworkFacts(nats=await nats()))
        with suppress(trio.BrokenResourceError):  # which the other task hears
            await conversation.send_all(len(facts).to_bytes(PREFIX_BYTES, "big") + facts)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell)
        async for _ in conversation:  # nothing but signals, until the initiator has seen enough
            pass
        nursery.cancel_scope.cancel()


async def _show_logs(conversation: Conversation, lines: int, *, follow: bool) -> None:
    send, receive = trio.open_memory_channel[str](_LINES_WAITING)
    lost = 0

    def take(line: str) -> None:
        nonlocal lost
        try:
            send.send_nowait(line)
        except trio.WouldBlock:
            lost += 1

    async def end_with_reader(scope: trio.CancelScope) -> None:
        async for _ in conversation:
            pass
        scope.cancel()

    with TAIL.listening(take):
        for line in TAIL.last(lines):
            await conversation.send_all(f"{line}\n".encode())
        if not follow:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_with_reader, nursery.cancel_scope)
            async for line in receive:
                if lost:
                    missing, lost = lost, 0
                    await conversation.send_all(f"… {missing} lines are missing\n".encode())
                await conversation.send_all(f"{line}\n".encode())
