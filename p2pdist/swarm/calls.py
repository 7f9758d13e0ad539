"""Calls: connections to nodes that cannot be dialled, because NATs or firewalls stand before both.

The socket of uTP belongs to libtorrent. Three things of its make calls possible (decision 0070):

- A tracker with a ``udp:`` address gets a datagram from that very socket, as soon as a torrent has it.
  Observers see the socket's outside endpoint in it; and one to a peer's endpoint opens our NAT for the peer,
  which throws it away.
- ``enable_outgoing_utp`` and ``enable_outgoing_tcp`` say for each connection, at the moment it is made, over
  what. They are changed only while a call is being made, and nobody is dialled meanwhile: everything that can
  be dialled goes over TCP, since TLS over uTP costs twice the CPU.
- uTP's first packet is sent once; but a connection that fails over uTP is made again at once. So it is
  repeated for as long as :meth:`Calls.run` names the peer again.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import libtorrent as lt
import trio

from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.carried import Carried
from p2pdist.swarm.ledger import NodeBook
from p2pdist.swarm.links import LinkClasses
from p2pdist.swarm.model import ReachChanged
from p2pdist.swarm.tuning import UTP_CONNECT_MS
from p2pdist.wire.frames import Endpoint, Path

if TYPE_CHECKING:
    from libtorrent import settings_pack

REPEAT_S: Final = 1.8
"""How long uTP's first packet is repeated: the other side may be late, or its packet may be lost."""

LOOK_S: Final = 0.5
CALL_LOOK_S: Final = 0.2
"""How often it is looked at who is connected, while that matters, and while a call is being made."""

CALLS_WAITING_MAX: Final = 64
"""Calls that were asked for and have not begun; what is beyond is not made."""

FAMILY_S: Final = 0.3
"""How long a call goes to an address of one family alone; see RFC 8305, section 5."""

TRACKERS_S: Final = 10.0
"""How long the trackers stay that were added; by then their datagrams have come, or are lost."""

HELD_BACK_S: Final = 6.0
DIALLING_S: Final = 2.0
"""After so long in which nobody could be dialled no call begins, until there was time to dial everybody:
libtorrent dials once a second, TLS needs some round trips."""

