"""The sessions that operators have with this node.

The admin server announces each in a sealed envelope (:meth:`Sessions.expect`); then paths come
(:meth:`Sessions.carry`), each of which names its session. The first begins it, the others join it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import trio

from p2pdist import limits
from p2pdist.core.services import Invitations, ServicePolicy, unannounced
from p2pdist.core.session import RANK, PathKind
from p2pdist.errors import P2PDistError, TrustError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.logs import Logger, get_logger
from p2pdist.net.conversations import answer
from p2pdist.net.punching import Attempt, Punching
from p2pdist.net.rtc.island import Island, open_island
from p2pdist.net.sessions import SessionStream, open_session
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.nat import NatWatch
from p2pdist.node.services import serve
from p2pdist.node.vigil import Visitors
from p2pdist.wire.messages import SessionInvite

_log = get_logger()


class _Visit:
    """One session, and who was invited to it. ``stream`` is there once it is ``ready``."""

    def __init__(self, invite: SessionInvite) -> None:
        self.invite = invite
        self.ready = trio.Event()
        self.stream: SessionStream | None = None
        self.path: PathKind = "relayed"
        """The best that it had so far."""


class Sessions:
    """The sessions of one node, while :meth:`run` runs.

    Args:
        identity: Returns what the node shows.
        policy: What it lets operators do.
        diagnose: Returns what it thinks of itself.
        nat: What stands before it.
        visitors: Where sessions are counted.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        policy: ServicePolicy,
        diagnose: Callable[[], Mapping[str, Any]],
        nat: NatWatch,
        visitors: Visitors,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._diagnose = diagnose
        self._nat = nat
        self._visitors = visitors
        self._invitations = Invitations()
        self._visits: dict[str, _Visit] = {}
        self._coming, self._come = trio.open_memory_channel[_Visit](limits.SESSIONS_MAX)

    @property
    def count(self) -> int:
        """How many sessions there are."""
        return len(self._visits)

    def describe(self) -> Sequence[Mapping[str, Any]]:
        """Return who is here, and over which paths; plain values that become JSON."""
        return [
            {
                "by": visit.invite.by,
                "path": visit.stream.path,
                "paths": [each.kind for each in visit.stream.statistics()],
            }
            for visit in self._visits.values()
            if visit.stream is not None
        ]

    def knows(self, session: str) -> bool:
        """Whether a session is under way or expected."""
        return session in self._visits or session in self._invitations

    def expect(self, invite: SessionInvite) -> None:
        """Take in who will come."""
        self._invitations.add(invite, int(time.time()))

    async def carry(self, session: str, accept: Callable[[], trio.abc.Stream], kind: PathKind) -> None:
        """Use a path for the session that it names, until the path or the session ends.

        Args:
            session: Which one.
            accept: Returns the path, which belongs to the session from then on. Called once somebody is
                expected. kind: What kind of path it is.

        Raises:
            TrustError: nobody was invited to such a session.
            Unavailable: there are too many sessions.
            PeerError: the session has too many paths.
        """
        visit = self._visits.get(session) or self._begin(session)
        await visit.ready.wait()
        assert visit.stream is not None
        await visit.stream.attach(accept(), kind).wait()

    def _begin(self, session: str) -> _Visit:
        if len(self._visits) >= limits.SESSIONS_MAX:
            raise Unavailable(
                f"this device has {limits.SESSIONS_MAX} sessions already", hint="end one of them"
            )
        invite = self._invitations.take(session, int(time.time()))
        if invite is None:
            raise TrustError(
                "nobody was invited to this session", hint="it may have begun too late: try again"
            )
        visit = self._visits[session] = _Visit(invite)
        self._coming.send_nowait(visit)
        return visit

    async def run(self) -> None:
        """Serve sessions until cancelled, which ends them all."""
        async with open_island() as island, trio.open_nursery() as nursery:
            async for visit in self._come:
                nursery.start_soon(self._serve, visit, island)

    async def _serve(self, visit: _Visit, island: Island) -> None:
        invite = visit.invite
        log = _log.bind(by=invite.by, session=invite.session[:8])
        begun = trio.current_time()
        try:
            with self._visitors.one():
                async with open_session() as stream:
                    visit.stream = stream
                    visit.ready.set()
                    await self._converse(visit, stream, island, log)
        except* (P2PDistError, trio.BrokenResourceError) as group:
            log.warning("session.failed", reason="; ".join(map(str, group.exceptions)))
        finally:
            del self._visits[invite.session]
            log.info("session.ended", seconds=round(trio.current_time() - begun, 1), path=visit.path)

    async def _converse(self, visit: _Visit, stream: SessionStream, island: Island, log: Logger) -> None:
        invite = visit.invite
        punching = Punching(
            stream,
            island,
            leads=False,
            stun_servers=lambda: self._nat.servers,
            hosts=self._nat.hosts,
            passive=lambda: not self._nat.sends(),
            ports=self._nat.ports,
            on_attempt=lambda attempt: _note(visit, attempt, log),
        )
        async with answer(
            stream,
            identity=replace(self._identity(), ca_pem=invite.authority),
            expect=NodeId(invite.initiator),
            judge=lambda question: (
                unannounced(question.service, invite) or self._policy.objection(question.service)
            ),
            on_signal=punching.take,
            stun=self._nat.servers,
        ) as (question, conversation):
            log.info("session.opened", service=repr(question.service))
            async with punching.beside(conversation):
                await serve(
                    conversation,
                    question.service,
                    diagnose=self._diagnose,
                    nats=self._nat.wait_known,
                    log=log,
                )


def _note(visit: _Visit, attempt: Attempt, log: Logger) -> None:
    if attempt.path is None:
        log.info("session.stays_relayed", attempt=attempt.number, reason=attempt.report.failure)
        return
    visit.path = min(visit.path, attempt.path, key=RANK.__getitem__)
    ours, theirs = attempt.report.pair or (None, None)
    log.info(
        "session.path_opened",
        path=attempt.path,
        seconds=attempt.seconds,
        local=str(ours),
        remote=str(theirs),
    )
