"""The devices that a distribution point carries.

Each device keeps one link to the point. The point tracks their swarms, answers for metadata and
torrents from its own disk, and passes sealed envelopes on, in both directions, without being able to
read them or losing one. It goes on doing all of this while the admin server is away. With the duty
``gateway`` it carries other gateways too, with everybody below them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from p2pdist.core.dialling import dials
from p2pdist.core.places import Whereabouts
from p2pdist.core.scope import covers, grant_valid
from p2pdist.core.sources import SourceRules
from p2pdist.core.tracker import Tracker
from p2pdist.errors import TrustError, Unavailable
from p2pdist.ids import GroupPath, InfoHash, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.broadcast import broadcast
from p2pdist.net.link import Link, OfferedStream, serve_links
from p2pdist.net.mailbox import Hop
from p2pdist.net.pacing import paced_frames
from p2pdist.net.splicing import splice
from p2pdist.net.stundesk import StunDesk, StunSettings
from p2pdist.node.detour import swarm_streams
from p2pdist.node.introductions import Introductions
from p2pdist.node.member import Member
from p2pdist.seed.above import Above
from p2pdist.seed.gateway import Gateway
from p2pdist.seed.neighbours import seen_by, send, too_slow
from p2pdist.seed.post import GatewayPost
from p2pdist.seed.supply import Supply
from p2pdist.trust.catalog import Duty, SeedGrant
from p2pdist.wire.detours import SWARM_PATH
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import (
    Announce,
    AnyFrame,
    Arrived,
    Attached,
    Candidate,
    ContentRefused,
    MetadataVersions,
    Presence,
    Routed,
    Sources,
    StunServers,
    Taken,
    Way,
)
from p2pdist.wire.paths import SESSION_PATH, PathOpening

_log = get_logger()

_STAMP_UNKNOWN = 1  # until the node says it: it is here if nobody else says to carry it
_OWN_HOST = "0.0.0.0"  # each device is told the address at which it reaches this point


class Members:
    """The links of the devices behind one distribution point.

    Args:
        member: The point's own runtime.
        post: Keeps the envelopes of this point and its devices on their way.
        stun: Where it answers STUN requests, with the duty ``gateway``.
        on_wanted: Called when a device announces an artifact that the point does not take part in.
    """

    def __init__(
        self,
        member: Member,
        post: GatewayPost,
        *,
        stun: StunSettings,
        on_wanted: Callable[[InfoHash], None],
    ) -> None:
        self._member = member
        self._on_wanted = on_wanted
        self._post = post
        self._links: dict[NodeId, Link] = {}
        self.supply = Supply(member)
        self._above = Above(member)
        self._gateway = Gateway(member.node, self._links, post.mailbox.look)
        self._introductions = Introductions(
            member.node,
            self._links,
            endpoints=lambda: member.swarm.endpoints,
            far=member.swarm.set_far,
            again=self._decide_again,
        )
        self._tracker = Tracker(SourceRules(), hopeless=self._introductions.hopeless)
        self.stun = StunDesk(stun, wanted=lambda: self._gateway_grant(member.node) is not None)
        self._refused: dict[InfoHash, ContentRefused] = {}
        self._origins: dict[InfoHash, Candidate] = {}

    @property
    def count(self) -> int:
        """How many devices are attached."""
        return len(self._links)

    def carries(self, node: NodeId) -> bool:
        """Whether a node is attached here."""
        return node in self._links

    async def serve(self, *, host: str, port: int, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Accept devices until cancelled. Reports the bound address once it listens."""
        await serve_links(
            host=host,
            port=port,
            identity=self._member.home.tls_identity,
            requests={**self.supply.requests, **self._above.requests},
            streams={
                **self._above.streams,
                SWARM_PATH: swarm_streams(self._member.settings.swarm_host, lambda: self._member.swarm.port),
            },
            on_link=self._accepted,
            revoked=self._is_revoked,
            task_status=task_status,
        )

    async def cut_revoked(self) -> None:
        """End the links of nodes that the admin server has revoked. New ones of them are refused."""
        for node in [node for node in self._links if self._is_revoked(node)]:
            _log.info("member.revoked", node=node)
            self._tracker.forget(node)
            await self._links[node].aclose("the admin server has revoked this node")

    async def run(self, *, port: int) -> None:
        """Keep envelopes on their way, say upwards who is below, introduce devices (*port* is UDP's)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(self._introductions.run, port=port))
            nursery.start_soon(self._post.mailbox.run)
            nursery.start_soon(self._gateway.run)
            nursery.start_soon(self.stun.run)

    async def grants_changed(self) -> None:
        """End the links of neighbours that are gateways now and were not, or the other way round."""
        self.stun.look()
        for node, link in list(self._links.items()):
            if self._gateway.is_gateway(node) != self._may_carry(node):
                await link.aclose("the grants have changed")

    async def linked(self) -> None:
        """A new uplink stands: tell it whom this point carries."""
        link = self._member.uplink.link
        if link is not None:
            await self._gateway.linked(link)

    def unlinked(self) -> None:
        """The uplink has ended."""
        self._gateway.unlinked()

    def way(self, node: NodeId) -> NodeId | None:
        """Return the neighbour through which a node is reached now, or None."""
        if node == self._member.home.enrolment.server_node:
            return self._post.above
        return self._gateway.next_hop(node)

    async def passing(self, frame: AnyFrame) -> None:
        """Pass a frame from above on to whom it concerns."""
        match frame:
            case MetadataVersions():
                await broadcast(self._links.values(), frame, too_slow)
            case Way():
                self._gateway.stands(frame)
            case StunServers():
                self.stun.heard(frame)
            case Sources():
                self._introduce_origin(frame)
            case _:
                _log.warning("frame.unexpected", frame=type(frame).__name__)

    async def session_path(self, opening: PathOpening, offered: OfferedStream) -> None:
        """Pass a path of a session on to the device that it is for. What flows on it is sealed from end to
        end.

        Raises:
            Unavailable: the device is not attached here.
            TrustError: it does not expect the session.
        """
        hop = self._gateway.next_hop(NodeId(opening.to))
        link = self._links.get(hop) if hop is not None else None
        if link is None:
            raise Unavailable("the device is not attached to its distribution point", hint="try again")
        async with link.awaiting(), link.open_stream(SESSION_PATH, opening) as onward:
            await splice(offered.accept(), onward)

    def refused(self, frame: ContentRefused) -> None:
        """Tell the devices that want an artifact that a source served bad bytes for it."""
        info_hash = InfoHash(frame.info_hash)
        self._refused[info_hash] = frame
        for other in self._tracker.members(info_hash):
            if link := self._links.get(other.node):
                send(link, frame)

    def announce_self(self, announce: Announce) -> None:
        """Take part in the tracker as this site's point, let the origin in where there is no room, and tell
        the devices for which that is news."""
        origin_node = self._member.home.enrolment.server_node
        lacking = [InfoHash(presence.info_hash) for presence in announce.artifacts if presence.no_room]
        self._origins = {
            info_hash: self._origins[info_hash] for info_hash in lacking if info_hash in self._origins
        }
        self._tracker.announce(
            self._member.node,
            role="point",
            where=Whereabouts(site=self._member.node, gateway=None, host=_OWN_HOST, port=announce.port),
            group=self._member.group,
            announce=announce,
        )
        if self._origins:
            origin = next(iter(self._origins.values()))
            served = [Presence(info_hash=h, have=1, pieces=1, complete=True) for h in self._origins]
            self._tracker.announce(
                origin_node,
                role="origin",
                where=Whereabouts(site="origin", gateway=None, host=origin.host, port=origin.port),
                group=GroupPath("/"),
                announce=Announce(role="origin", port=origin.port, artifacts=served),
            )
        else:
            self._tracker.forget(origin_node)
        self._send_decisions()

    def accepted(self, info_hash: InfoHash) -> None:
        """The artifact is whole and verified: what was said against a source of it is history."""
        self._refused.pop(info_hash, None)

    async def _accepted(self, link: Link) -> None:
        if link.remote is not None and self._above.stands(link.remote.node):
            await link.wait_ended()  # what is said on it is the uplink's, once that has taken it
        else:
            await self.carry(link)

    async def carry(self, link: Link) -> None:
        """Carry the neighbour on a link, whoever dialled, until the link ends.

        Raises:
            TrustError, Unavailable: it is not to be carried here.
        """
        remote = link.remote
        if remote is None:
            return  # a stranger, here for one request
        carries_others = self._check_scope(remote.node, link)
        older = self._links.get(remote.node)
        self._links[remote.node] = link
        if older is not None:
            await older.aclose()
        self._member.swarm.learn([remote.node])
        _log.info("member.attached", node=remote.node, host=link.remote_host, group=remote.group)
        self.stun.arrived(link)
        try:
            send(link, MetadataVersions(versions=dict(self._known_versions())))
            self._gateway.arrived(remote.node, _STAMP_UNKNOWN)
            if carries_others:
                self._gateway.welcome(remote.node)
            with self._post.mailbox.hop(remote.node, link) as hop:
                self._post.mailbox.look(remote.node)
                async for frame in paced_frames(link, carries_others=carries_others):
                    await self._frame(remote.node, link, hop, frame)
        finally:
            self.stun.gone(link)
            if self._links.get(remote.node) is link:
                del self._links[remote.node]
                self._tracker.forget(remote.node)
                self._introductions.gone(remote.node)
                self._send_decisions()
                self._gateway.gone(remote.node)
                _log.info("member.detached", node=remote.node)

    def _is_dialled(self, node: NodeId) -> bool:
        catalog = self._member.metadata.catalog
        return catalog is not None and not dials(catalog.grants.get(node))

    def _is_revoked(self, node: NodeId) -> bool:
        """What the admin server said last counts, also after a restart without it."""
        desired = self._member.desired
        return desired is not None and node in desired.revoked

    def _check_scope(self, node: NodeId, link: Link) -> bool:
        """Check that a neighbour may be carried; return whether it is a gateway that carries others."""
        grant = self.grant()
        if grant is None:
            raise TrustError("this distribution point has no valid seed grant", hint="sign one for it")
        assert link.remote is not None
        theirs = self._gateway_grant(node)
        if self._may_carry(node):
            self._gateway.check_gateway(node)
        place = theirs.scope if theirs is not None else link.remote.group
        if not covers(grant.scope, place):
            raise TrustError(
                f"{node} stands in {place}, outside the scope {grant.scope}",
                hint="it has other distribution points, or the admin server",
            )
        return self._may_carry(node)

    def _may_carry(self, node: NodeId) -> bool:
        """Whether a neighbour below is a gateway, and this point may carry gateways."""
        return self._gateway_grant(node) is not None and self._is_gateway()

    def _is_gateway(self) -> bool:
        return self._gateway_grant(self._member.node) is not None

    def _gateway_grant(self, node: NodeId) -> SeedGrant | None:
        catalog = self._member.metadata.catalog
        grant = catalog.grants.get(node) if catalog is not None else None
        return grant if grant_valid(grant, "gateway", int(time.time())) else None

    def grant(self, duty: Duty = "seed") -> SeedGrant | None:
        """Return this point's own grant while it is valid for a duty."""
        catalog = self._member.metadata.catalog
        grant = catalog.grants.get(self._member.node) if catalog is not None else None
        return grant if grant_valid(grant, duty, int(time.time())) else None

    async def _frame(self, node: NodeId, link: Link, hop: Hop, frame: AnyFrame) -> None:
        if self._links.get(node) is not link and not isinstance(frame, Routed | Taken):
            return  # a newer link has taken over, and says how things are
        match frame:
            case Announce():
                self._announced(node, link, frame)
            case Routed(envelope=envelope):
                await self._routed(node, hop, envelope)
            case Taken():
                hop.taken(frame)
            case Arrived(stamp=stamp):
                self._gateway.arrived(node, stamp)
            case Attached():
                self._gateway.heard(node, frame)
            case ContentRefused():
                _log.warning("content.refused", by=frame.by, source=frame.source, reason=frame.reason)
            case _:
                _log.warning("frame.unexpected", frame=type(frame).__name__, node=node)

    async def _routed(self, node: NodeId, hop: Hop, envelope: Envelope) -> None:
        """Take an envelope that goes upwards: a neighbour's own, or of anybody below a gateway.

        A gateway may still have some of a node that has left it.
        """
        ours = envelope.sender == node or self._gateway.is_gateway(node)
        if ours and envelope.recipient == self._member.home.enrolment.server_node:
            await hop.receive(envelope)
        else:
            _log.warning("envelope.misrouted", by=node, sender=envelope.sender)
            hop.settle()

    def _announced(self, node: NodeId, link: Link, frame: Announce) -> None:
        assert link.remote is not None
        if carries_others := self._gateway.is_gateway(node):
            where = Whereabouts(site=node, gateway=None, host=link.remote_host, port=frame.port)
        else:
            where = self._introductions.announced(node, link, frame, spread=self._is_gateway())
        self._tracker.announce(
            node,
            role="point" if carries_others else "device",
            where=where,
            group=link.remote.group,
            announce=frame,
            dialled=self._is_dialled(node),
        )
        self._send_decisions()
        ours = self._member.content.wanted()
        for presence in frame.artifacts:
            info_hash = InfoHash(presence.info_hash)
            if info_hash not in ours:
                self._on_wanted(info_hash)
            if info_hash in self._refused and not presence.complete:
                send(link, self._refused[info_hash])

    def _introduce_origin(self, sources: Sources) -> None:
        """Learn where the origin serves an artifact: where this point has no room, its devices go there."""
        taken = [c for c in sources.candidates if c.role == "origin" and c.taken]
        self._origins.pop(InfoHash(sources.info_hash), None)
        self._origins |= {InfoHash(sources.info_hash): origin for origin in taken}
        member = self._member
        self.announce_self(
            Announce(role="point", port=member.swarm.port, artifacts=member.content.presences())
        )

    def _send_decisions(self) -> None:
        for receiver, sources in self._tracker.poll():
            if receiver == self._member.node:
                self._member.content.set_below(sources)
            if target := self._links.get(receiver):
                send(target, seen_by(target, self._member.node, sources))
                self._introductions.decided(receiver, sources)

    def _decide_again(self, info_hash: InfoHash, nodes: tuple[NodeId, ...]) -> None:
        for node in nodes:
            self._tracker.again(node, info_hash)
        self._send_decisions()

    def _known_versions(self) -> dict[str, int]:
        return dict(self._member.metadata.versions) | dict(self._member.metadata.offered)
