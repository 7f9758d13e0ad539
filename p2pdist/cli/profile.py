"""Which server to talk to, as whom, and whose certificate to believe.

Each of the three comes from an option, from the environment (``P2PDIST_SERVER``, ``P2PDIST_TOKEN_FILE``,
``P2PDIST_CA``), or from the profile that ``p2pdist login`` wrote: ``profile.toml`` beside copies of the
token and the authority's certificate, in ``~/.config/p2pdist``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.documents import read_toml
from p2pdist.errors import UsageError
from p2pdist.files import read_bounded, write_atomic, write_secret

_LOGIN = "p2pdist login https://HOST:7600 --token-file FILE --ca FILE"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A server to talk to. ``token`` is secret."""

    server: str
    token: str
    ca_pem: str

    def __repr__(self) -> str:
        return f"Target({self.server})"


class _ProfileFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: Annotated[str, Meta(max_length=2_048)]
    token_file: str = "token"  # noqa: S105 - a file's name
    ca: str = "ca.pem"


def profile_path(environ: Mapping[str, str]) -> Path:
    """Return where the profile is: ``P2PDIST_PROFILE``, or below the user's configuration directory."""
    if environ.get("P2PDIST_PROFILE"):
        return Path(environ["P2PDIST_PROFILE"])
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config"
    return Path(base) / "p2pdist" / "profile.toml"


def find_target(
    *, server: str | None, token_file: Path | None, ca: Path | None, environ: Mapping[str, str] = os.environ
) -> Target:
    """Put together which server to talk to; options count before the environment and the profile.

    Raises:
        UsageError: something is missing or cannot be read.
    """
    path = profile_path(environ)
    stored = _read_profile(path) if path.exists() else None
    base = path.parent
    server = server or environ.get("P2PDIST_SERVER") or (stored.server if stored else None)
    token_file = (
        token_file
        or _environment_path(environ, "P2PDIST_TOKEN_FILE")
        or (base / stored.token_file if stored else None)
    )
    ca = ca or _environment_path(environ, "P2PDIST_CA") or (base / stored.ca if stored else None)
    if server is None:
        raise UsageError("no admin server is known", hint=_LOGIN)
    if token_file is None:
        raise UsageError(f"no token for {server} is known", hint=_LOGIN)
    if ca is None:
        raise UsageError(f"no authority's certificate for {server} is known", hint=_LOGIN)
    return Target(server=check_url(server), token=read_token(token_file), ca_pem=read_ca(ca))


def save_profile(target: Target, environ: Mapping[str, str] = os.environ) -> Path:
    """Store *target* for the commands to come; return the profile's path.

    Raises:
        UsageError, Unavailable: it cannot be written there.
    """
    path = profile_path(environ)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made ({error.strerror})") from error
    write_secret(path.parent / "token", target.token.encode() + b"\n")
    write_atomic(path.parent / "ca.pem", target.ca_pem.encode())
    write_atomic(path, f'server = "{target.server}"\ntoken_file = "token"\nca = "ca.pem"\n'.encode())
    return path


def check_url(text: str) -> str:
    """Check a server's URL. Raises UsageError."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme == "https" and parts.hostname and parts.path in ("", "/") and not parts.query
        valid = valid and parts.username is None and '"' not in text and "\\" not in text
        _ = parts.port
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{text[:120]!r} is not a server's URL", hint="write https://HOST:7600")
    return text.rstrip("/")


def read_token(path: Path) -> str:
    """Read a token from a file that only its owner can read. Raises UsageError."""
    data = read_bounded(path, bytes_max=limits.PROFILE_BYTES_MAX)
    if path.stat().st_mode & 0o077:
        raise UsageError(f"{path} may be read by others", hint=f"run: chmod 600 {path}")
    try:
        token = data.decode("ascii").strip()
    except UnicodeDecodeError:
        token = ""
    if not token or any(c.isspace() for c in token):
        raise UsageError(f"{path} holds no token", hint="p2pdist-server init or token writes such a file")
    return token


def read_ca(path: Path) -> str:
    """Read the authority's certificate. Raises UsageError."""
    data = read_bounded(path, bytes_max=limits.PROFILE_BYTES_MAX)
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise UsageError(f"{path} holds no certificate", hint="it is ca.pem in the server's directory")
    return data.decode("ascii", "replace")


def _environment_path(environ: Mapping[str, str], name: str) -> Path | None:
    return Path(environ[name]) if environ.get(name) else None


def _read_profile(path: Path) -> _ProfileFile:
    raw = read_toml(path, bytes_max=limits.PROFILE_BYTES_MAX)
    try:
        return msgspec.convert(raw, _ProfileFile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is not a valid profile ({error})", hint="run p2pdist login again") from None
