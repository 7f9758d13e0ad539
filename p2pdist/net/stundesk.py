"""STUN beside the links of a node that others are linked to: it answers, and tells them where.

Each neighbour below is told whom it can ask how NATs show it: this node, and whoever this node itself was
told of from above. A gateway on the devices' own network sees no NAT between; the admin server, farther out,
does.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.net.pulse import Pulse
from p2pdist.net.stun import StunAddress, StunService, serve_stun
from p2pdist.wire.frames import StunServers
from p2pdist.wire.stun import Endpoint, endpoint_of

_log = get_logger()
_ENDS = limits.STUN_SERVERS_MAX // 2
Addresses = tuple[StunAddress, ...]
"""Of one responder: one, or two of one family."""


class StunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where a node answers STUN requests.

    Attributes:
        ports: The two ports on each address; 0 takes free ones.
        addresses: Those to answer at; none for those that *listen* stands for.
        listen: Where the node accepts links: an address, or the one that means all.
        enabled: Whether to answer at all.
    """

    ports: tuple[int, int] = (3478, 3479)
    addresses: tuple[StunAddress, ...] = ()
    listen: str = "0.0.0.0"
    enabled: bool = True


class StunDesk:
    """The STUN responders of one node.

    Args:
        settings: Where.
        wanted: Whether this node is to answer now.
    """

    def __init__(self, settings: StunSettings, *, wanted: Callable[[], bool] = lambda: True) -> None:
        self._settings = settings
        self._wanted = wanted
        self._running: dict[Addresses, tuple[StunService, trio.CancelScope]] = {}
        self._above: tuple[Endpoint, ...] = ()
        self._links: dict[Link, None] = {}
        self._hosts: Counter[str] = Counter()
        self._changed = Pulse()
        self._complaint = ""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where this node answers now, the first endpoint of each responder."""
        return tuple(service.endpoints[0] for service, _ in self._running.values())

    def heard(self, servers: StunServers) -> None:
        """The neighbour above says whom can be asked."""
        self._above = tuple(servers.endpoints)
        self._tell_all()

    def look(self) -> None:
        """Look whether this node is to answer: something has changed."""
        self._changed.fire()

    def arrived(self, link: Link) -> None:
        """A link with a neighbour below stands: tell it whom to ask, and whenever that changes."""
        self._links[link] = None
        self._hosts[link.remote_host] += 1
        self._tell(link)

    def gone(self, link: Link) -> None:
        """The link has ended."""
        del self._links[link]
        self._hosts[link.remote_host] -= 1
        if not self._hosts[link.remote_host]:
            del self._hosts[link.remote_host]

    async def run(self) -> None:
        """Answer while it is wanted, until cancelled. What cannot be had is logged, and tried again."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._bring_up_to_date(nursery)
                with trio.move_on_after(limits.STUN_LOOK_S):
                    await self._changed.wait()

    async def _bring_up_to_date(self, nursery: trio.Nursery) -> None:
        groups = self._groups() if self._settings.enabled and self._wanted() else []
        before = self.endpoints
        for addresses in [each for each in self._running if each not in groups]:
            self._running.pop(addresses)[1].cancel()
        complaints = []
        for addresses in groups:
            if addresses not in self._running:
                scope = trio.CancelScope()
                try:
                    service = await nursery.start(self._serve, addresses, scope)
                except P2PDistError as error:
                    complaints.append(str(error))
                    continue
                self._running[addresses] = service, scope
        self._complain("; ".join(complaints))
        if self.endpoints != before:
            _log.info("stun.serving", endpoints=[str(endpoint) for endpoint in self.endpoints])
            self._tell_all()

    async def _serve(
        self,
        addresses: Addresses,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[StunService] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        with scope:
            await serve_stun(addresses, self._settings.ports, known=self._is_known, task_status=task_status)

    def _is_known(self, host: str) -> bool:
        return host in self._hosts

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            self._complaint = complaint
            if complaint:
                _log.warning("stun.off", reason=complaint)

    def _groups(self) -> list[Addresses]:
        """Return the addresses of each responder: public ones of a family together, as devices reach both."""
        if self._settings.addresses:
            return _by_family(self._settings.addresses)
        own = [StunAddress(bind=host) for host in _listening(self._settings.listen)]
        public = [each for each in own if ipaddress.ip_address(each.bind).is_global]
        return _by_family(public) + [(each,) for each in own if each not in public]

    def _tell_all(self) -> None:
        for link in list(self._links):
            self._tell(link)

    def _tell(self, link: Link) -> None:
        own = sorted(self.endpoints, key=lambda endpoint: endpoint.host != link.local_host)
        known = [*own[:_ENDS], *self._above[-_ENDS:]]
        try:
            link.send_nowait(StunServers(endpoints=list(dict.fromkeys(known))))
        except P2PDistError as error:
            _log.info("stun.not_told", host=link.remote_host, reason=str(error))


def _by_family(addresses: Sequence[StunAddress]) -> list[Addresses]:
    families = (
        [each for each in addresses if ":" not in each.bind],
        [each for each in addresses if ":" in each.bind],
    )
    return [tuple(family[start : start + 2]) for family in families for start in range(0, len(family), 2)]


def _listening(host: str) -> Sequence[str]:
    from p2pdist.net.rtc.addresses import host_addresses

    try:
        own = ipaddress.ip_address(host)
    except ValueError:
        return host_addresses()  # a name
    return host_addresses() if own.is_unspecified else [endpoint_of(host, 0).host]
