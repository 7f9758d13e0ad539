"""The enrolment bundle: the one small file that, with a token, makes a machine a member of a fleet.

It is not secret, but it must reach the machine unaltered: it says whom the machine will believe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import P2PDistError, UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.ids import FleetName, NodeId, node_id_of, parse_fleet, parse_node_id
from p2pdist.trust.certificates import load_authority_certificate

_Address = Annotated[str, Meta(min_length=3, max_length=300, pattern=r"^[^\s/]+:[0-9]{1,5}$")]


class EnrolmentBundle(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a new machine believes, and where to find them.

    Attributes:
        fleet: The fleet's name.
        ca_pem: The certificate of the fleet's authority.
        root: The TUF root metadata from which all trust in content starts.
        server_node: The admin server's node id.
        server_public: The admin server's identity key, to which tokens are sealed.
        addresses: ``host:port`` of links to the fleet, tried in order: the server's, or its points'.
    """

    fleet: FleetName
    ca_pem: bytes
    root: bytes
    server_node: NodeId
    server_public: bytes
    addresses: tuple[str, ...]

    def encode(self) -> bytes:
        """Return the file's content, JSON."""
        file = _File(
            fleet=self.fleet,
            ca=self.ca_pem.decode(),
            root=self.root,
            server_node=self.server_node,
            server_public=self.server_public,
            addresses=list(self.addresses),
        )
        return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> EnrolmentBundle:
        """Check the content of a bundle's file completely.

        Raises:
            UsageError: it is not a valid enrolment bundle.
        """
        if len(data) > limits.ENROLMENT_BUNDLE_BYTES_MAX:
            raise UsageError(f"an enrolment bundle of {len(data)} bytes is too large")
        try:
            file: _File = decode_json(data, _File, "it is not one")
            bundle = cls(
                fleet=parse_fleet(file.fleet),
                ca_pem=file.ca.encode(),
                root=file.root,
                server_node=parse_node_id(file.server_node),
                server_public=file.server_public,
                addresses=tuple(file.addresses),
            )
            load_authority_certificate(bundle.ca_pem)
            _check_root(bundle.root)
        except (UnicodeError, P2PDistError) as error:
            raise _damaged(str(error)) from None
        if node_id_of(bundle.server_public) != bundle.server_node:
            raise _damaged("the admin server's key and node id do not belong together")
        return bundle

    @classmethod
    def load(cls, path: Path) -> EnrolmentBundle:
        """Read a bundle's file. Raises UsageError if it is not there or not valid."""
        return cls.decode(read_bounded(path, bytes_max=limits.ENROLMENT_BUNDLE_BYTES_MAX))

    def save(self, path: Path) -> None:
        """Write the bundle's file. Raises Unavailable when the disk is full or fails."""
        write_atomic(path, self.encode())


class _File(msgspec.Struct, kw_only=True):
    fleet: str
    ca: Annotated[str, Meta(max_length=limits.KEY_FILE_BYTES_MAX)]
    root: Annotated[bytes, Meta(max_length=limits.ROOT_BYTES_MAX)]
    server_node: str
    server_public: Annotated[bytes, Meta(min_length=32, max_length=32)]
    addresses: Annotated[list[_Address], Meta(min_length=1, max_length=64)]


def _check_root(data: bytes) -> None:
    try:
        root = Metadata[Root].from_bytes(data)
        if not isinstance(root.signed, Root):
            raise UsageError("its trust root is not TUF root metadata")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (RepositoryError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UsageError(f"its trust root is not valid ({error})") from None


def _damaged(why: str) -> UsageError:
    return UsageError(f"this is not a valid enrolment bundle: {why}", hint="export it again at the server")
