"""Operators' sessions with devices, as the admin server sees them: announced, and given a path.

What happens in a session the server cannot see: it is the operator's command line that speaks with the
device.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import trio

from p2pdist import limits
from p2pdist.errors import Unavailable, UsageError
from p2pdist.ids import NodeId
from p2pdist.net.link import Link
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.paths import SESSION_PATH, PathOpening
from p2pdist.wire.services import Service

ANNOUNCED_S = 120
"""How long a device expects a session that has been announced to it."""

Tell = Callable[[NodeId, SessionInvite], Awaitable[bool]]
LinkTo = Callable[[NodeId], Link | None]


class _Announced(msgspec.Struct, kw_only=True):
    node: NodeId
    actor: str
    service: Service
    expires: float
    paths: int = 0


class SessionDesk:
    """The sessions that have been announced and not forgotten. Bounded.

    Args:
        tell: Tells a device whom to expect; returns whether there is a way to it.
        link_to: Returns the link to a device or to whoever carries it, if there is one.
    """

    def __init__(self, tell: Tell, link_to: LinkTo) -> None:
        self._tell = tell
        self._link_to = link_to
        self._announced: dict[str, _Announced] = {}

    async def announce(
        self, node: NodeId, *, initiator: NodeId, authority: bytes, actor: str, service: Service
    ) -> SessionInvite:
        """Tell *node* that *actor* will open a session, for *service* and nothing else.

        Raises:
            Unavailable: the device cannot be reached now, or too many sessions are open.
        """
        now = time.time()
        self._forget(now)
        if len(self._announced) >= limits.SESSIONS_RELAYED_MAX:
            raise Unavailable(
                f"{limits.SESSIONS_RELAYED_MAX} sessions go through this server", hint="try again later"
            )
        invite = SessionInvite(
            session=secrets.token_hex(16),
            initiator=initiator,
            authority=authority,
            by=actor,
            service=service,
            expires=int(now) + ANNOUNCED_S,
        )
        if not await self._tell(node, invite):
            raise Unavailable(
                "the device is offline", hint="p2pdist device show DEVICE tells when it was last seen"
            )
        self._announced[invite.session] = _Announced(
            node=node, actor=actor, service=service, expires=invite.expires
        )
        return invite

    def find(self, session: str, actor: str) -> tuple[NodeId, Service]:
        """Return whom a session is with, and what it is for.

        Raises:
            UsageError: it is not *actor*'s session, or is over.
        """
        announced = self._of(session, actor)
        return announced.node, announced.service

    @asynccontextmanager
    async def path(self, session: str, actor: str) -> AsyncIterator[trio.abc.Stream]:
        """Open a path to the device of a session, which the block has.

        Raises:
            UsageError: it is not *actor*'s session, or is over.
            Unavailable: the device cannot be reached, or does not take it.
        """
        announced = self._of(session, actor)
        link = self._link_to(announced.node)
        if link is None:
            raise Unavailable("the device is offline", hint="try again when it is back")
        announced.paths += 1
        try:
            opening = PathOpening(to=announced.node, session=session)
            async with link.awaiting(), link.open_stream(SESSION_PATH, opening) as stream:
                yield stream
        finally:
            announced.paths -= 1
            announced.expires = max(announced.expires, time.time() + limits.SESSION_PATHLESS_S)

    def _of(self, session: str, actor: str) -> _Announced:
        self._forget(time.time())
        announced = self._announced.get(session)
        if announced is None or announced.actor != actor:
            raise UsageError("there is no such session", hint="it was not opened in time: begin again")
        return announced

    def _forget(self, now: float) -> None:
        self._announced = {
            session: each for session, each in self._announced.items() if each.paths or each.expires > now
        }
