"""The runtime of a member of the fleet: one object that wires uplink, mail, metadata and content.

A program opens it with :func:`open_member`, runs :meth:`Member.run` in a nursery of its own, and gives it
:class:`~p2pdist.node.hooks.Hooks` for what only the program knows.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from p2pdist.core.dialling import dials
from p2pdist.core.upstream import Upstream
from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.ids import GroupPath, NodeId
from p2pdist.logs import get_logger
from p2pdist.net.link import Link, StreamHandler
from p2pdist.node.content import Content
from p2pdist.node.detour import Detour
from p2pdist.node.diagnosis import diagnose
from p2pdist.node.diligence import Questions, watch
from p2pdist.node.enrol import ask_for_renewal, renew_while_expired
from p2pdist.node.grants import Grants
from p2pdist.node.home import Home, load_desired, save_desired
from p2pdist.node.hooks import Hooks
from p2pdist.node.mail import Mail
from p2pdist.node.memory import keep_small
from p2pdist.node.metadata import Metadata
from p2pdist.node.nat import NatWatch
from p2pdist.node.post import Post
from p2pdist.node.rates import Rates
from p2pdist.node.reception import Reception
from p2pdist.node.reports import Announcer, ContentReporter, Heart, Renewer
from p2pdist.node.roaming import follow_network
from p2pdist.node.settings import MemberSettings
from p2pdist.node.uplink import Uplink, upstreams_for
from p2pdist.swarm.session import Swarm, open_swarm
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.frames import (
    AnyFrame,
    Arrived,
    Call,
    ContentRefused,
    MetadataVersions,
    Observe,
    Routed,
    Sources,
    StunServers,
    Taken,
)
from p2pdist.wire.messages import (
    Certificate,
    DesiredState,
    FromDevice,
    FromServer,
    Received,
    Revoked,
    SendWakes,
    SessionInvite,
)
from p2pdist.wire.paths import SESSION_PATH, PathOpening
from p2pdist.wire.questions import NodeCame, TaskSecrets
from p2pdist.wire.requests import Bundle, RenewRequest, Torrent

_log = get_logger()


class Member:
    """A running member. Made by :func:`open_member` only."""

    def __init__(self, home: Home, settings: MemberSettings, swarm: Swarm, hooks: Hooks, post: Post) -> None:
        self.home = home
        self.settings = settings
        self.swarm = swarm
        self.desired: DesiredState | None = load_desired(home)
        self.session_path = hooks.session_path
        self._hooks = hooks
        self._mail = Mail(home)
        self._post = post
        self._questions = Questions()
        self._revoked = ""
        self._revocation = trio.Event()
        self._spread = spread = int.from_bytes(home.node.encode()[:4], "big") % 997 / 997
        self.nat = NatWatch(settings.link_host, sends=lambda: self.dials, ports=settings.session_ports)
        self.reception = Reception(
            identity=home.tls_identity, policy=settings.policy, diagnose=lambda: diagnose(self), nat=self.nat
        )
        self.uplink = Uplink(
            identity=home.tls_identity,
            spread=spread,
            local_host=settings.link_host,
            on_up=self._link_up,
            on_frame=self._frame,
            on_down=self._link_down,
            while_up=lambda link: watch(
                link, self.uplink, self._post, self._questions, self.content, self.reception.visitors
            ),
            streams={SESSION_PATH: StreamHandler(PathOpening, hooks.session_path)},
            dials=not settings.dialled,
        )
        self._detour = Detour(self.uplink, settings.swarm_host, lambda: self.content.ways_changed())
        self.metadata = Metadata(
            Verifier(home.trust, home.enrolment.root),
            lambda request: self.uplink.request("/bundle", request, Bundle),
            lambda refusal: hooks.refuse(refusal.kind, refusal.subject, refusal.reason),
        )
        self.grants = Grants(home, self.metadata)
        self.content = Content(
            home,
            swarm,
            role=settings.role,
            ask=lambda request: self.uplink.request("/torrent", request, Torrent),
            judge=lambda candidate: self.grants.objection(candidate, group=self._group_to_serve()),
            alternative=self.grants.is_alternative,
            dials=lambda: self.dials,
            way=self._detour.way,
            on_change=self.announce_soon,
        )
        self._announcer = Announcer(settings.role, swarm, self.content, self.uplink, hooks.announced)
        self._reporter = ContentReporter(self.content, self.uplink, self.send)
        self.heart = Heart(
            home,
            self.metadata,
            name=settings.name,
            spread=spread,
            desired=lambda: self.desired,
            installed=hooks.installed,
            opened=self._mail.opened,
            send=self.send,
        )
        self._rates = Rates(swarm, settings.rates, lambda: self.desired, self.grants.own)
        self._renewer = Renewer(home, spread=spread, send=self.send, lacking=self._certificate_lacks)

    @property
    def node(self) -> NodeId:
        """This node's id."""
        return self.home.node

    @property
    def group(self) -> GroupPath:
        """The administration group, as the newest word of the admin server has it."""
        return GroupPath(self.desired.group) if self.desired is not None else self.home.certificate.group

    @property
    def dials(self) -> bool:
        """Whether this node dials anybody: its file and its grant may say that it is dialled."""
        return not self.settings.dialled and dials(self.grants.own())

    def is_waiting(self) -> bool:
        """Whether this node has said something that nobody answers for yet, or lacks a certificate."""
        asked = self._questions.since is not None or self._post.owed() is not None
        return asked or self.desired is None or self._certificate_lacks()

    def announce_soon(self) -> None:
        """Tell the neighbour shortly what this node takes part in."""
        self._announcer.due.ring()

    def heartbeat_soon(self) -> None:
        """Tell the admin server shortly what this node knows."""
        self.heart.due.ring()

    def renew_certificate(self) -> None:
        """Look shortly whether a new certificate is needed, and ask for it."""
        self._renewer.due.ring()

    async def renewal(self) -> RenewRequest:
        """Ask for a new certificate in a way that needs no valid one."""
        return await ask_for_renewal(self.home, self._mail, now=_now())

    async def send(self, message: FromDevice) -> bool:
        """Send a message to the admin server if there is a way now.

        Returns:
            False without a link. True says that it left this node, not that it has arrived.
        """
        if self.uplink.link is None:
            return False
        try:
            self._post.send(await self._mail.seal(message, now=_now()))
            self._questions.sent(message, trio.current_time())
        except Unavailable as error:
            _log.info("message.not_sent", message=type(message).__name__, reason=str(error))
            return False
        return True

    async def run(self) -> None:
        """Run until cancelled, or until the admin server revokes this node (TrustError)."""
        await self.metadata.load()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_revoked)
            nursery.start_soon(self._keep_linked)
            nursery.start_soon(follow_network, self.uplink)
            nursery.start_soon(self._run_metadata)
            nursery.start_soon(self.metadata.follow_time)
            nursery.start_soon(self.content.run)
            nursery.start_soon(self._detour.run)
            nursery.start_soon(self._follow_catalog)
            nursery.start_soon(self._follow_swarm)
            nursery.start_soon(self._announcer.run)
            nursery.start_soon(self.heart.run)
            nursery.start_soon(self._renewer.run)
            nursery.start_soon(self.nat.run)
            nursery.start_soon(self.reception.run)
            nursery.start_soon(self._rates.run)
            nursery.start_soon(self._reporter.run)
            nursery.start_soon(keep_small)

    async def _end_when_revoked(self) -> None:
        """End the whole program: raised where frames are handled, it would only end the link."""
        await self._revocation.wait()
        raise TrustError(
            f"the admin server has revoked this node: {self._revoked}", hint="ask the fleet's operator"
        )

    # Links -----------------------------------------------------------------------------------------

    async def _keep_linked(self) -> None:
        if self.dials:
            await renew_while_expired(
                self.home, self._mail, spread=self._spread, local_host=self.settings.link_host
            )
        self.swarm.set_identity(self.home.certificate_pem, self.home.key.private_pem())
        self._choose_upstreams()
        await self.uplink.run()

    def _group_to_serve(self) -> GroupPath | None:
        """The group whose distribution points serve this node: a point itself has none."""
        return self.group if self.settings.role == "device" else None

    def _choose_upstreams(self) -> None:
        if self.uplink.set_dials(self.dials):
            self.swarm.set_dials(self.dials)
        self.uplink.set_candidates(
            upstreams_for(self.home, self.metadata.catalog, group=self._group_to_serve(), now=_now())
        )
        present = self.uplink.upstream
        if present is not None and present.kind == "point" and self.grants.point(present.node) is None:
            _log.warning("link.without_grant", upstream=present.node)
            self.uplink.redial()

    async def _link_up(self, upstream: Upstream, link: Link) -> None:
        try:
            await link.send(Arrived(stamp=await self._mail.stamp()))
        except Unavailable as error:  # a full disk: who knows this link only reaches us all the same
            _log.warning("link.without_stamp", reason=str(error))
        self._post.linked(upstream.node, link)
        self.nat.linked()
        self.metadata.offer({})
        self.content.introduced_anew(after_silence=self.uplink.fell_silent)
        self.content.retry()
        self._reporter.repeat()
        self.announce_soon()
        self.heart.linked()
        self.renew_certificate()
        await self._hooks.linked()

    def _link_down(self) -> None:
        self._post.unlinked()
        self._hooks.unlinked()

    async def _frame(self, frame: AnyFrame) -> None:
        match frame:
            case Sources():
                self.content.set_sources(frame)
                await self._hooks.passing_frame(frame)
            case MetadataVersions():
                self.metadata.offer(frame.versions)
                await self._hooks.passing_frame(frame)
            case Observe() if self.uplink.link is not None:
                self.content.summoned.observe(frame, self.uplink.link.remote_host)
            case Call() if self.uplink.link is not None:
                self.content.summoned.call(frame, self.uplink.link.remote_host)
            case StunServers():
                self.nat.told(frame)
                await self._hooks.passing_frame(frame)
            case ContentRefused():
                await self._hooks.content_refused(frame)
            case Routed(envelope=envelope) if envelope.recipient == self.node:
                await self._open(frame)
                self._post.settle()
            case Routed(envelope=envelope):
                await self._post.receive(envelope)
            case Taken():
                self._post.taken(frame)
            case _:
                await self._hooks.passing_frame(frame)

    async def _open(self, frame: Routed) -> None:
        try:
            message = await self._mail.take(frame.envelope, now=_now())
        except TrustError as error:
            await self._hooks.refuse("envelope", frame.envelope.sender, str(error))
            return
        if message is not None:
            self._questions.answered()
            self.uplink.answered()
            await self._message(message)
            await self._mail.dealt_with(frame.envelope)

    async def _message(self, message: FromServer) -> None:
        match message:
            case DesiredState():
                await self._take_desired(message)
            case Received(ids=ids):
                await self._hooks.received(ids)
            case Certificate(certificate=pem):
                await self.take_certificate(pem)
            case SessionInvite():
                self.reception.expect(message)
            case SendWakes():
                await self._hooks.wakes(message)
            case TaskSecrets() | NodeCame():
                self._hooks.task_answer(message)
            case Revoked(reason=reason):
                self._revoked = reason
                self._revocation.set()

    # What the admin server wants -------------------------------------------------------------------

    async def _take_desired(self, desired: DesiredState) -> None:
        if self.desired is not None and desired.revision < self.desired.revision:
            return
        moved = desired.group != self.group
        await trio.to_thread.run_sync(save_desired, self.home, desired)
        self.desired = desired
        if self._certificate_lacks():
            self.renew_certificate()
        self._rates.apply()
        self.heartbeat_soon()
        await self._hooks.state_changed(desired, self.metadata.catalog)
        if moved:
            self.content.judge_again()
            self._choose_upstreams()  # last: it may end the link, and with it what handles this message

    def _certificate_lacks(self) -> bool:
        certificate, desired = self.home.certificate, self.desired
        if desired is None:
            return False
        return desired.group != certificate.group or not set(desired.swarms) <= set(certificate.swarms)

    async def take_certificate(self, pem: bytes) -> None:
        """Use a new certificate from now on. One that cannot be used is left, and the log says why."""
        before, lacked = self.home.certificate, self._certificate_lacks()
        try:
            await trio.to_thread.run_sync(self.home.replace_certificate, pem)
        except P2PDistError as error:
            _log.error("certificate.not_taken", reason=str(error))
            return
        _log.info("certificate.renewed", until=self.home.certificate.not_after.isoformat())
        self.swarm.set_identity(pem, self.home.key.private_pem())
        if not lacked:
            self.swarm.reconnect()  # and have everybody show a certificate that is still valid
        self.content.retry()
        self.heartbeat_soon()
        self._renewer.taken()
        if self.desired is not None:
            await self._hooks.state_changed(self.desired, self.metadata.catalog)
        if self.home.certificate.group != before.group:
            self.uplink.redial()

    # Metadata and content --------------------------------------------------------------------------

    async def _run_metadata(self) -> None:
        await self.metadata.run(
            relayed=lambda: self.uplink.upstream is not None and self.uplink.upstream.kind == "point"
        )

    async def _follow_catalog(self) -> None:
        while True:
            newer = self.metadata.newer
            self.content.judge_again()
            self._choose_upstreams()
            self.heartbeat_soon()
            if self.desired is not None:
                await self._hooks.state_changed(self.desired, self.metadata.catalog)
            await newer.wait()

    async def _follow_swarm(self) -> None:
        async for event in self.swarm.events():
            self.announce_soon()
            await self._hooks.content_event(event)


@asynccontextmanager
async def open_member(
    home: Home, settings: MemberSettings, hooks: Hooks, post: Post
) -> AsyncIterator[Member]:
    """Open a member's swarm and runtime; the caller starts :meth:`Member.run` in its own nursery.

    Leaving the block closes the swarm; what it holds stays on the disk.
    """
    async with open_swarm(settings.of_swarm(home)) as swarm:
        yield Member(home, settings, swarm, hooks, post)


def _now() -> int:
    return int(time.time())
