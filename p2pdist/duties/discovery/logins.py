"""As whom a node asks a directory service: as the poll's user, as its own, or as nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from p2pdist.duties.run import RunPort
from p2pdist.errors import UsageError
from p2pdist.node.directorysettings import DirectorySettings, own_settings
from p2pdist.wire.polling import PolledDirectory, PollSecrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A user and its password; *authority* vouches for the directory: PEM, empty for the system's."""

    user: str = ""
    password: str = field(default="", repr=False)
    authority: bytes = b""


async def login_for(polled: PolledDirectory | None, port: RunPort, own: Sequence[DirectorySettings]) -> Login:
    """Return as whom a poll asks. What is read of the node's own files is read now.

    The node's own password goes to nobody but the directory that stands beside it: who vouches for that is
    the node's own word, too, and not the poll's.

    Raises:
        UsageError: the node's own files cannot be used, or the poll says who vouches for the directory.
        Unavailable: the poll has a user, and nobody has given the password.
    """
    if polled is None:
        return Login()
    if polled.user:
        secrets = await port.secrets(PollSecrets)
        return Login(user=polled.user, password=secrets.password, authority=polled.authority)
    settings = own_settings(own, polled)
    if settings is None:
        return Login(authority=polled.authority)
    if polled.authority:
        raise UsageError(
            f"this node asks {settings.url} as its own user, and so trusts nobody else's word on who that is",
            hint="leave out --ldap-ca; the node has ca_file in its [[directories]]",
        )
    password = await trio.to_thread.run_sync(settings.read_password)
    return Login(
        user=settings.user,
        password=password,
        authority=await trio.to_thread.run_sync(settings.read_authority),
    )
