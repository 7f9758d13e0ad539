"""Sealing what a task needs for the nodes that do it: nobody else can read it, the admin server included."""

from __future__ import annotations

import getpass
import os
import stat
import sys
import time
import tomllib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from p2pdist import limits
from p2pdist.cli.client import Client, segment
from p2pdist.documents import refuse_unknown_keys
from p2pdist.duties.kinds import secrets_of
from p2pdist.errors import TrustError, UsageError
from p2pdist.files import read_bounded
from p2pdist.ids import node_id_of
from p2pdist.trust.secrets import seal_secrets
from p2pdist.wire import api as wire
from p2pdist.wire.work import AnyWork, encode_work, kind_of


def seal_for(
    client: Client, work: AnyWork, nodes: Sequence[str], secrets: msgspec.Struct
) -> list[wire.SealedSecrets]:
    """Seal *secrets* for each of *nodes*, for *work* alone.

    Raises:
        TrustError: the server gave a key that is not that of the node.
    """
    packed, expires = encode_work(work), int(time.time()) + limits.SECRETS_LIFE_S
    sealed: dict[str, wire.SealedSecrets] = {}
    for node in nodes:
        key = client.get(f"/nodes/{segment(node)}/key", wire.NodeKey)
        if node_id_of(key.public) != key.node:
            raise TrustError(f"the key that the server gave for {key.node} is another node's")
        box = seal_secrets(secrets, work=packed, public=key.public, expires=expires)
        sealed[key.node] = wire.SealedSecrets(node=key.node, box=box)
    return list(sealed.values())


def read_secrets(file: str, work: AnyWork) -> msgspec.Struct:
    """Read what *work* needs from a TOML file that only its owner may read; ``-`` is standard input.

    Raises:
        UsageError: it is not that, or such work needs nothing.
    """
    kind = secrets_of(work)
    if kind is None:
        raise UsageError(f"a task of the kind {kind_of(work)} needs no secrets", hint="leave out --secrets")
    raw = _parsed(_standard_input() if file == "-" else secret_file(Path(file)), file)
    refuse_unknown_keys(raw, kind, Path(file))
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError:  # its words may repeat a value
        known = ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
        raise UsageError(
            f"what is in {file} is not what such a task needs", hint=f"it knows the keys {known}"
        ) from None


def ask(what: str) -> str:
    """Ask somebody at the terminal, without an echo. Raises UsageError where nobody can be asked."""
    if not interactive():
        raise UsageError(f"{what} is asked for, and there is no terminal", hint="give it in a file")
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(f"{what}: ")
        except getpass.GetPassWarning:
            raise UsageError(f"this terminal would show {what}", hint="give it in a file") from None
        except EOFError:
            raise UsageError(f"{what} was not given") from None


def interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and os.environ.get("TERM") != "dumb"


def first_line(path: Path) -> str:
    """Return the first line of a file that only its owner may read.

    Raises:
        UsageError: others may read it, or there is none.
    """
    lines = secret_file(path).splitlines()
    if not lines or not lines[0]:
        raise UsageError(f"{path} is empty", hint="its first line is what counts")
    return lines[0]


def secret_file(path: Path) -> str:
    """Return what stands in a file that only its owner may read. Raises UsageError if that is not so."""
    data = read_bounded(path, bytes_max=limits.SECRETS_BYTES_MAX)
    if stat.S_ISREG(path.stat().st_mode) and path.stat().st_mode & 0o077:
        raise UsageError(f"{path} may be read by others", hint=f"run: chmod 600 {path}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text") from None


def _parsed(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError):  # without its words, which repeat what was read
        raise UsageError(f"{source} is not TOML", hint='write key = "value", one a line') from None


def _standard_input() -> str:
    data = sys.stdin.buffer.read(limits.SECRETS_BYTES_MAX + 1)
    if len(data) > limits.SECRETS_BYTES_MAX:
        raise UsageError("standard input is too large for secrets")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("standard input is not text") from None
