"""Sessions: announcing them, and their paths as WebSockets (RFC 6455)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from p2pdist import limits
from p2pdist.core.services import in_words
from p2pdist.errors import UsageError
from p2pdist.ids import NodeId
from p2pdist.server.api.table import Call
from p2pdist.store import devices
from p2pdist.wire import api as wire
from p2pdist.wire.services import Tunnel

if TYPE_CHECKING:
    from p2pdist.server.api.context import Api

_READ_BYTES = 64 * limits.KIB
_GONE = (trio.BrokenResourceError, trio.ClosedResourceError, WebSocketDisconnect)


async def add_session(api: Api, call: Call[wire.NewSession]) -> wire.SessionInfo:
    """Announce a session to a device, and write it down."""
    record = await api.store.read(devices.resolve_device, call.path["id"])
    invite = await api.sessions.announce(
        record.node,
        initiator=NodeId(call.body.initiator),
        authority=call.body.authority.encode(),
        actor=call.actor,
        service=call.body.service,
    )
    carriers = [
        await api.store.read(devices.require_device, node)
        for node in api.service.plane.reach.carriers(record.node)
    ]
    await api.note(
        call,
        "session.announce",
        f"{record.node} {record.name}",
        f"{in_words(call.body.service)} of {record.name}",
    )
    return wire.SessionInfo(
        session=invite.session,
        node=record.node,
        name=record.name,
        expires=invite.expires,
        carriers=tuple(wire.Carrier(node=each.node, name=each.name) for each in carriers),
    )


async def add_connection(api: Api, call: Call[None]) -> wire.Done:
    """Write down that a connection is made through the caller's tunnel."""
    node, service = api.sessions.find(call.path["id"], call.actor)
    if not isinstance(service, Tunnel):
        raise UsageError(f"this session is no tunnel, but: {in_words(service)}", hint="announce another one")
    record = await api.store.read(devices.require_device, node)
    await api.note(
        call,
        "session.connect",
        f"{record.node} {record.name}",
        f"connection to port {service.port} of {record.name}",
    )
    return wire.Done()


async def relay(socket: WebSocket, stream: trio.abc.Stream) -> None:
    """Pass on what comes from either side to the other, until one of them ends."""
    async with trio.open_nursery() as nursery:

        async def upwards() -> None:
            try:
                while data := await stream.receive_some(_READ_BYTES):
                    await socket.send_bytes(bytes(data))
            except _GONE:
                pass
            nursery.cancel_scope.cancel()

        async def downwards() -> None:
            try:
                while True:
                    await stream.send_all(await socket.receive_bytes())
            except (*_GONE, KeyError):  # KeyError: text, which no path carries
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(upwards)
        nursery.start_soon(downwards)
