"""How a node that carries devices brings those behind different NATs together: a point, the admin server.

The decisions are made in :mod:`p2pdist.core.places` and :mod:`p2pdist.core.meetings`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from math import inf

import trio

from p2pdist import limits
from p2pdist.core.farhosts import FarHosts
from p2pdist.core.meetings import AskToShow, Command, DecideAgain, Meetings, TellToCall
from p2pdist.core.places import Whereabouts, is_outside, whereabouts
from p2pdist.errors import P2PDistError
from p2pdist.ids import InfoHash, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link
from p2pdist.net.observer import OBSERVERS, Observers
from p2pdist.node.reports import Bell
from p2pdist.wire.frames import Announce, Call, Endpoint, Observe, Presence, Sources

_log = get_logger()

_FULL_LOGGED_EVERY_S = 600.0
_LINK_OTHER_SIDE = {4: "0.0.0.0", 6: "::"}


class Introductions:
    """The meetings of the devices that one node carries.

    Args:
        node: The node that carries them.
        links: The links of the devices; kept by the caller.
        endpoints: Returns where the node's own swarm listens.
        far: Takes the outside addresses of all devices that are not in the node's own site.
        again: Decides once more on the sources of devices.
    """

    def __init__(
        self,
        node: NodeId,
        links: Mapping[NodeId, Link],
        *,
        endpoints: Callable[[], Sequence[Endpoint]],
        far: Callable[[Sequence[str]], None],
        again: Callable[[InfoHash, tuple[NodeId, ...]], None],
    ) -> None:
        self._node = node
        self._links = links
        self._endpoints = endpoints
        self._tell_far = far
        self._again = again
        self._meetings = Meetings(observers=OBSERVERS, new_token=lambda: secrets.token_hex(16))
        self._observers: Observers | None = None
        self._far = FarHosts()
        self._heard: dict[NodeId, Sequence[Presence]] = {}
        self._told_full = 0, -inf
        self._due = Bell()

    def hopeless(self, info_hash: InfoHash, one: NodeId, other: NodeId) -> str | None:
        """Return why two devices cannot meet; None while they may."""
        return self._meetings.hopeless(info_hash, one, other)

    def announced(self, node: NodeId, link: Link, announce: Announce, *, spread: bool) -> Whereabouts:
        """Take in where a device is and whom it cannot reach; return what others have to know.

        Args:
            node: The device.
            link: Its link.
            announce: What it says.
            spread: Whether this node carries others than its own site.
        """
        where = whereabouts(self._node, link.remote_host, announce.port, announce.endpoints, spread=spread)
        self._place(node, where.host if where.gateway is not None else None)
        self._heard[node] = announce.artifacts  # once the decisions are made that follow from it
        self._due.ring()
        return where

    def decided(self, receiver: NodeId, sources: Sources) -> None:
        """A device has been told its sources: arrange that it meets those that cannot be dialled."""
        now = trio.current_time()
        for candidate in sources.candidates:
            if candidate.taken and candidate.path == "punched":
                self._meetings.handle_wanted(
                    InfoHash(sources.info_hash), receiver, NodeId(candidate.node), now
                )
        self._due.ring()

    def gone(self, node: NodeId) -> None:
        """The link of a device is gone."""
        self._place(node, None)
        self._heard.pop(node, None)
        self._meetings.handle_gone(node)

    async def run(self, *, port: int) -> None:
        """Observe and introduce until cancelled. *port* is UDP's for the first observer; 0 is any."""
        self._observers = Observers(self._seen, port=port)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._observers.run)
            while True:
                self._take_in_what_was_heard()
                while (command := self._meetings.poll_command()) is not None:
                    self._carry_out(command)
                self._say_if_full()
                deadline = self._meetings.next_deadline()
                await self._due.wait(inf if deadline is None else deadline - trio.current_time())
                self._meetings.handle_tick(trio.current_time())

    def _place(self, node: NodeId, host: str | None) -> None:
        if self._far.handle_placed(node, host):
            self._tell_far(self._far.hosts())

    def _take_in_what_was_heard(self) -> None:
        heard, self._heard = self._heard, {}
        for node, presences in heard.items():
            self._meetings.handle_announced(node, presences, trio.current_time())

    def _say_if_full(self) -> None:
        """Log that there is no room for all meetings, once in a while."""
        statistics, now = self._meetings.statistics(), trio.current_time()
        count = statistics.forgotten + statistics.refused
        if count > self._told_full[0] and now >= self._told_full[1] + _FULL_LOGGED_EVERY_S:
            self._told_full = count, now
            _log.warning(
                "content.meetings_full",
                pairs=statistics.pairs,
                forgotten=statistics.forgotten,
                refused=statistics.refused,
                hint="more pairs of devices behind NATs than one gateway can bring together: add another",
            )

    def _seen(self, token: str, observer: int, endpoint: Endpoint) -> None:
        self._meetings.handle_seen(token, observer, endpoint, trio.current_time())
        self._due.ring()

    def _carry_out(self, command: Command) -> None:
        match command:
            case AskToShow():
                link = self._links.get(command.node)
                if link is not None:
                    _send(
                        link,
                        Observe(
                            info_hash=command.info_hash,
                            observers=self._observers_for(link),
                            token=command.token,
                        ),
                    )
            case TellToCall():
                link = self._links.get(command.node)
                if link is not None:
                    _log.info("content.called", node=command.node, peer=command.peer, attempt=command.attempt)
                    _send(
                        link,
                        Call(
                            info_hash=command.info_hash,
                            node=command.peer,
                            endpoints=list(command.endpoints),
                            dials=command.dials,
                            attempt=command.attempt,
                        ),
                    )
            case DecideAgain():
                self._again(command.info_hash, command.nodes)

    def _observers_for(self, link: Link) -> list[Endpoint]:
        """The observers that a device can reach: where it dialled, and at this machine's other addresses."""
        assert self._observers is not None
        version = 6 if ":" in link.local_host else 4
        found = [
            Endpoint(host=_LINK_OTHER_SIDE[version], port=observer.port)
            for observer in self._observers.at(link.local_host)
        ]
        for own in self._endpoints():
            if is_outside(own.host) and (":" in own.host) != (version == 6):
                found += self._observers.at(own.host)
        return found[: limits.ENDPOINTS_MAX]


def _send(link: Link, frame: Observe | Call) -> None:
    try:
        link.send_nowait(frame)
    except P2PDistError as error:
        _log.warning("member.too_slow", node=link.remote.node if link.remote else "", reason=str(error))
