"""The swarms as the admin server tracks them: who takes part, who hears of whom, what is known to be bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from p2pdist.core.dialling import dials
from p2pdist.core.places import Whereabouts, whereabouts
from p2pdist.core.sources import DIRECT, SourceRules
from p2pdist.core.tracker import Tracker
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.net.link import Link
from p2pdist.node.introductions import Introductions
from p2pdist.server.control.neighbours import network_of, send_frame
from p2pdist.server.control.ports import OriginSwarm
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Announce, ContentRefused, Presence, Role, Sources


class Swarms:
    """The tracker of the admin server's own neighbours.

    Args:
        node: The admin server's node, which is the origin's.
        origin: Returns the origin.
        links: The links that stand, by node; kept by the caller.
    """

    def __init__(self, node: NodeId, origin: Callable[[], OriginSwarm], links: Mapping[NodeId, Link]) -> None:
        self._node = node
        self._origin = origin
        self._links = links
        self._introductions = Introductions(
            node,
            links,
            endpoints=lambda: origin().endpoints,
            far=lambda hosts: None,  # to the origin everybody is
            again=self._decide_again,
        )
        self._tracker = Tracker(SourceRules(), hopeless=self._introductions.hopeless)
        self._refused: dict[InfoHash, ContentRefused] = {}

    async def run(self, *, port: int) -> None:
        """Introduce devices until cancelled. *port* is UDP's for the first observer; 0 is any."""
        await self._introductions.run(port=port)

    def set_origin(self, artifacts: Sequence[Presence]) -> None:
        """Say what the origin serves: all of it."""
        port = self._origin().port
        self._tracker.announce(
            self._node,
            role="origin",
            where=Whereabouts(site="origin", gateway=None, host="0.0.0.0", port=port),
            group=GroupPath("/"),
            announce=Announce(role="origin", port=port, artifacts=list(artifacts)),
        )
        self._send_decisions()

    def altered(self, info_hash: InfoHash, reason: str) -> None:
        """The origin's own copy is not what was signed: tell everybody who wants it, now and later."""
        refused = ContentRefused(info_hash=info_hash, source=self._node, by=self._node, reason=reason)
        self._refused[info_hash] = refused
        for member in self._tracker.members(info_hash):
            link = self._links.get(member.node)
            if link is not None:
                send_frame(link, refused)

    def mended(self, info_hash: InfoHash) -> None:
        """The origin has a good copy again."""
        self._refused.pop(info_hash, None)

    def announced(self, node: NodeId, link: Link, frame: Announce, grant: SeedGrant | None) -> None:
        """Take in what a neighbour takes part in, and tell it and others what has changed for them.

        Args:
            grant: Its valid grant, which makes it a point; its own claim does not count.
        """
        role: Role = "point" if grant is not None else "device"
        assert link.remote is not None, "strangers have no control stream"
        if grant is not None:
            seen = whereabouts(self._node, link.remote_host, frame.port, frame.endpoints, spread=False)
            where = Whereabouts(
                site=node,
                gateway=None,
                host=link.remote_host,
                port=frame.port,
                translated=seen.translated,
            )
        else:
            where = self._introductions.announced(node, link, frame, spread=True)
            if where.gateway is None:  # in the organisation's own network
                where = msgspec.structs.replace(where, site=f"{DIRECT}{network_of(link.remote_host)}")
        self._tracker.announce(
            node,
            role=role,
            where=where,
            group=link.remote.group,
            announce=frame,
            dialled=not dials(grant),
        )
        self._send_decisions()
        for presence in frame.artifacts:
            refusal = self._refused.get(InfoHash(presence.info_hash))
            if refusal is not None and not presence.complete:
                send_frame(link, refusal)

    def forget(self, node: NodeId) -> None:
        """A neighbour is gone: others of its place may have to fetch for themselves."""
        self._tracker.forget(node)
        self._introductions.gone(node)
        self._send_decisions()

    def _send_decisions(self) -> None:
        for receiver, sources in self._tracker.poll():
            if receiver == self._node:
                called = [c for c in sources.candidates if c.taken and c.dial == "receiver"]
                if called:
                    self._origin().call(InfoHash(sources.info_hash), called)
                continue
            target = self._links.get(receiver)
            if target is not None:
                send_frame(target, self._seen_by(target, sources))
                self._introductions.decided(receiver, sources)

    def _decide_again(self, info_hash: InfoHash, nodes: tuple[NodeId, ...]) -> None:
        for node in nodes:
            self._tracker.again(node, info_hash)
        self._send_decisions()

    def _seen_by(self, link: Link, sources: Sources) -> Sources:
        """Name the origin by the address at which the receiver reaches it."""
        candidates = [
            msgspec.structs.replace(c, host=link.local_host) if c.node == self._node else c
            for c in sources.candidates
        ]
        return Sources(info_hash=sources.info_hash, candidates=candidates)
