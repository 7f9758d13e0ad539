"""What a device does in a session: each service on its conversation, until either side has had enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.logs import TAIL, Logger
from p2pdist.net.conversations import Conversation
from p2pdist.net.framing import PREFIX_BYTES
from p2pdist.net.multiplex import open_multiplex
from p2pdist.net.splicing import splice
from p2pdist.net.streaming import OfferedStream, Served
from p2pdist.wire import codec
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.services import (
    TUNNEL_PATH,
    Diagnosis,
    Echo,
    Logs,
    NetworkFacts,
    Reachability,
    Service,
    Tunnel,
    TunnelOpening,
)

_READ_BYTES = 64 * limits.KIB
_LINES_WAITING = 1_000


async def serve(
    conversation: Conversation,
    service: Service,
    *,
    diagnose: Callable[[], Mapping[str, Any]],
    nats: Callable[[], Awaitable[tuple[NatBehaviour, ...]]],
    log: Logger,
) -> None:
    """Serve until the service is over. Cancellation ends it.

    Args:
        conversation: With the initiator.
        service: What was asked for, and is allowed.
        diagnose: Returns what the node thinks of itself.
        nats: Returns what stands between the node and its gateways, once it is known.
        log: The session's; each connection through a tunnel is named in it.

    Raises:
        BrokenResourceError: the initiator is gone.
    """
    match service:
        case Echo():
            async for data in conversation:
                await conversation.send_all(data)
        case Tunnel(port=port):
            await _tunnel(conversation, port, log)
        case Logs(lines=lines, follow=follow):
            await _show_logs(conversation, lines, follow=follow)
        case Diagnosis():
            await conversation.send_all(msgspec.json.encode(diagnose()))
        case Reachability():
            await _tell_network(conversation, nats)


async def _tunnel(conversation: Conversation, port: int, log: Logger) -> None:
    async def connect(opening: TunnelOpening, offered: OfferedStream) -> None:
        tcp = await _connect(port)
        log.info("tunnel.connected", port=port)
        async with tcp:
            await splice(offered.accept(), tcp)

    served = {TUNNEL_PATH: Served(TunnelOpening, connect)}
    async with open_multiplex(conversation, dialler=False, peer=conversation.peer, served=served) as many:
        await many.wait_ended()


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
