"""A role's file as people sign it: TUF metadata, with the types checked that TUF's own parser leaves open.

What comes from another machine is looked at (``diff``) before anything in it is verified, so a number where a
name should be must not get further than here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

import msgspec
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets

from p2pdist.documents import decode_json
from p2pdist.errors import UsageError
from p2pdist.trust.refusals import MALFORMED, role_words

Document: TypeAlias = "Metadata[Any]"


class _Signature(msgspec.Struct):
    keyid: str
    sig: str


class _Key(msgspec.Struct):
    keytype: str
    scheme: str
    keyval: dict[str, str]


class _Role(msgspec.Struct):
    keyids: list[str]
    threshold: int


class _DelegatedRole(_Role):
    name: str
    paths: list[str] | None = None
    terminating: bool = True


class _Delegations(msgspec.Struct):
    keys: dict[str, _Key]
    roles: list[_DelegatedRole] = []


class _Target(msgspec.Struct):
    length: int
    hashes: dict[str, str]


class _Signed(msgspec.Struct):
    version: int
    keys: dict[str, _Key] = {}
    roles: dict[str, _Role] = {}
    targets: dict[str, _Target] = {}
    delegations: _Delegations | None = None


class _Shape(msgspec.Struct):
    signatures: list[_Signature]
    signed: _Signed


def parse_document(role: str, data: bytes) -> Document:
    """Read a role's file.

    Raises:
        UsageError: it is not valid TUF metadata of that role, or holds what cannot be signed.
    """
    what = f"the file of {role_words(role)} is not valid"
    shape: _Shape = decode_json(data, _Shape, what)
    try:
        document = Metadata[Any].from_bytes(data)
        _ = document.signed_bytes  # not everything that JSON can say can be signed: no fractions
    except (exceptions.RepositoryError, *MALFORMED) as error:
        raise UsageError(f"{what} ({error})") from None
    if document.signed.type != (Root.type if role == Root.type else Targets.type):
        raise UsageError(f"the file of {role_words(role)} holds {document.signed.type} metadata")
    _check_keys(shape.signed.keys, shape.signed.roles.values(), what)
    if shape.signed.delegations is not None:
        _check_keys(shape.signed.delegations.keys, shape.signed.delegations.roles, what)
    return document


def _check_keys(keys: Collection[str], roles: Iterable[_Role], what: str) -> None:
    for role in roles:
        for keyid in role.keyids:
            if keyid not in keys:
                raise UsageError(f"{what} (it names the key {keyid[:64]!r} and does not hold it)")
