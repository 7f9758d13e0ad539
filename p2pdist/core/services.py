"""Which sessions a device takes, and for what. No I/O.

A session is announced by the admin server in a sealed envelope, and comes over a path that anybody could have
opened: only who was invited gets further than TLS. The device's own policy has the last word on what it
    does there.
"""

from __future__ import annotations

import msgspec

from p2pdist import limits
from p2pdist.wire.messages import SessionInvite
from p2pdist.wire.services import Diagnosis, Echo, Logs, Reachability, Service, Tunnel


class ServicePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a device lets operators do: the ports of its own that they may reach, its logs, its diagnosis."""

    tunnel_ports: tuple[int, ...] = ()
    logs: bool = True
    diagnosis: bool = True

    def objection(self, service: Service) -> str | None:
        """Return why *service* is refused, or None."""
        match service:
            case Echo() | Reachability():
                return None
            case Tunnel(port=port):
                if port in self.tunnel_ports:
                    return None
                allowed = ", ".join(map(str, self.tunnel_ports)) or "none"
                return f"port {port} is not allowed; allowed here: {allowed} ([sessions] tunnel_ports)"
            case Logs():
                return None if self.logs else "this device does not show its logs ([sessions] logs)"
            case Diagnosis():
                return None if self.diagnosis else "this device does not tell that ([sessions] diagnosis)"


def in_words(service: Service) -> str:
    """Return what a session is for, for people: "tunnel to port 22"."""
    match service:
        case Echo():
            return "ping"
        case Tunnel(port=port):
            return f"tunnel to port {port}"
        case Logs(follow=follow):
            return "logs, followed" if follow else "logs"
        case Diagnosis():
            return "diagnosis"
        case Reachability():
            return "path"


def unannounced(asked: Service, invite: SessionInvite) -> str | None:
    """Return why a service is refused that is not the one which the audit log has, or None."""
    if asked == invite.service:
        return None
    return f"this session was announced for another use: {in_words(invite.service)}, not {in_words(asked)}"


class Invitations:
    """Who is expected: at most :data:`~p2pdist.limits.SESSION_INVITES_MAX`, each for one session until it
    expires."""

    def __init__(self) -> None:
        self._expected: dict[str, SessionInvite] = {}

    def __contains__(self, session: str) -> bool:
        """Whether somebody is expected for a session."""
        return session in self._expected

    def add(self, invite: SessionInvite, now: int) -> None:
        """Expect somebody. Of too many, those that came first are forgotten; *now* is in Unix seconds."""
        self._expected = {key: each for key, each in self._expected.items() if each.expires > now}
        self._expected[invite.session] = invite
        while len(self._expected) > limits.SESSION_INVITES_MAX:
            del self._expected[next(iter(self._expected))]

    def take(self, session: str, now: int) -> SessionInvite | None:
        """Return who was invited to a session, once; None when nobody is, or it is too late."""
        invite = self._expected.pop(session, None)
        return invite if invite is not None and invite.expires > now else None
