"""What the worker is told, and what it answers: msgpack, each with its length in four bytes before it."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.core.installation import Step
from p2pdist.errors import PeerError
from p2pdist.wire import codec

LENGTH_BYTES = 4

_Name = Annotated[str, Meta(min_length=1, max_length=255)]
_Secret = Annotated[str, Meta(max_length=limits.KEY_FILE_BYTES_MAX)]
_Attempt = Annotated[int, Meta(ge=1)]


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What to log in with; what is empty is not used. ``key`` is a private key as OpenSSH or PEM writes it.

    ``agent`` uses the SSH agent that the environment names (``SSH_AUTH_SOCK``). ``sudo_password`` is for
    those who become root with ``sudo``, and is not needed where ``sudo`` asks for none.
    """

    user: _Name
    password: _Secret = ""
    key: _Secret = ""
    passphrase: _Secret = ""
    agent: bool = False
    sudo: bool = False
    sudo_password: _Secret = ""

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return f"Credentials(user={self.user!r}, …)"


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """The agent as one file: where it is here, its length and SHA-256 (hexadecimal), and its platform."""

    path: str
    length: Annotated[int, Meta(ge=1, le=limits.AGENT_BYTES_MAX)]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    platform: _Name


class Prepare(msgspec.Struct, frozen=True, kw_only=True, tag="prepare"):
    """The first message: what holds for all hosts. ``bundle`` is the enrolment bundle's file."""

    credentials: Credentials
    package: Package
    bundle: Annotated[bytes, Meta(max_length=limits.ENROLMENT_BUNDLE_BYTES_MAX)]
    config: Annotated[str, Meta(max_length=64 * limits.KIB)] = ""
    """The agent's configuration; one that is there already is left alone."""
    dry_run: bool = False


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """One machine.

    ``key`` is its host key as OpenSSH writes it (``ssh-ed25519 AAAA…``), or its fingerprint (``SHA256:…``);
    without one any key is believed where ``first_use`` is true, and none where it is false. ``token`` is an
    enrolment token.
    """

    id: _Name
    address: _Name
    port: Annotated[int, Meta(ge=1, le=65535)] = 22
    key: Annotated[str, Meta(max_length=limits.KIB)] = ""
    first_use: bool = False
    token: Annotated[str, Meta(max_length=limits.KIB)] = ""

    def __repr__(self) -> str:
        """Return nothing that is secret, for tracebacks and logs."""
        return f"Host(id={self.id!r}, address={self.address!r}, port={self.port}, …)"


class Work(msgspec.Struct, frozen=True, kw_only=True, tag="work"):
    """Connect to a host, and do the steps of a connection and then those from ``resume`` on."""

    host: Host
    attempt: _Attempt
    resume: Step


class Drop(msgspec.Struct, frozen=True, kw_only=True, tag="drop"):
    """Leave a host at once. Nothing more is said of this try."""

    id: _Name
    attempt: _Attempt


class StepDone(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """A step is done. ``found`` is what it found out, for people; ``key`` and ``certificate`` for us."""

    id: _Name
    attempt: _Attempt
    step: Step
    found: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)] = ""
    key: Annotated[str, Meta(max_length=limits.KIB)] = ""
    """With ``key``: the host's key."""
    certificate: Annotated[bytes, Meta(max_length=limits.KEY_FILE_BYTES_MAX)] = b""
    """With ``enrol``: the node's certificate."""


class Copied(msgspec.Struct, frozen=True, kw_only=True, tag="copied"):
    """So much of the agent's file is on the machine."""

    id: _Name
    attempt: _Attempt
    size_bytes: Annotated[int, Meta(ge=0)]


class StepFailed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """A step failed, and the host is left. ``final``: another try would fail, too, or do harm."""

    id: _Name
    attempt: _Attempt
    step: Step
    reason: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
    final: bool
    key: Annotated[str, Meta(max_length=limits.KIB)] = ""
    """With ``key``: the one that the host showed, and that is not believed."""


ToWorker: TypeAlias = Prepare | Work | Drop
FromWorker: TypeAlias = StepDone | Copied | StepFailed


def encode_frame(message: ToWorker | FromWorker) -> bytes:
    """Pack a message with its length before it. Raises UsageError when it is too large."""
    data = codec.encode(message, bytes_max=limits.INSTALL_FRAME_BYTES_MAX)
    return len(data).to_bytes(LENGTH_BYTES, "big") + data


def decode_to_worker(data: bytes) -> ToWorker:
    """Unpack what the worker is told. Raises PeerError when it is not valid."""
    message: ToWorker = codec.decode(data, ToWorker, bytes_max=limits.INSTALL_FRAME_BYTES_MAX)
    return message


class FrameReader:
    """Messages of the worker out of what was read from it, however it was cut."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes | bytearray) -> list[FromWorker]:
        """Return the messages that are whole now.

        Raises:
            PeerError: one is too large or not valid.
        """
        self._data += data
        found: list[FromWorker] = []
        while len(self._data) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(self._data[:LENGTH_BYTES], "big")
            if end > LENGTH_BYTES + limits.INSTALL_FRAME_BYTES_MAX:
                raise PeerError(f"the deployment worker announced a message of {end} bytes")
            if len(self._data) < end:
                break
            message = bytes(self._data[LENGTH_BYTES:end])
            del self._data[:end]
            found.append(codec.decode(message, FromWorker, bytes_max=limits.INSTALL_FRAME_BYTES_MAX))
        return found
