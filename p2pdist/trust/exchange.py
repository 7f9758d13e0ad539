"""Signing requests: drafts that travel to the people who sign them, and back with signatures.

The file holds the drafts, what was published last, and the chain of roots, so that whoever signs sees
in words what changes without having the repository. It is no secret and is not trusted either: on its
way in, what claims to be published must carry the signatures of the root that is in it, and on its way
back only valid signatures on unchanged drafts are taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from tuf.api import exceptions
from tuf.api.metadata import Root

from p2pdist import limits
from p2pdist.documents import decode_json
from p2pdist.errors import P2PDistError, TrustError, UsageError
from p2pdist.files import read_bounded, write_atomic
from p2pdist.ids import parse_fleet
from p2pdist.trust.refusals import parse_file_name
from p2pdist.trust.repository import Repository
from p2pdist.trust.rolefiles import parse_document
from p2pdist.trust.signing import ROOT, TARGETS, Lives, SigningState

_Files = Annotated[dict[str, bytes], Meta(max_length=limits.BUNDLE_FILES_MAX)]


class _File(msgspec.Struct, frozen=True, kw_only=True):
    format: Literal["p2pdist signing request 1"] = "p2pdist signing request 1"
    fleet: str
    lives: Lives
    roots: Annotated[list[bytes], Meta(max_length=limits.ROOT_ROTATIONS_MAX)]
    published: _Files
    drafts: _Files


class SigningRequest:
    """Drafts on their way.

    Attributes:
        state: What to sign; signatures are added to it.
        roots: The chain of published roots, oldest first.
    """

    def __init__(self, state: SigningState, roots: list[bytes]) -> None:
        self.state = state
        self.roots = roots

    @classmethod
    def of(cls, repository: Repository) -> SigningRequest:
        """Make a request for the drafts of a repository.

        Raises:
            UsageError: there is nothing to sign.
        """
        state = repository.load()
        if not state.drafts:
            raise UsageError("there is no draft to be signed", hint="change something first")
        published = repository.published()
        roots = [name for name in published if parse_file_name(name).role == ROOT]
        return cls(
            state, [published[name] for name in sorted(roots, key=lambda n: parse_file_name(n).version)]
        )

    def encode(self) -> bytes:
        """Return the file's content, JSON."""
        file = _File(
            fleet=self.state.fleet,
            lives=self.state.lives,
            roots=self.roots,
            published={r: self.state.published_files[r] for r in _published_roles(self.state)},
            drafts=self.state.draft_files(),
        )
        return msgspec.json.encode(file)

    @classmethod
    def decode(cls, data: bytes) -> SigningRequest:
        """Check a request's content.

        Raises:
            UsageError: it is not a signing request.
            TrustError: what it calls published is not signed as its root demands.
        """
        file: _File = decode_json(data, _File, "this is not a signing request", hint="make one: export")
        state = SigningState(parse_fleet(file.fleet), file.lives, file.published, file.drafts)
        if not {ROOT, TARGETS} <= {*state.published, *state.drafts}:
            raise UsageError("this signing request lacks the trust root or targets", hint="export it again")
        request = cls(state, file.roots)
        request._check_published()
        return request

    @classmethod
    def load(cls, path: Path) -> SigningRequest:
        """Read a request's file."""
        return cls.decode(read_bounded(path, bytes_max=2 * limits.BUNDLE_BYTES_MAX))

    def save(self, path: Path) -> None:
        """Write the request's file. Raises Unavailable when the disk is full or fails."""
        write_atomic(path, self.encode())

    def check_trusted_root(self, trusted_root: bytes) -> None:
        """Check that the roots lead from one that the signer knows.

        Raises:
            TrustError: they do not: this may be a request of somebody who only claims to be the fleet.
        """
        known = [parse_document(ROOT, data).signed_bytes for data in self.roots]
        if parse_document(ROOT, trusted_root).signed_bytes not in known:
            raise TrustError(
                "the signing request does not follow from the trust root that was given",
                hint="do not sign; ask whoever sent it, over another way",
            )

    def _check_published(self) -> None:
        published = self.state.published
        if not published and not self.roots:
            return
        chain = [parse_document(ROOT, data) for data in self.roots]
        if not chain or ROOT not in published or chain[-1].signed_bytes != published[ROOT].signed_bytes:
            raise TrustError("the signing request does not hold the roots that it claims to be published")
        try:
            before: Root = chain[0].signed
            for document in chain:
                before.verify_delegate(ROOT, document.signed_bytes, document.signatures)
                before = document.signed
                before.verify_delegate(ROOT, document.signed_bytes, document.signatures)
            targets = published[TARGETS]
            before.verify_delegate(TARGETS, targets.signed_bytes, targets.signatures)
            for role in set(published) - {ROOT, TARGETS}:
                document = published[role]
                targets.signed.verify_delegate(role, document.signed_bytes, document.signatures)
        except (exceptions.RepositoryError, ValueError, KeyError) as error:
            raise TrustError(
                f"what the signing request claims to be published is not signed so ({error})",
                hint="do not sign; ask whoever sent it, over another way",
            ) from None


def _published_roles(state: SigningState) -> list[str]:
    """List the roles whose published files the published targets vouch for: without removed channels."""
    if TARGETS not in state.published:
        return []
    delegations = state.published[TARGETS].signed.delegations
    delegated = (delegations.roles or {}) if delegations is not None else {}
    return [role for role in (ROOT, TARGETS, *delegated) if role in state.published]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What came in with a request: names of keys by role, and why other roles' signatures did not."""

    taken: dict[str, list[str]]
    refused: dict[str, str]


def import_signatures(repository: Repository, request: SigningRequest) -> Imported:
    """Take the signatures of a request that came back into the repository, role by role.

    Returns:
        Which signatures are new, and which roles were refused because they do not fit what is here.

    Raises:
        TrustError: nothing fits: drafts were changed meanwhile, or a signature is not valid.
        UsageError: the request is another fleet's, or a key in it has no say.
    """
    taken: dict[str, list[str]] = {}
    refused: dict[str, P2PDistError] = {}
    with repository.change() as state:
        if request.state.fleet != state.fleet:
            raise UsageError(f"this is a signing request of the fleet {request.state.fleet!r}")
        for role, document in request.state.drafts.items():
            if not document.signatures:
                continue
            try:
                taken[role] = state.take_signatures(role, document)
            except (TrustError, UsageError) as error:
                refused[role] = error
        if refused and not any(taken.values()):
            raise next(iter(refused.values()))
    return Imported(
        taken={role: names for role, names in taken.items() if names},
        refused={role: str(error) for role, error in refused.items()},
    )
