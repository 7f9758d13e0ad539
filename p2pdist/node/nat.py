"""What stands between this node and its gateways: looked at when a link stands, and kept.

A look takes up to nine seconds, so it is made before anybody asks. The probe is imported with the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from p2pdist import limits
from p2pdist.logs import get_logger
from p2pdist.wire.frames import StunServers
from p2pdist.wire.nat import NatBehaviour
from p2pdist.wire.stun import Endpoint

_log = get_logger()


class NatWatch:
    """The NATs before this node, as far as they are known.

    Args:
        local_host: The address that the node is to use; None for the system's choice.
        sends: Whether this node may send anybody a datagram unasked; a point that is dialled may not.
        ports: The UDP ports that direct and punched paths are to use; 0 is the system's choice.

    Attributes:
        servers: Whom the node, and who visits it, can ask how NATs show them; the nearest gateway first.
        behaviours: What was found out last.
    """

    def __init__(
        self,
        local_host: str | None = None,
        *,
        sends: Callable[[], bool] = lambda: True,
        ports: Sequence[int] = (0,),
    ) -> None:
        self.sends = sends
        self.ports = ports
        self.hosts = [local_host] if local_host else None
        self.servers: tuple[Endpoint, ...] = ()
        self.behaviours: tuple[NatBehaviour, ...] = ()
        self._moved = False
        self._asked = trio.Event()
        self._known = trio.Event()

    def linked(self) -> None:
        """A new link stands, perhaps from another network."""
        self._moved = True

    def told(self, servers: StunServers) -> None:
        """The neighbour above says whom can be asked: on each new link, and when it changes."""
        if not self.sends():
            self.behaviours = ()
        elif self._moved or self.servers != tuple(servers.endpoints):
            self._asked.set()
            self._known = trio.Event()
        self.servers, self._moved = tuple(servers.endpoints), False

    async def wait_known(self) -> tuple[NatBehaviour, ...]:
        """Return what was found out, once a look that is due or under way is over; nothing if it takes long.

        Who sends nobody anything finds out nothing, and says so at once.
        """
        if not self.sends():
            return ()
        with trio.move_on_after(limits.PROBES_KNOWN_S):
            await self._known.wait()
            return self.behaviours
        return ()

    async def run(self) -> None:
        """Look whenever there is reason to, until cancelled."""
        while True:
            await self._asked.wait()
            await trio.sleep(limits.PROBES_SETTLE_S)
            self._asked = trio.Event()
            self.behaviours = tuple(await _look(self.servers)) if self.sends() else ()
            if not self._asked.is_set():  # else it has moved meanwhile
                self._known.set()
            for behaviour in self.behaviours:
                _log.info("nat.seen", gateway=str(behaviour.gateway), nat=behaviour.describe())
            await trio.sleep(limits.PROBES_EVERY_S)


async def _look(servers: Sequence[Endpoint]) -> Sequence[NatBehaviour]:
    from p2pdist.net.natprobe import probe_nats

    return await probe_nats(servers)
