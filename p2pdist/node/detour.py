"""A way for content where a firewall lets out to nothing but the port of links: through the link.

Of the neighbour above, a node may reach the port of links and not that of the swarm. Then its own swarm
connects to a port on this machine instead, and each such connection is a byte stream of the link, which the
neighbour carries on to its swarm. It remains a connection of the swarm, with the swarm's TLS from end to end,
inside of the link's: it costs both sides about twice the CPU time, so it is taken only where it has to be.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from p2pdist import limits
from p2pdist.core.listening import listening_hosts
from p2pdist.core.upstream import Upstream
from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.net.link import Link, OfferedStream, StreamHandler
from p2pdist.net.splicing import splice
from p2pdist.wire.detours import SWARM_PATH, SwarmOpening
from p2pdist.wire.frames import Candidate

_log = get_logger()

_GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}

Way = tuple[str, int]


class Above(Protocol):
    """The neighbour above; see :class:`~p2pdist.node.uplink.Uplink`."""

    @property
    def upstream(self) -> Upstream | None:
        """The neighbour that carries this node now."""

    @property
    def link(self) -> Link | None:
        """The link that stands now."""


class Detour:
    """The detour of one node, while :meth:`run` runs.

    Args:
        above: The neighbour above.
        host: Where this node's swarm listens.
        changed: Called when another way than before is to be dialled to the neighbour's swarm.
    """

    def __init__(self, above: Above, host: str, changed: Callable[[], None]) -> None:
        self._above = above
        self._host = own_host(host)
        self._changed = changed
        self._port = 0
        self._link: Link | None = None
        self._looked: dict[Way, bool] = {}
        self._look, self._to_look = trio.open_memory_channel[tuple[Way, dict[Way, bool]]](
            limits.DETOURS_LOOKED_AT_MAX
        )

    def way(self, source: Candidate) -> Way:
        """Return where to dial a source.

        It is where the source says, but for the neighbour above where its swarm does not answer there. As
        long as nothing is known of that it is dialled where it is, and looked at meanwhile.
        """
        direct = (source.host, source.port)
        upstream, link = self._above.upstream, self._above.link
        if upstream is None or upstream.node != source.node:
            return direct
        if link is not self._link:  # maybe from another network: look again
            self._link, self._looked = link, {}
        if direct not in self._looked and len(self._looked) < limits.DETOURS_LOOKED_AT_MAX:
            self._looked[direct] = True
            with suppress(trio.WouldBlock):
                self._look.send_nowait((direct, self._looked))
        return direct if self._looked.get(direct, True) or not self._port else (self._host, self._port)

    async def run(self) -> None:
        """Look, and carry, until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host=self._host)
            self._port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(trio.serve_listeners, self._carry, listeners)
            async for way, looked in self._to_look:
                nursery.start_soon(self._look_at, way, looked)

    async def _look_at(self, way: Way, looked: dict[Way, bool]) -> None:
        answered = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._leave_in_time, way, looked, answered)
            try:
                with trio.move_on_after(limits.DETOUR_LOOK_S):
                    await (await trio.open_tcp_stream(*way)).aclose()
                    answered.set()
            except OSError as error:
                self._go(way, looked, direct=False, reason=error.strerror or str(error))
            nursery.cancel_scope.cancel()
        if answered.is_set() and not looked[way]:  # late: it is far, or packets were lost
            self._go(way, looked, direct=True, reason="it answered after all")

    async def _leave_in_time(self, way: Way, looked: dict[Way, bool], answered: trio.Event) -> None:
        with trio.move_on_after(limits.DETOUR_AFTER_S):
            await answered.wait()
        if not answered.is_set():
            self._go(way, looked, direct=False, reason=f"no answer within {limits.DETOUR_AFTER_S:g} s")

    def _go(self, way: Way, looked: dict[Way, bool], *, direct: bool, reason: str) -> None:
        if looked[way] == direct:
            return
        looked[way] = direct
        event = "content.detour_left" if direct else "content.detour"
        _log.info(event, host=way[0], port=way[1], reason=reason)
        self._changed()

    async def _carry(self, connection: trio.SocketStream) -> None:
        link = self._above.link
        if link is None:
            return
        try:
            async with link.open_stream(SWARM_PATH, SwarmOpening()) as stream:
                await splice(connection, stream)
        except (P2PDistError, *_GONE) as error:
            _log.debug("content.detour_ended", reason=str(error))


def swarm_streams(host: str, port: Callable[[], int]) -> StreamHandler:
    """Return what carries on the streams of nodes below: each to this node's own swarm.

    Args:
        host: Where the swarm listens.
        port: Returns its port.
    """

    async def serve(link: Link, opening: SwarmOpening, offered: OfferedStream) -> None:
        try:
            async with await trio.open_tcp_stream(own_host(host), port()) as connection:
                await splice(offered.accept(), connection)
        except _GONE as error:
            _log.debug("content.detour_ended", reason=str(error))

    return StreamHandler(SwarmOpening, serve)


def own_host(host: str) -> str:
    """Return the address at which this machine reaches what listens on *host*."""
    first = listening_hosts(host)[0]
    return _WILDCARDS.get(first, first)