_UTP_SOCKET: Final = 1 << 17  # peer_info::utp_socket, which the bindings do not name
_CALLING: Final[settings_pack] = {"enable_outgoing_utp": True, "enable_outgoing_tcp": False}
_DIALLING: Final[settings_pack] = {"enable_outgoing_utp": False, "enable_outgoing_tcp": True}


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One call: to which node, at which addresses, since when; monotonic seconds."""

    carried: Carried
    node: NodeId
    endpoints: tuple[Endpoint, ...]
    dials: bool
    begun: float = 0.0

    def dialled(self, now: float) -> tuple[Endpoint, ...]:
        """Where the packet is sent now: at first to one, and nowhere once somebody has answered.

        Of two connections at once both may be closed.
        """
        if any(endpoint.host in self.carried.answering for endpoint in self.endpoints):
            return ()
        return self.endpoints[: 1 if now < self.begun + FAMILY_S else None]


class Calls:
    """Makes the calls of one session, and looks at who is connected.

    Args:
        session: libtorrent's session.
        carried: The artifacts in it; kept by the caller.
        book: Whose peer ids are known.
        links: Closes the connections to addresses, and forgets the peers there.
        emit: Takes the event that other sources of an artifact than before cannot be reached.
        redial: Dials all sources that are not connected: a dial was held back.
    """

    def __init__(
        self,
        session: lt.session,
        carried: Mapping[InfoHash, Carried],
        book: NodeBook,
        links: LinkClasses,
        emit: Callable[[ReachChanged], None],
        redial: Callable[[], None],
    ) -> None:
        self._session = session
        self._carried = carried
        self._book = book
        self._links = links
        self._emit = emit
        self._redial = redial
        self._new: list[Call] = []
        self._calls: list[Call] = []
        self._held_back = False
        self._held_since = -math.inf
        self._next_call_at = -math.inf
        self._observers: tuple[Endpoint, ...] = ()
        self._trackers: dict[InfoHash, dict[str, float]] = {}
        self._due = trio.Event()

    def show(self, info_hash: InfoHash, observers: Sequence[Endpoint], token: str) -> None:
        """Let observers see from where this swarm's uTP comes. Nothing happens for what is not carried."""
        self._observers = tuple(observers)
        carried = self._carried.get(info_hash)
        if carried is not None:
            for observer in observers:
                self._send_datagram(carried, observer, token)

    def call(self, info_hash: InfoHash, node: NodeId, endpoints: Sequence[Endpoint], *, dials: bool) -> None:
        """Open this node's NAT for another's endpoints, and with *dials* connect to them over uTP.

        Nothing happens for what is not carried, or where the two are connected already.
        """
        carried = self._carried.get(info_hash)
        if carried is not None and len(self._new) < CALLS_WAITING_MAX:
            self._book.learn(node)
            call = Call(carried=carried, node=node, endpoints=tuple(endpoints), dials=dials)
            self._new.append(call)
            self._due.set()

    def holds_back(self) -> bool:
        """Tell whether nobody can be dialled now, because it would be over uTP; then that is done later."""
        self._held_back |= bool(self._calls)
        return bool(self._calls)

    def sources_changed(self, carried: Carried) -> None:
        """An artifact has other sources: who could not be reached for another one is not waited for here."""
        now = trio.current_time()
        others = [other.reach for other in self._carried.values() if other is not carried]
        for reach in others:
            missed = reach.missed_since(now)
            there = {n: at for n, at in missed.items() if not any(other.is_linked(n) for other in others)}
            carried.reach.handle_missed_elsewhere(there)
        self._tell_reach(carried)
        self._due.set()

    async def run(self) -> None:
        """Make calls, and look at who is connected while it matters, until cancelled."""
        due_since: float | None = None
        while True:
            await self._due.wait()
            self._due = trio.Event()
            due_since = trio.current_time() if due_since is None else due_since
            for call in self._take_new(trio.current_time()):
                await self._begin(call)
            with trio.move_on_at(self._next_look(due_since)):
                await self._due.wait()
                continue
            due_since, now = None, trio.current_time()
            for carried in list(self._carried.values()):
                if carried.is_watched(now):
                    self._due.set()
                    await self.look_at(carried)
            await self._go_on()
            self._forget_trackers(trio.current_time())
            if self._calls or self._new or self._trackers:
                self._due.set()

    def _next_look(self, since: float) -> float:
        """Return when to look again: soon, and sooner where somebody should be connected by then."""
        now = trio.current_time()
        awaited = min((each.reach.next_look(now) for each in self._carried.values()), default=math.inf)
        return min(since + (CALL_LOOK_S if self._calls else LOOK_S), awaited)

    async def look_at(self, carried: Carried) -> Sequence[lt.peer_info]:
        """See who is connected to this node for an artifact, and dial who should be and is not."""
        async with carried.changing:
            if not carried.present:
                return ()
            peers = await trio.to_thread.run_sync(carried.handle.get_peer_info)
        now = trio.current_time()
        carried.answering = {peer.ip[0] for peer in peers if not peer.flags & lt.peer_info.connecting}
        carried.reach.handle_linked(paths_of(peers, self._book), now, answering=carried.answering)
        for endpoint in () if self.holds_back() else carried.reach.next_endpoints(now):
            carried.handle.connect_peer((endpoint.host, endpoint.port))
        self._tell_reach(carried)
        return peers

    def _tell_reach(self, carried: Carried) -> None:
        if carried.reach.unreached != carried.unreached:
            carried.unreached = carried.reach.unreached
            self._emit(ReachChanged(info_hash=carried.artifact.info_hash))

    # Calls -----------------------------------------------------------------------------------------

    def _take_new(self, now: float) -> list[Call]:
        """Return the calls that may begin: none that dials where that has kept others from it for long."""
        enough = bool(self._calls) and now >= self._held_since + HELD_BACK_S
        waits = enough or now < self._next_call_at
        new = [call for call in self._new if not (waits and call.dials)]
        self._new = [call for call in self._new if waits and call.dials]
        return new

    async def _begin(self, call: Call) -> None:
        """Begin a call, unless the two are connected or about to be; a dial on its way is given up for it."""
        carried, hosts = call.carried, {endpoint.host for endpoint in call.endpoints}
        peers = await self.look_at(carried)
        coming = any(peer.ip[0] in hosts and not peer.flags & lt.peer_info.connecting for peer in peers)
        if not carried.present or coming or carried.reach.is_linked(call.node):
            return
        now = trio.current_time()
        carried.reach.handle_called(call.node, now)
        carried.called_at = now
        await self._forget_unless_linked(hosts)
        if not call.dials:
            for endpoint in call.endpoints:
                self._send_datagram(carried, endpoint, secrets.token_hex(4))
            return
        call.begun = now
        if not self._calls:
            self._held_since = now
            self._session.apply_settings(_CALLING)
        self._calls.append(call)
        for endpoint in call.dialled(now):
            carried.handle.connect_peer((endpoint.host, endpoint.port))
        for observer in self._observers[:1]:  # its answer has libtorrent dial at once
            self._send_datagram(carried, observer, secrets.token_hex(16))

    async def _go_on(self) -> None:
        """Repeat what has not come through, and end what has, or has taken too long."""
        now = trio.current_time()
        for call in list(self._calls):
            over = call.begun + REPEAT_S + 2 * UTP_CONNECT_MS / 1_000 <= now
            if not call.carried.present or call.carried.reach.is_linked(call.node) or over:
                self._calls.remove(call)
                if over:
                    await self._forget_unless_linked({endpoint.host for endpoint in call.endpoints})
            elif now < call.begun + REPEAT_S:
                for endpoint in call.dialled(now):
                    call.carried.handle.connect_peer((endpoint.host, endpoint.port))
            if not self._calls:
                self._next_call_at = now + DIALLING_S if now >= self._held_since + HELD_BACK_S else now
                self._session.apply_settings(_DIALLING)
                if self._held_back:
                    self._held_back = False
                    self._redial()

    async def _forget_unless_linked(self, hosts: set[str]) -> None:
        """Give up dials to these addresses, where nobody is connected from: they would be in the way.

        Those to sources that are not to be called are none of that.
        """
        linked: set[str] = set()
        for carried in list(self._carried.values()):
            linked |= {source.host for source in carried.sources if source.path != "punched"}
            async with carried.changing:
                if carried.present and carried.sources:
                    peers = await trio.to_thread.run_sync(carried.handle.get_peer_info)
                    linked |= {peer.ip[0] for peer in peers if not peer.flags & lt.peer_info.connecting}
        if hosts - linked:
            self._links.disconnect(hosts - linked)

    # Datagrams -------------------------------------------------------------------------------------

    def _send_datagram(self, carried: Carried, to: Endpoint, path: str) -> None:
        if not carried.present:
            return
        host = f"[{to.host}]" if ":" in to.host else to.host
        url = f"udp://{host}:{to.port}/{path}"
        carried.handle.add_tracker({"url": url, "tier": 0})
        self._trackers.setdefault(carried.artifact.info_hash, {})[url] = trio.current_time() + TRACKERS_S
        self._due.set()

    def _forget_trackers(self, now: float) -> None:
        """Remove trackers whose time is over, and with them those of which half is: so it is done rarely."""
        for info_hash, urls in list(self._trackers.items()):
            if min(urls.values()) > now:
                continue
            young = {url: until for url, until in urls.items() if until > now + TRACKERS_S / 2}
            if young:
                self._trackers[info_hash] = young
            else:
                del self._trackers[info_hash]
            carried = self._carried.get(info_hash)
            if carried is not None and carried.present:
                carried.handle.replace_trackers([lt.announce_entry(url) for url in young])


def paths_of(peers: Sequence[lt.peer_info], book: NodeBook) -> dict[NodeId, Path]:
    """Return how each node that is connected is: what goes over uTP was punched."""
    paths: dict[NodeId, Path] = {}
    for peer in peers:
        node = book.find(peer.pid.to_bytes())
        if node is not None and not peer.flags & (lt.peer_info.connecting | lt.peer_info.handshake):
            paths[node] = "punched" if int(peer.flags) & _UTP_SOCKET else "direct"
    return paths
