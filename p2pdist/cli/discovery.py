"""Commands: finding the devices of a network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast, get_args

import msgspec
from cyclopts import Parameter

from p2pdist import limits
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.secrets import ask, first_line
from p2pdist.cli.tasks import begin
from p2pdist.cli.when import AT_ONCE, When
from p2pdist.core.directories import parse_directory
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.wire.polling import Poll, PolledDirectory, PollMethod, PollSecrets

_METHODS = get_args(PollMethod)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class DirectoryOptions:
    """A directory service that is asked for its computers.

    Attributes:
        ldap: ldaps://HOST or ldaps://HOST:PORT; with ldap://HOST the connection changes to TLS before
            anything is said.
        ldap_base: Below which its computers are, as a distinguished name.
        ldap_user: Who asks: a distinguished name, or user@domain; by default whom the asking node has in its
            [[directories]] for that directory, or nobody by name.
        ldap_filter: Which entries are computers; by default those of the class computer, device or ipHost.
        ldap_ca: The certificate of who vouches for it, PEM; by default the authorities of whoever asks.
        ask_password: Ask for the user's password.
        password_file: A file whose first line is the user's password.
    """

    ldap: str = ""
    ldap_base: str = ""
    ldap_user: str = ""
    ldap_filter: str = ""
    ldap_ca: Path | None = None
    ask_password: Annotated[bool, Parameter(negative=())] = False
    password_file: Path | None = None

    def polled(self) -> PolledDirectory | None:
        """Return the directory; None if none is named. Raises UsageError when it is none."""
        if not self.ldap:
            if self.ldap_base or self.ldap_user or self.ask_password or self.password_file:
                raise UsageError("a directory is not named", hint="--ldap ldaps://HOST")
            return None
        if not self.ldap_base:
            raise UsageError(
                "it is not said where in the directory to look", hint="--ldap-base dc=corp,dc=example"
            )
        if bool(self.ldap_user) != bool(self.ask_password or self.password_file):
            raise UsageError(
                "a user of a directory and its password go together",
                hint="--ldap-user NAME with --ask-password or --password-file FILE",
            )
        at = parse_directory(self.ldap)
        authority = (
            read_bounded(self.ldap_ca, bytes_max=limits.LDAP_AUTHORITY_BYTES_MAX) if self.ldap_ca else b""
        )
        fields = {**at._asdict(), "base": self.ldap_base, "user": self.ldap_user}
        more = {"filter": self.ldap_filter, "authority": authority}
        try:
            return msgspec.convert({**fields, **more}, PolledDirectory)
        except msgspec.ValidationError as error:
            raise UsageError(f"this directory cannot be asked: {error}") from None

    def secrets(self) -> PollSecrets | None:
        """Read the password, or ask for it; None if there is none. Raises UsageError."""
        if self.password_file is not None:
            return PollSecrets(password=first_line(self.password_file))
        return PollSecrets(password=ask(f"the password of {self.ldap_user}")) if self.ask_password else None


DIRECTORY = DirectoryOptions()


def discover(
    *ranges: Annotated[str, Parameter(name="RANGE")],
    via: Annotated[list[str], Parameter(negative_iterable=())],
    exclude: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    method: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    port: Annotated[list[int] | None, Parameter(negative_iterable=())] = None,
    per_s: int = 200,
    directory: DirectoryOptions = DIRECTORY,
    when: When = AT_ONCE,
    wait: bool = False,
    timeout: str = "1h",
    common: Common = DEFAULT,
) -> None:
    """Find out which addresses of a network answer, asked by a distribution point that stands there.

        p2pdist discover 10.1.0.0/24 --via site2-point --wait
        p2pdist discover --via site2-point --ldap ldaps://dc.corp.example \\
            --ldap-base dc=corp,dc=example --ldap-user reader@corp.example --ask-password

    The password of a directory's user is sealed here for the nodes that ask, kept in memory only, and gone
    with the run, so such a poll is on no schedule. For one leave out --ldap-user, and let the asking node
    have a user of its own, in [[directories]] of its configuration.

    Parameters
    ----------
    ranges
        IPv4 networks or addresses: 10.1.0.0/24, 10.1.0.7. Without any: whom the node's own segments know.
    via
        The distribution point that asks, or `server` for the admin server itself; can be given several times.
        A point needs the duty `discovery` in its grant.
    exclude
        A network or address not to ask; can be given several times.
    method
        echo (ICMP), neighbours (who answered ARP on the node's own segments), multicast (who answers on
        its own segments over IPv6), connect (TCP), reverse (names in the DNS), netbios (Windows names), mdns
        (Zeroconf), wsd (WS-Discovery), directory (LDAP, with --ldap); can be given several times. By default
        echo and neighbours, without ranges neighbours and multicast; with --ldap the directory as well.
    port
        A TCP port for the method connect; can be given several times. By default 22, 443, 445 and 3389.
    per_s
        At most so many questions a second, up to 1000; on a segment of the node itself up to 200.
    wait
        Watch until it has ended, and show what was found. Exit code 6 unless every node has done all of it.
    timeout
        How long to watch: 90s, 30m, 12h.
    """
    polled = directory.polled()
    usual = ["echo", "neighbours"] if ranges else [] if polled else ["neighbours", "multicast"]
    chosen = list(dict.fromkeys([*(method or usual), *(["directory"] if polled else [])]))
    if unknown := [each for each in chosen if each not in _METHODS]:
        raise UsageError(f"{unknown[0]!r} is not a method", hint=f"there are {', '.join(_METHODS)}")
    work = Poll(
        ranges=list(ranges),
        excluded=exclude or [],
        methods=cast(list[PollMethod], chosen),
        per_s=per_s,
        directory=polled,
        **({"ports": port} if port else {}),
    )
    secrets = directory.secrets()
    begin(common, work, via, when=when, wait=wait, timeout=timeout, secrets=secrets)
