"""Why TUF's client refused metadata, in words that a person understands.

TUF's exceptions say what failed but seldom which file, so the fetcher's last question is needed too.
What is malformed is the neighbour's fault (:class:`~p2pdist.errors.PeerError`); what is well-formed
and not signed, not current or not consistent is not to be trusted (:class:`~p2pdist.errors.TrustError`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tuf.api import exceptions
from tuf.api.serialization import DeserializationError, SerializationError

from p2pdist.errors import PeerError, TrustError

_FILE = re.compile(r"(?:([0-9]+)\.)?(.+)\.json\Z")
_SIGNED_BY = re.compile(r"was signed by ([0-9]+)/([0-9]+) keys")
_EXPIRED = re.compile(r"(\S+?)(?:\.json)? is expired")

MALFORMED = (ValueError, TypeError, KeyError, AttributeError, RuntimeError)
"""What TUF's client lets through when metadata is wrong in a way that it does not expect."""


class MetadataFile(NamedTuple):
    """A file's name in a bundle, in parts. The version is 0 where the name has none."""

    role: str
    version: int

    @property
    def words(self) -> str:
        """The name as a person would say it."""
        return f"version {self.version} of {role_words(self.role)}" if self.version else role_words(self.role)


def parse_file_name(name: str) -> MetadataFile:
    """Take ``7.targets.json`` or ``timestamp.json`` apart."""
    match = _FILE.match(name)
    if match is None:
        return MetadataFile(name, 0)
    return MetadataFile(match[2], int(match[1] or 0))


def role_words(role: str) -> str:
    """Name a role so that a person knows what it is for."""
    if role.startswith("channel-"):
        return f"the channel {role.removeprefix('channel-')!r}"
    words = {
        "root": "the trust root",
        "timestamp": "the timestamp",
        "snapshot": "the snapshot",
        "targets": "the list of channels (targets)",
        "points": "the seed grants (points)",
    }
    return words.get(role, f"the role {role!r}")


def explain(error: Exception, asked: str) -> TrustError | PeerError:
    """Turn an error of TUF's client into ours.

    Args:
        error: What it raised.
        asked: The file that it asked for last; empty if none.
    """
    file = parse_file_name(asked) if asked else MetadataFile("root", 0)
    if isinstance(error, exceptions.DownloadHTTPError):
        return PeerError(f"{file.words} is missing in the bundle", hint="ask another neighbour")
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return PeerError(f"{file.words} is larger than it may be", hint="ask another neighbour")
    if isinstance(error, DeserializationError | SerializationError):
        return PeerError(f"{file.words} is not valid TUF metadata ({_cause(error)})")
    if isinstance(error, exceptions.RepositoryError):
        return TrustError(f"metadata is refused: {_reason(error, file)}", hint=_hint(error))
    return PeerError(f"{file.words} is not valid TUF metadata ({type(error).__name__}: {error})")


def expired_role(error: exceptions.ExpiredMetadataError) -> str:
    """Say which role an expiry is about."""
    match = _EXPIRED.search(str(error))
    return match[1] if match else ""


def _reason(error: exceptions.RepositoryError, file: MetadataFile) -> str:
    if isinstance(error, exceptions.UnsignedMetadataError):
        counts = _SIGNED_BY.search(str(error))
        if counts is None:
            return f"{file.words} is not signed by its keys"
        return f"{file.words} carries {counts[1]} valid signatures of the {counts[2]} that it needs"
    if isinstance(error, exceptions.ExpiredMetadataError):
        return f"{role_words(expired_role(error) or file.role)} has expired"
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        named = "timestamp" if file.role == "snapshot" else "snapshot"
        return f"{file.words} is not the file that {role_words(named)} names (length or hash differ)"
    if isinstance(error, exceptions.BadVersionNumberError):
        if file.role in ("timestamp", "snapshot"):
            return f"{role_words(file.role)} would go back to an older version ({error})"
        return f"{file.words} has another version than was announced ({error})"
    return f"{file.words}: {error}"


def _hint(error: exceptions.RepositoryError) -> str:
    if isinstance(error, exceptions.UnsignedMetadataError):
        return "it was signed with a wrong key, altered, or too few people have signed it"
    if isinstance(error, exceptions.ExpiredMetadataError):
        return "either its owners have not renewed it, or somebody holds the newer one back"
    if isinstance(error, exceptions.BadVersionNumberError):
        return "somebody replays older metadata, or the admin server was restored from a backup"
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        return "files of different publications were mixed, or one was damaged"
    return ""


def _cause(error: Exception) -> str:
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}"[:200] if cause else str(error)[:200]
