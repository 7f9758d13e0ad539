"""The command ``p2pdist tunnel``: one session, with as many TCP connections in it as somebody makes.

The admin server is told of each connection before it is made, for the audit log. A session that is lost is
opened anew with the next connection, and so is one of which a server that was restarted knows nothing.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple

import trio
from cyclopts import Parameter

from p2pdist.cli.client import Client, segment
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import errors, say
from p2pdist.cli.visit import Visitor
from p2pdist.cli.words import plain
from p2pdist.errors import P2PDistError, UsageError, sole_error
from p2pdist.net.multiplex import Multiplex, open_multiplex
from p2pdist.net.splicing import splice
from p2pdist.wire import api as wire
from p2pdist.wire.services import TUNNEL_PATH, Tunnel, TunnelOpening

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


def tunnel(
    to: Annotated[str, Parameter(name="DEVICE:PORT")], /, *, local: int = 0, common: Common = DEFAULT
) -> None:
    """Forward a port of this machine to a port of a device, until interrupted.

    The device's own configuration says which ports may be reached ([sessions] tunnel_ports); its log and
    the audit log keep each use. Connect to the printed address with what you would use on the spot: ssh, a
    browser, RDP. For example:

        p2pdist tunnel till-7:22 --local 2222

    and meanwhile, in another window: `ssh -p 2222 root@127.0.0.1`

    Parameters
    ----------
    to
        The device (its name, its id, or the beginning of its id), a colon, and the port.
    local
        The port here, on the loopback interface; any free one by default.
    """
    device, colon, text = to.rpartition(":")
    if not colon or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise UsageError(f"{to!r} is not DEVICE:PORT", hint="for example: p2pdist tunnel till-7:22")
    trio.run(_tunnel, common, device, int(text), local)


async def _tunnel(common: Common, device: str, port: int, local: int) -> None:
    def listening(name: str, bound: int) -> None:
        if common.output == "json":
            sys.stdout.write(json.dumps({"host": "127.0.0.1", "port": bound, "device": name}) + "\n")
            sys.stdout.flush()
        else:
            say(f"127.0.0.1:{bound} leads to port {port} of {name} until you press Ctrl-C")

    with common.client() as client:
        await forward(Visitor(common.target()), client, device, port, local=local, listening=listening)


async def forward(
    visitor: Visitor,
    client: Client,
    device: str,
    port: int,
    *,
    local: int,
    listening: Callable[[str, int], None],
) -> None:
    """Forward connections to a port of the loopback interface to a port of a device, until cancelled.

    Args:
        visitor: Opens the sessions.
        client: The API, which is told of each connection.
        device: Its name, its id, or the beginning of its id.
        port: The device's port.
        local: The port here; 0 is any.
        listening: Called with the device's name and the port here, once connections are taken.

    Raises:
        P2PDistError: the first session could not be opened; see :meth:`.Visitor.visit`.
        UsageError: the local port is in use.
    """

    async def hold(*, task_status: trio.TaskStatus[_Held]) -> None:
        """Hold a session until it ends."""
        held: _Held | None = None
        try:
            async with (
                visitor.visit(device, Tunnel(port=port), better_after_s=0.0) as visit,
                open_multiplex(visit.conversation, dialler=True, peer=visit.info.name) as many,
            ):
                held = _Held(visit.info, many)
                task_status.started(held)
                raise await many.wait_ended()
        except P2PDistError as error:
            if held is None:
                raise
            _complain(f"{error}; the next connection opens another session")
        finally:
            forwarding.ended(held)

    try:
        async with trio.open_nursery() as nursery:
            forwarding = _Forwarding(client, port, lambda: nursery.start(hold))
            held = await forwarding.session()  # what the device refuses is said now
            listeners = await _listen(local)
            listening(held.info.name, listeners[0].socket.getsockname()[1])
            await trio.serve_listeners(forwarding.connect, listeners)
    except BaseExceptionGroup as group:
        raise sole_error(group) from None


class _Held(NamedTuple):
    """A session that stands."""

    info: wire.SessionInfo
    many: Multiplex


class _Forwarding:
    """Puts connections into the present session."""

    def __init__(self, client: Client, port: int, start: Callable[[], Awaitable[_Held]]) -> None:
        self._client = client
        self._port = port
        self._start = start
        self._present: _Held | None = None
        self._opening = trio.Lock()

    async def session(self, *, other_than: _Held | None = None) -> _Held:
        """Return the session that new connections use; open one if there is none, or no other."""
        async with self._opening:
            if self._present is None or self._present is other_than:
                self._present = await self._start()
            return self._present

    def ended(self, held: _Held | None) -> None:
        """A session has ended."""
        if self._present is held:
            self._present = None

    async def connect(self, tcp: trio.SocketStream) -> None:
        """Forward a connection until both sides have ended it."""
        try:
            async with tcp:
                held = await self._noted()
                async with held.many.open_stream(TUNNEL_PATH, TunnelOpening()) as stream:
                    await splice(tcp, stream)
        except (P2PDistError, *_GONE) as error:
            _complain(f"a connection has ended: {error}")

    async def _noted(self) -> _Held:
        """Tell the admin server of a connection; return the session that it goes through."""
        held = await self.session()
        try:
            await self._note(held)
        except UsageError:  # a server that was restarted knows nothing of the session
            held = await self.session(other_than=held)
            await self._note(held)
        return held

    async def _note(self, held: _Held) -> None:
        path = f"/sessions/{segment(held.info.session)}/connections"
        await trio.to_thread.run_sync(self._client.post, path, wire.Done)


async def _listen(local: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(local, host="127.0.0.1")
    except OSError as error:
        raise UsageError(
            f"port {local} is in use here ({error.strerror})", hint="choose another --local"
        ) from None


def _complain(what: str) -> None:
    errors().print(f"p2pdist: {plain(what)}", markup=False)
