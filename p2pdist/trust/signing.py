"""Metadata on its way to publication: drafts, who must sign them, and who has.

A :class:`SigningState` holds the roles that people sign (root, targets, channels, points) as they were
published last, and drafts of those that are to change. Changing a draft drops its signatures; adding
one checks it at once. Nothing here touches files: :mod:`~p2pdist.trust.repository` keeps a state on
disk, :mod:`~p2pdist.trust.exchange` carries one between machines.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer
from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Targets, VerificationResult

from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import FleetName, parse_channel
from p2pdist.trust.contents import POINTS_ROLE, channel_role
from p2pdist.trust.keys import key_name
from p2pdist.trust.online import SNAPSHOT_LIFE_S, TIMESTAMP_LIFE_S, expires
from p2pdist.trust.refusals import role_words
from p2pdist.trust.rolefiles import Document, parse_document

ROOT, TARGETS = Root.type, Targets.type
RESERVED_NAMES = (ROOT, TARGETS, POINTS_ROLE, "snapshot", "timestamp", "online")

_Life = Annotated[int, Meta(ge=60, le=20 * 366 * 24 * 3600)]


class Lives(msgspec.Struct, frozen=True, kw_only=True):
    """How long each kind of role is valid once it is signed, in seconds."""

    root_s: _Life = 365 * 24 * 3600
    targets_s: _Life = 90 * 24 * 3600
    snapshot_s: _Life = SNAPSHOT_LIFE_S
    timestamp_s: _Life = TIMESTAMP_LIFE_S

    def of(self, role: str) -> int:
        """Return the life of a role that people sign."""
        return self.root_s if role == ROOT else self.targets_s


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """One set of keys of which *threshold* must sign. A new root has two: the old keys and the new."""

    threshold: int
    signed: tuple[str, ...]
    """Names of the keys that have."""
    unsigned: tuple[str, ...]

    @property
    def missing(self) -> int:
        """How many signatures are still missing."""
        return max(0, self.threshold - len(self.signed))


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where a role stands. ``draft`` and ``published`` are versions; None where there is none."""

    role: str
    published: int | None
    draft: int | None
    expires: datetime
    demands: tuple[Demand, ...]

    @property
    def complete(self) -> bool:
        """Whether enough people have signed."""
        return all(demand.missing == 0 for demand in self.demands)


