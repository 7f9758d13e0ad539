"""The certificate under which the API serves HTTPS: the server's key, the fleet's CA, host names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from p2pdist.ids import GroupPath
from p2pdist.net.tls import TlsIdentity
from p2pdist.server.serverhome import ServerHome


class ApiCertificate:
    """Issued when the server starts, and again at half its life.

    Args:
        home: The server's directory.
        hosts: The names and addresses under which operators reach the API.
        life_s: How long each certificate is valid.
        clock: The time, aware.
    """

    def __init__(
        self,
        home: ServerHome,
        hosts: Sequence[str],
        life_s: int,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._home = home
        self._hosts = tuple(hosts)
        self._life_s = life_s
        self._clock = clock
        self._identity = self._issue()
        self._renew = clock() + timedelta(seconds=life_s / 2)

    def identity(self) -> TlsIdentity:
        """Return what the API shows now."""
        if self._clock() >= self._renew:
            self._identity = self._issue()
            self._renew = self._clock() + timedelta(seconds=self._life_s / 2)
        return self._identity

    def _issue(self) -> TlsIdentity:
        pem = self._home.authority.issue(
            self._home.key.public,
            group=GroupPath("/"),
            swarms=(),
            life_s=self._life_s,
            now=self._clock(),
            hosts=self._hosts,
        )
        return TlsIdentity(
            certificate_pem=pem,
            key_pem=self._home.key.private_pem(),
            ca_pem=self._home.authority.certificate_pem,
        )
