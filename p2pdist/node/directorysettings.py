"""What an operator says about directory services that a node may ask: as whom, and who vouches for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.core.directories import parse_directory
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.node.passwords import read_password
from p2pdist.wire.polling import PolledDirectory


class DirectorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[directories]]``: the node's own user of a directory, for polls that name none.

    ``url`` is ``ldaps://HOST`` or ``ldap://HOST``, with ``:PORT`` where it is not the usual one; a poll has
    to name the same. The password of ``user`` is in a file of its own, which only its owner can read.
    ``ca_file`` holds who vouches for the directory (PEM), in place of the system's CAs.
    """

    url: Annotated[str, Meta(max_length=300)]
    user: Annotated[str, Meta(min_length=1, max_length=512)]
    password_file: Path
    ca_file: Path | None = None

    def __post_init__(self) -> None:
        """Check what no type does. Raises ValueError."""
        try:
            parse_directory(self.url)
        except UsageError as error:
            raise ValueError(str(error)) from None

    def is_for(self, polled: PolledDirectory) -> bool:
        """Whether this is about the directory that a poll names."""
        own = parse_directory(self.url)
        return (own.host.lower(), own.port, own.tls) == (polled.host.lower(), polled.port, polled.tls)

    def read_password(self) -> str:
        """Return the user's password. Blocking. Raises UsageError."""
        password = read_password(self.password_file)
        if not password:
            raise UsageError(f"{self.password_file} is empty", hint="write the password")
        return password

    def read_authority(self) -> bytes:
        """Return who vouches for the directory, PEM; empty for the system's. Blocking. Raises UsageError."""
        return read_bounded(self.ca_file, bytes_max=limits.LDAP_AUTHORITY_BYTES_MAX) if self.ca_file else b""


Directories = Annotated[tuple[DirectorySettings, ...], Meta(max_length=limits.LDAP_DIRECTORIES_MAX)]


def own_settings(known: Iterable[DirectorySettings], polled: PolledDirectory) -> DirectorySettings | None:
    """Return what is said about the directory that a poll names; None if nothing is."""
    return next((each for each in known if each.is_for(polled)), None)
