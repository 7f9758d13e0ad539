"""Making the two roles that the online key signs: snapshot and timestamp.

They say which versions of everything belong together and are current. They give no permission to
install anything: whoever steals the online key can hold updates back and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Timestamp

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.trust.contents import SIGNED_AT_FIELD
from p2pdist.trust.keys import key_name

SNAPSHOT_LIFE_S = 7 * 24 * 3600
TIMESTAMP_LIFE_S = 24 * 3600


def make_snapshot(
    meta: Mapping[str, MetaFile],
    *,
    version: int,
    signer: Signer,
    now: datetime,
    life_s: int = SNAPSHOT_LIFE_S,
) -> bytes:
    """Sign which version of each targets role is current. *meta* is by file name (``targets.json``)."""
    snapshot = Snapshot(version=version, expires=expires(now, life_s), meta=dict(meta))
    snapshot.unrecognized_fields[SIGNED_AT_FIELD] = int(now.timestamp())
    return _signed(Metadata(snapshot), signer)


def make_timestamp(
    snapshot: bytes,
    *,
    snapshot_version: int,
    version: int,
    signer: Signer,
    now: datetime,
    life_s: int = TIMESTAMP_LIFE_S,
) -> bytes:
    """Sign which snapshot is current."""
    timestamp = Timestamp(
        version=version, expires=expires(now, life_s), snapshot_meta=meta_of(snapshot, snapshot_version)
    )
    timestamp.unrecognized_fields[SIGNED_AT_FIELD] = int(now.timestamp())
    return _signed(Metadata(timestamp), signer)


def meta_of(data: bytes, version: int) -> MetaFile:
    """Describe a metadata file by version, length and SHA-256, so that no other can take its place."""
    return MetaFile.from_data(version, data, ["sha256"])


def expires(now: datetime, life_s: int) -> datetime:
    """Return *life_s* seconds after *now*, to the second, as TUF writes it."""
    return (now + timedelta(seconds=life_s)).replace(microsecond=0)


def choose_online_key(root: Root, signers: Sequence[Signer]) -> Signer:
    """Return the signer that *root* lets sign snapshot and timestamp.

    Raises:
        UsageError: there is none among *signers*.
    """
    for signer in signers:
        if all(
            signer.public_key.keyid in root.roles[role].keyids for role in (Snapshot.type, Timestamp.type)
        ):
            return signer
    mine = " and ".join(key_name(signer.public_key) for signer in signers)
    named = ", ".join(key_name(root.keys[k]) for k in root.roles[Timestamp.type].keyids)
    raise UsageError(
        f"the admin server has the online key {mine}, but version {root.version} of the trust root names"
        f" {named}",
        hint="give it that key as well: next_key and next_passphrase_file in [online] of server.toml; then"
        " restart it and publish again",
    )


def check_online_key(root: Root, signer: Signer) -> None:
    """Check that *root* lets *signer* sign snapshot and timestamp. Raises UsageError if not."""
    keyid = signer.public_key.keyid
    for role in (Snapshot.type, Timestamp.type):
        if keyid not in root.roles[role].keyids:
            named = ", ".join(key_name(root.keys[k]) for k in root.roles[role].keyids)
            raise UsageError(
                f"the online key here is {key_name(signer.public_key)}, but version {root.version} of the"
                f" trust root names {named} for the {role}",
                hint="give the admin server the online key file that belongs to this trust root",
            )


def _signed(metadata: Metadata[Snapshot] | Metadata[Timestamp], signer: Signer) -> bytes:
    metadata.sign(signer)
    data = metadata.to_bytes()
    limit = limits.SNAPSHOT_BYTES_MAX if metadata.signed.type == Snapshot.type else limits.TIMESTAMP_BYTES_MAX
    if len(data) > limit:
        raise UsageError(f"the {metadata.signed.type} of {len(data)} bytes exceeds the limit of {limit}")
    return data
