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
        if self.proxy_password_file is None:
            return ""
        data = read_bounded(self.proxy_password_file, bytes_max=limits.KEY_FILE_BYTES_MAX)
        if self.proxy_password_file.stat().st_mode & 0o077:
            raise UsageError(
                f"{self.proxy_password_file} can be read by others than its owner",
                hint=f"chmod 600 {self.proxy_password_file}",
            )
        try:
            return data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise UsageError(f"{self.proxy_password_file} is not text", hint="write the password") from None

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
