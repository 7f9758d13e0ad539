"""Enrolment by hand: the request and its answer as files, where a machine may dial nobody.

They say what would have crossed a link. The token in a request is sealed for the admin server, and an
answer holds nothing secret; neither can be altered without being refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded, write_secret
from p2pdist.ids import FleetName, GroupPath, NodeId, parse_fleet, parse_group, parse_node_id

_Sealed = Annotated[bytes, Meta(max_length=limits.ENROL_BYTES_MAX)]


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a new machine asks of the admin server.

    Attributes:
        fleet: The fleet that it wants to join.
        node: Its node id, for people: what counts is in ``sealed``.
        name: What people call it; the same.
        sealed: See :class:`p2pdist.wire.requests.EnrolRequest`.
    """

    fleet: FleetName
    node: NodeId
    name: str
    sealed: bytes

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only. Raises Unavailable when the disk is full or fails."""
        file = _Request(fleet=self.fleet, node=self.node, name=self.name, sealed=self.sealed)
        write_secret(path, _pretty(file))

    @classmethod
    def load(cls, path: Path) -> EnrolmentRequest:
        """Read the file. Raises UsageError if it is not there or not valid."""
        return cls.decode(_read(path))

    @classmethod
    def decode(cls, data: bytes) -> EnrolmentRequest:
        """Check a file's content. Raises UsageError if it is not a request."""
        try:
            file: _Request = decode_json(data, _Request, "it is not one")
            return cls(
                fleet=parse_fleet(file.fleet),
                node=parse_node_id(file.node),
                name=file.name,
                sealed=file.sealed,
            )
        except P2PDistError as error:
            raise UsageError(
                f"this is not a valid enrolment request: {error.what}",
                hint="make it again: p2pdist-seed enrol --request FILE …",
            ) from None


class EnrolmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the admin server answers: the certificate, and for whom it is."""

    fleet: FleetName
    node: NodeId
    group: GroupPath
    certificate_pem: bytes

    def save(self, path: Path) -> None:
        """Write the file, readable by its owner only. Raises Unavailable when the disk is full or fails."""
        file = _Answer(
            fleet=self.fleet, node=self.node, group=self.group, certificate=self.certificate_pem.decode()
        )
        write_secret(path, _pretty(file))

    @classmethod
    def load(cls, path: Path) -> EnrolmentAnswer:
        """Read the file. Raises UsageError if it is not there or not valid."""
        return cls.decode(_read(path))

    @classmethod
    def decode(cls, data: bytes) -> EnrolmentAnswer:
        """Check a file's content, not the certificate in it. Raises UsageError if it is not an answer."""
        try:
            file: _Answer = decode_json(data, _Answer, "it is not one")
            return cls(
                fleet=parse_fleet(file.fleet),
                node=parse_node_id(file.node),
                group=GroupPath(parse_group(file.group)),
                certificate_pem=file.certificate.encode(),
            )
        except (UnicodeError, P2PDistError) as error:
            raise UsageError(
                f"this is not a valid enrolment answer: {getattr(error, 'what', error)}",
                hint="make it again: p2pdist enrolment answer REQUEST --to FILE",
            ) from None


class _Request(msgspec.Struct, kw_only=True):
    kind: Literal["p2pdist enrolment request"] = "p2pdist enrolment request"
    fleet: str
    node: str
    name: Annotated[str, Meta(max_length=255)]
    sealed: _Sealed


class _Answer(msgspec.Struct, kw_only=True):
    kind: Literal["p2pdist enrolment answer"] = "p2pdist enrolment answer"
    fleet: str
    node: str
    group: str
    certificate: Annotated[str, Meta(max_length=limits.ENROL_BYTES_MAX)]


def _pretty(file: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _read(path: Path) -> bytes:
    return read_bounded(path, bytes_max=2 * limits.ENROL_BYTES_MAX)
