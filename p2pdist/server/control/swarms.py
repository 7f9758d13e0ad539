"""The swarms as the admin server tracks them: who takes part, who hears of whom, what is known to be bad."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from p2pdist.core.dialling import dials
from p2pdist.core.sources import DIRECT, SourceRules
from p2pdist.core.tracker import Tracker
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.net.link import Link
from p2pdist.server.control.neighbours import network_of, send_frame
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Announce, Candidate, ContentRefused, Presence, Role, Sources


class Swarms:
    """The tracker of the admin server's own neighbours.

    Args:
        origin: The admin server's node, which is the origin.
        port: Returns the port of the origin's swarm.
        links: The links that stand, by node; kept by the caller.
        call: Has the origin dial points that want an artifact and dial nobody themselves.
    """

    def __init__(
        self,
        origin: NodeId,
        port: Callable[[], int],
        links: Mapping[NodeId, Link],
        call: Callable[[InfoHash, Sequence[Candidate]], None],
    ) -> None:
        self._call = call
        self._origin = origin
        self._port = port
        self._links = links
        self._tracker = Tracker(SourceRules())
        self._refused: dict[InfoHash, ContentRefused] = {}

    def set_origin(self, artifacts: Sequence[Presence]) -> None:
        """Say what the origin serves: all of it."""
        self._tracker.announce(
            self._origin,
            role="origin",
            host="0.0.0.0",
            site="origin",
            group=GroupPath("/"),
            announce=Announce(role="origin", port=self._port(), artifacts=list(artifacts)),
        )
        self._send_decisions()

    def altered(self, info_hash: InfoHash, reason: str) -> None:
        """The origin's own copy is not what was signed: tell everybody who wants it, now and later."""
        refused = ContentRefused(info_hash=info_hash, source=self._origin, by=self._origin, reason=reason)
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
        self._tracker.announce(
            node,
            role=role,
            host=link.remote_host,
            site=str(node) if role == "point" else f"{DIRECT}{network_of(link.remote_host)}",
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
        """A neighbour is gone."""
        self._tracker.forget(node)

    def _send_decisions(self) -> None:
        for receiver, sources in self._tracker.poll():
            if receiver == self._origin:
                called = [c for c in sources.candidates if c.taken and c.dial == "receiver"]
                if called:
                    self._call(InfoHash(sources.info_hash), called)
                continue
            target = self._links.get(receiver)
            if target is not None:
                send_frame(target, self._seen_by(target, sources))

    def _seen_by(self, link: Link, sources: Sources) -> Sources:
        """Name the origin by the address at which the receiver reaches it."""
        candidates = [
            msgspec.structs.replace(c, host=link.local_host) if c.node == self._origin else c
            for c in sources.candidates
        ]
        return Sources(info_hash=sources.info_hash, candidates=candidates)
