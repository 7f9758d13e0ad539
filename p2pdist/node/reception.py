"""Where sessions with this node begin: the room behind it is opened only when somebody is announced.

The modules of a session take 1.2 MB of memory, which most devices never need.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trio

from p2pdist import limits
from p2pdist.core.services import ServicePolicy
from p2pdist.errors import TrustError
from p2pdist.net.pulse import Pulse
from p2pdist.net.tls import TlsIdentity
from p2pdist.node.nat import NatWatch
from p2pdist.node.vigil import Visitors
from p2pdist.wire.messages import SessionInvite

if TYPE_CHECKING:
    from p2pdist.node.sessions import Sessions


class Reception:
    """Takes announcements and paths, and has the sessions served. Arguments as of
    ``node.sessions.Sessions``.

    Attributes:
        visitors: The sessions that there are here.
    """

    def __init__(
        self,
        *,
        identity: Callable[[], TlsIdentity],
        policy: ServicePolicy,
        diagnose: Callable[[], Mapping[str, Any]],
        nat: NatWatch,
    ) -> None:
        self._identity = identity
        self._policy = policy
        self._diagnose = diagnose
        self._nat = nat
        self.visitors = Visitors()
        self._sessions: Sessions | None = None
        self._opened = trio.Event()
        self._announced = Pulse()

    def expect(self, invite: SessionInvite) -> None:
        """Somebody will come."""
        if self._sessions is None:
            from p2pdist.node.sessions import Sessions  # see above

            self._sessions = Sessions(
                identity=self._identity,
                policy=self._policy,
                diagnose=self._diagnose,
                nat=self._nat,
                visitors=self.visitors,
            )
            self._opened.set()
        self._sessions.expect(invite)
        self._announced.fire()

    def describe(self) -> Sequence[Mapping[str, Any]]:
        """Return the sessions that there are; see ``node.sessions.Sessions.describe``."""
        return self._sessions.describe() if self._sessions is not None else ()

    async def carry(self, session: str, accept: Callable[[], trio.abc.Stream]) -> None:
        """Use a relayed path; see ``node.sessions.Sessions.carry``. It may come before its announcement."""
        with trio.move_on_after(limits.SESSION_INVITE_S):
            while self._sessions is None or not self._sessions.knows(session):
                await self._announced.wait()
        if self._sessions is None:
            raise TrustError("nobody was invited to a session here")
        await self._sessions.carry(session, accept, "relayed")

    async def run(self) -> None:
        """Serve sessions until cancelled."""
        await self._opened.wait()
        assert self._sessions is not None
        await self._sessions.run()