class SigningState:
    """The roles that people sign: published ones, and drafts. Not safe for concurrent use.

    Attributes:
        dropped: The signatures that changes made void since the state was read: role, and the key's name.

    Args:
        fleet: The fleet's name.
        lives: How long signed roles are valid.
        published: The files of the last publication by role, without snapshot and timestamp.
        drafts: The drafts' files by role.

    Raises:
        UsageError: a file is not valid TUF metadata of its role.
    """

    def __init__(
        self,
        fleet: FleetName,
        lives: Lives,
        published: Mapping[str, bytes] = {},
        drafts: Mapping[str, bytes] = {},
    ) -> None:
        self.fleet = fleet
        self.lives = lives
        self.published_files = dict(published)
        self.published: dict[str, Document] = {r: parse_document(r, d) for r, d in published.items()}
        self.drafts: dict[str, Document] = {r: parse_document(r, d) for r, d in drafts.items()}
        self.dropped: list[tuple[str, str]] = []
        self._first_keys = self._keys()

    def draft_files(self) -> dict[str, bytes]:
        """Return the drafts' files by role."""
        return {role: document.to_bytes() for role, document in self.drafts.items()}

    @property
    def root(self) -> Root:
        """The root as it will be."""
        root: Root = self.latest(ROOT).signed
        return root

    @property
    def targets(self) -> Targets:
        """The top-level targets as they will be."""
        targets: Targets = self.latest(TARGETS).signed
        return targets

    def roles(self) -> list[str]:
        """List the roles that people sign, each after the one that delegates to it."""
        delegations = self.targets.delegations
        return [ROOT, TARGETS, *((delegations.roles or {}) if delegations else {})]

    def latest(self, role: str) -> Document:
        """Return a role's draft, or what is published. Raises UsageError if there is no such role."""
        document = self.drafts.get(role) or self.published.get(role)
        if document is None:
            raise UsageError(f"there is no {role_words(role).removeprefix('the ')} here", hint="see: status")
        return document

    def open(self, role: str, now: datetime) -> Any:
        """Open a role for a change, and return its signed part. Its signatures are dropped."""
        if role not in self.drafts:
            if role not in self.published:
                self.latest(role)
            draft = parse_document(role, self.published_files[role])
            draft.signed.version += 1
            draft.signatures.clear()
            self.drafts[role] = draft
        draft = self.drafts[role]
        self._drop_signatures(role)
        draft.signed.expires = expires(now, self.lives.of(role))
        return draft.signed

    def put(self, role: str, signed: Root | Targets) -> None:
        """Begin a role that has never been published."""
        self.drafts[role] = Metadata(signed)

    def discard(self, role: str) -> None:
        """Throw a draft away. Raises UsageError if there is none, or others need it."""
        if role not in self.drafts:
            raise UsageError(f"{role_words(role)} has no draft")
        if role not in self.published:
            raise UsageError(f"{role_words(role)} was never published", hint="take it out instead")
        self._drop_signatures(role)
        del self.drafts[role]

    def settle(self, now: datetime) -> list[str]:
        """Open every published role that its delegator, as it will be, no longer takes as signed.

        Returns:
            The roles that were opened and must be signed again.
        """
        opened = []
        for role in self.roles()[1:]:
            if role not in self.drafts and not all(self._results(role)):
                self.open(role, now)
                opened.append(role)
        for role in set(self.drafts) - set(self.roles()):
            self._drop_signatures(role)
            del self.drafts[role]
        return opened

    def standing(self, role: str) -> Standing:
        """Say where a role stands."""
        published = self.published.get(role)
        draft = self.drafts.get(role)
        return Standing(
            role=role,
            published=published.signed.version if published else None,
            draft=draft.signed.version if draft else None,
            expires=self.latest(role).signed.expires,
            demands=tuple(
                Demand(
                    threshold=result.threshold,
                    signed=tuple(sorted(key_name(key) for key in result.signed.values())),
                    unsigned=tuple(sorted(key_name(key) for key in result.unsigned.values())),
                )
                for result in self._results(role)
            ),
        )

    def wanted_keys(self, role: str) -> dict[str, Key]:
        """Return the keys by id that may still sign a draft and would bring it nearer to completion."""
        if role not in self.drafts:
            return {}
        return {
            keyid: key
            for result in self._results(role)
            if not result.verified
            for keyid, key in result.unsigned.items()
        }

    def sign(self, role: str, signer: Signer) -> None:
        """Sign a draft, and check the signature at once.

        Raises:
            UsageError: there is no draft, or this key has no say in it, or has signed it already.
            TrustError: the signature does not verify: the key's halves do not belong together.
        """
        key = self._key_with_a_say(role, signer.public_key.keyid, key_name(signer.public_key))
        document = self.drafts[role]
        try:
            signature = signer.sign(document.signed_bytes)
        except exceptions.RepositoryError as error:
            raise UsageError(f"{role_words(role)} cannot be signed ({error})") from None
        self._check(role, key, signature)
        document.signatures[key.keyid] = signature

    def take_signatures(self, role: str, document: Document) -> list[str]:
        """Take over the valid signatures from somebody else's copy of the same draft.

        Returns:
            The names of the keys whose signatures are new here.

        Raises:
            TrustError: the copy is not of the same draft, or carries an invalid signature. None was taken.
            UsageError: it carries the signature of a key that has no say.
        """
        if role not in self.drafts:
            published = self.published.get(role)
            if published is not None and published.signed_bytes == document.signed_bytes:
                return []  # it was published without waiting for the last signatures
            raise TrustError(f"{role_words(role)} has no draft here", hint="it is published or discarded")
        mine = self.drafts[role]
        if document.signed_bytes != mine.signed_bytes:
            raise TrustError(
                f"what was signed of {role_words(role)} is not the draft that is here",
                hint="the draft was changed after it was exported; export it again",
            )
        new = {keyid: s for keyid, s in document.signatures.items() if keyid not in mine.signatures}
        keys = {keyid: self._key_with_a_say(role, keyid, keyid[:8]) for keyid in new}
        for keyid, signature in new.items():
            self._check(role, keys[keyid], signature)
        mine.signatures.update(new)
        return [key_name(key) for key in keys.values()]

    def _drop_signatures(self, role: str) -> None:
        signatures = self.drafts[role].signatures
        keys = self._first_keys | self._keys()
        for keyid in signatures:
            self.dropped.append((role, key_name(keys[keyid]) if keyid in keys else keyid[:8]))
        signatures.clear()

    def _keys(self) -> dict[str, Key]:
        """Return every key that stands in a document here, by id."""
        known: dict[str, Key] = {}
        for documents in (self.published, self.drafts):
            for document in documents.values():
                holder = document.signed if document.signed.type == ROOT else document.signed.delegations
                known |= holder.keys if holder is not None else {}
        return known

    def _check(self, role: str, key: Key, signature: Signature) -> None:
        try:
            key.verify_signature(signature, self.drafts[role].signed_bytes)
        except UnverifiedSignatureError:
            raise TrustError(
                f"the signature of {key_name(key)} on {role_words(role)} is not valid; it was not taken"
            ) from None

    def _key_with_a_say(self, role: str, keyid: str, name: str) -> Key:
        if role not in self.drafts:
            raise UsageError(f"{role_words(role)} has no draft to sign", hint="see: status")
        for result in self._results(role):
            if keyid in result.unsigned:
                return result.unsigned[keyid]
            if keyid in result.signed:
                raise UsageError(f"{name} has signed {role_words(role)} already")
        raise UsageError(f"{name} has no say in {role_words(role)}", hint="see who has: status")

    def _results(self, role: str) -> list[VerificationResult]:
        document = self.latest(role)
        payload, signatures = document.signed_bytes, document.signatures
        if role == ROOT:
            roots = [self.root]
            if role in self.drafts and role in self.published:
                roots.insert(0, self.published[ROOT].signed)
            return [root.get_verification_result(ROOT, payload, signatures) for root in roots]
        delegator = self.root if role == TARGETS else self.targets
        return [delegator.get_verification_result(role, payload, signatures)]


def parse_role(text: str) -> str:
    """Read a role as people write it: ``root``, ``targets``, ``points``, or a channel's name.

    Raises:
        UsageError: it is none of them.
    """
    if text in (ROOT, TARGETS, POINTS_ROLE):
        return text
    return channel_role(parse_channel(text.removeprefix("channel-")))
