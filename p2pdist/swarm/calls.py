"""Calls: connections to nodes that cannot be dialled, because NATs or firewalls stand before both.

The socket of uTP belongs to libtorrent. Two things of its make calls possible (decision 0070):

- A tracker with a ``udp:`` address gets a datagram from that very socket, as soon as a torrent has it.
  Observers see the socket's outside endpoint in it; and one to a peer's endpoint opens our NAT for the peer,
  which throws it away.
- ``enable_outgoing_utp`` says, for each connection at the moment it is made, whether it is made over uTP. It
  is on only while a call is being made: everything that can be dialled goes over TCP, since TLS over uTP
  costs twice the CPU.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import libtorrent as lt
import trio

from p2pdist.ids import InfoHash, NodeId
from p2pdist.swarm.carried import Carried
from p2pdist.swarm.ledger import NodeBook
from p2pdist.swarm.model import ReachChanged
from p2pdist.wire.frames import Endpoint, Path

WINDOW_S: Final = 1.1
"""How long uTP stays on for a call: libtorrent dials once a second, or when a tracker answers."""

LOOK_S: Final = 0.5
"""How often it is looked at who is connected, while that matters."""

TRACKERS_S: Final = 10.0
"""How long the trackers stay that were added; by then their datagrams have come, or are lost."""

_UTP_SOCKET: Final = 1 << 17  # peer_info::utp_socket, which the bindings do not name


class Calls:
    """Makes the calls of one session, and looks at who is connected.

    Args:
        session: libtorrent's session.
        carried: The artifacts in it; kept by the caller.
        book: Whose peer ids are known.
        emit: Takes the event that other sources of an artifact than before cannot be reached.
        redial: Dials all sources that are not connected: a dial was held back.
    """

    def __init__(
        self,
        session: lt.session,
        carried: Mapping[InfoHash, Carried],
        book: NodeBook,
        emit: Callable[[ReachChanged], None],
        redial: Callable[[], None],
    ) -> None:
        self._session = session
        self._carried = carried
        self._book = book
        self._emit = emit
        self._redial = redial
        self._window_until = 0.0
        self._is_open = False
        self._held_back = False
        self._observers: tuple[Endpoint, ...] = ()
        self._trackers: dict[InfoHash, float] = {}
        self._due = trio.Event()

    def show(self, info_hash: InfoHash, observers: Sequence[Endpoint], token: str) -> None:
        """Let observers see from where this swarm's uTP comes. Nothing happens for what is not carried."""
        self._observers = tuple(observers)
        for observer in observers:
            self._send_datagram(info_hash, observer, token)

    def call(self, info_hash: InfoHash, node: NodeId, endpoints: Sequence[Endpoint], *, dials: bool) -> None:
        """Open this node's NAT for another's endpoints, and with *dials* connect to them over uTP.

        Nothing happens for what is not carried, or where the two are connected already.
        """
        carried = self._carried.get(info_hash)
        if carried is None or not carried.present or carried.reach.is_linked(node):
            return
        self._book.learn(node)
        now = trio.current_time()
        carried.reach.handle_called(node, now)
        carried.called_at = now
        if not dials:
            for endpoint in endpoints:
                self._send_datagram(info_hash, endpoint, secrets.token_hex(4))
        else:
            self._open_window(now)
            for endpoint in endpoints:
                carried.handle.connect_peer((endpoint.host, endpoint.port))
            for observer in self._observers[:1]:  # its answer has libtorrent dial at once
                self._send_datagram(info_hash, observer, secrets.token_hex(16))
        self._due.set()

    def holds_back(self) -> bool:
        """Tell whether nobody can be dialled now, because it would be over uTP; then that is done later."""
        self._held_back |= self._is_open
        return self._is_open

    def look_soon(self) -> None:
        """Sources have changed."""
        self._due.set()

    async def run(self) -> None:
        """Look at who is connected while it matters, until cancelled."""
        while True:
            await self._due.wait()
            self._due = trio.Event()
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            if self._is_open and self._window_until <= now:
                self._close_window()
            self._forget_trackers(now)
            for carried in list(self._carried.values()):
                if carried.is_watched(now):
                    self._due.set()
                    await self.look_at(carried)
            if self._is_open or self._trackers:
                self._due.set()

    async def look_at(self, carried: Carried) -> None:
        """See who is connected to this node for an artifact, and dial who should be and is not."""
        async with carried.changing:
            if not carried.present:
                return
            peers = await trio.to_thread.run_sync(carried.handle.get_peer_info)
        now = trio.current_time()
        carried.reach.handle_linked(paths_of(peers, self._book), now)
        for endpoint in carried.reach.next_endpoints(now):
            carried.handle.connect_peer((endpoint.host, endpoint.port))
        if carried.reach.unreached != carried.unreached:
            carried.unreached = carried.reach.unreached
            self._emit(ReachChanged(info_hash=carried.artifact.info_hash))

    def _open_window(self, now: float) -> None:
        self._window_until = now + WINDOW_S
        if not self._is_open:
            self._is_open = True
            self._session.apply_settings({"enable_outgoing_utp": True})

    def _close_window(self) -> None:
        """Let every connection from now on be made over TCP."""
        self._is_open = False
        self._session.apply_settings({"enable_outgoing_utp": False})
        if self._held_back:
            self._held_back = False
            self._redial()

    def _send_datagram(self, info_hash: InfoHash, to: Endpoint, path: str) -> None:
        carried = self._carried.get(info_hash)
        if carried is None or not carried.present:
            return
        host = f"[{to.host}]" if ":" in to.host else to.host
        carried.handle.add_tracker({"url": f"udp://{host}:{to.port}/{path}", "tier": 0})
        self._trackers[info_hash] = trio.current_time() + TRACKERS_S
        self._due.set()

    def _forget_trackers(self, now: float) -> None:
        for info_hash in [each for each, until in self._trackers.items() if until <= now]:
            del self._trackers[info_hash]
            carried = self._carried.get(info_hash)
            if carried is not None and carried.present:
                carried.handle.replace_trackers([])


def paths_of(peers: Sequence[lt.peer_info], book: NodeBook) -> dict[NodeId, Path]:
    """Return how each node that is connected is: what goes over uTP was punched."""
    paths: dict[NodeId, Path] = {}
    for peer in peers:
        node = book.find(peer.pid.to_bytes())
        if node is not None and not peer.flags & (lt.peer_info.connecting | lt.peer_info.handshake):
            paths[node] = "punched" if int(peer.flags) & _UTP_SOCKET else "direct"
    return paths
