"""What an operator says about the way to mirrors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded
from p2pdist.node.passwords import read_password


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[mirrors]``: mirrors of this ``region`` are asked first.

    ``ca_file`` holds the CA certificates (PEM) that mirrors and an HTTPS proxy are checked against, in place
    of the system's. ``proxy`` is ``http://HOST:PORT`` or ``https://HOST:PORT``; its password is in a file of
    its own, which only its owner can read.
    """

    region: Annotated[str, Meta(pattern=r"^[a-z0-9-]*\Z", max_length=32)] = ""
    ca_file: Path | None = None
    proxy: Annotated[str, Meta(max_length=255)] = ""
    proxy_user: Annotated[str, Meta(max_length=255)] = ""
    proxy_password_file: Path | None = None

    def read_ca(self) -> bytes | None:
        """Return the CA certificates, PEM; None for the system's.

        Blocking. Raises UsageError or Unavailable.
        """
        return read_bounded(self.ca_file, bytes_max=limits.CONFIG_BYTES_MAX) if self.ca_file else None

    def read_password(self) -> str:
        """Return the proxy's password. Blocking. Raises UsageError or Unavailable."""
        return read_password(self.proxy_password_file) if self.proxy_password_file else ""

    def check(self) -> None:
        """Check what no type does. Raises UsageError."""
        if not self.proxy:
            return
        try:
            parts = urlsplit(self.proxy)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and bool(parts.port)
        except ValueError:
            valid = False
        if not valid or parts.username is not None or parts.path not in ("", "/") or parts.query:
            raise UsageError(
                "the proxy for mirrors has no usable address",
                hint="write http://HOST:PORT; the name goes to proxy_user, the password to a file",
            )
