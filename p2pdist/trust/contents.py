"""From verified metadata to a :class:`~p2pdist.trust.catalog.Catalog`.

Everything here has the right signatures, and may still be wrong: a target whose ``custom`` does not
fit its type, a name that tries to leave its directory, a role that has expired. Such a part is left
out, with its reason in :attr:`Catalog.left_out`; the rest stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
from securesystemslib.formats import encode_canonical

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.ids import (
    ChannelName,
    InfoHash,
    NodeId,
    TargetPath,
    parse_channel,
    parse_group,
    parse_node_id,
    parse_product,
    parse_target,
)
from p2pdist.trust.catalog import Catalog, Release, ReleaseCustom, SeedGrant
from p2pdist.trust.requirements import check_deltas, check_forms, mirrors_of

ONLINE_ROLES = ("timestamp", "snapshot")
"""The roles that the admin server signs; people sign the others."""
CHANNEL_PREFIX = "channel-"
POINTS_ROLE = "points"
POINTS_PATTERN = "points/*"
SIGNED_AT_FIELD = "x-p2pdist-signed-at"
"""When a role was signed, Unix seconds: a machine whose clock is far behind notices."""

SEQUENCES_FIELD = "x-p2pdist-sequences"
"""The highest sequence number that each product of a channel ever had, withdrawn releases included."""

_LEFT_OUT_MAX = 1_000  # a report that people read
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

Signed = Mapping[str, Any]
"""The ``signed`` part of a role's metadata as the stock client has parsed and verified it."""


def channel_role(channel: ChannelName) -> str:
    """Name the role that a channel's keys sign."""
    return f"{CHANNEL_PREFIX}{channel}"


def channel_of(role: str) -> ChannelName:
    """Name the channel of a role that :func:`channel_role` named."""
    return ChannelName(role.removeprefix(CHANNEL_PREFIX))


def channel_pattern(channel: ChannelName) -> str:
    """Return the target paths that a channel's role may speak for."""
    return f"{channel}/*/*/*"


def delegated_roles(targets: Signed) -> tuple[dict[str, str], dict[str, str]]:
    """Say which roles the top-level targets role delegates to.

    Returns:
        For each role of ours its path pattern; for each other one why it is left out.
    """
    roles: dict[str, str] = {}
    left_out: dict[str, str] = {}
    delegations = targets.get("delegations") or {}
    for role in delegations.get("roles") or []:
        name, paths = role["name"], role.get("paths")
        expected = _expected_pattern(name)
        if expected is None:
            left_out[name] = "it is neither a channel nor the seed grants"
        elif paths != [expected]:
            left_out[name] = f"it is delegated {paths}, and not {[expected]}"
        else:
            roles[name] = expected
    return roles, left_out


def read_catalog(
    roles: Mapping[str, Signed],
    delegated: Mapping[str, str],
    left_out: Mapping[str, str],
    root: Signed,
    *,
    stale: bool = False,
) -> Catalog:
    """Build the catalog.

    Args:
        roles: The verified roles that are to be believed, without root.
        delegated: The roles that targets delegates to, believed or not.
        left_out: What is left out already, and why.
        root: The current trust root.
        stale: Whether the online roles have expired.
    """
    reasons = dict(left_out)
    releases: dict[TargetPath, Release] = {}
    grants: dict[NodeId, SeedGrant] = {}
    for path in roles["targets"].get("targets", {}):
        reasons[path] = "it stands in the top-level targets role, which only delegates"
    for role in delegated:
        for path, target in (roles.get(role) or {}).get("targets", {}).items():
            try:
                if role == POINTS_ROLE:
                    grant = _read_grant(path, target)
                    grants[grant.node] = grant
                else:
                    release = read_release(path, target, channel_of(role))
                    releases[release.target] = release
            except (UsageError, msgspec.ValidationError, KeyError, TypeError) as error:
                reasons[path] = str(error)
    valid = [root, *(signed for name, signed in roles.items() if not (stale and name in ONLINE_ROLES))]
    return Catalog(
        releases=releases,
        grants=grants,
        channels=tuple(
            sorted(ChannelName(r.removeprefix(CHANNEL_PREFIX)) for r in delegated if r != POINTS_ROLE)
        ),
        versions={"root": root["version"], **{name: signed["version"] for name, signed in roles.items()}},
        expires=min(int(expiry(signed).timestamp()) for signed in valid),
        left_out=dict(
            islice(((_cut(name), _cut(reason)) for name, reason in reasons.items()), _LEFT_OUT_MAX)
        ),
        stale=stale,
    )


def expiry(signed: Signed) -> datetime:
    """Return when a role expires."""
    return datetime.fromisoformat(signed["expires"])


def grant_content(custom: dict[str, Any]) -> bytes:
    """Return the content of a grant's target file: the same as its ``custom``, in canonical JSON."""
    return (encode_canonical(custom) or "").encode()


def check_grant(grant: SeedGrant) -> None:
    """Check what the type of a grant does not. Raises UsageError."""
    parse_node_id(grant.node)
    parse_group(grant.scope)
    if not grant.duties or len(set(grant.duties)) != len(grant.duties):
        raise UsageError("a grant names each duty once, and at least one")
    if len(grant.addresses) > limits.GRANT_ADDRESSES_MAX:
        raise UsageError(f"a grant has at most {limits.GRANT_ADDRESSES_MAX} addresses")
    for address in grant.addresses:
        host, _, port = address.rpartition(":")
        if not host or len(address) > 300 or not port.isdecimal() or not 0 < int(port[:6]) < 65_536:
            raise UsageError(f"{address[:60]!r} is not host:port")
    if grant.dialled and not grant.addresses:
        raise UsageError(f"{grant.node} is to be dialled, and no address is named", hint="give it --address")


def _cut(text: str) -> str:
    return text if len(text) <= limits.TARGET_PATH_CHARS_MAX else text[: limits.TARGET_PATH_CHARS_MAX] + "…"


def _expected_pattern(role: str) -> str | None:
    if role == POINTS_ROLE:
        return POINTS_PATTERN
    if not role.startswith(CHANNEL_PREFIX):
        return None
    try:
        return channel_pattern(parse_channel(role.removeprefix(CHANNEL_PREFIX)))
    except UsageError:
        return None


def read_release(path: str, target: Any, channel: ChannelName) -> Release:
    """Read a target of a channel, as it stands in a role's metadata.

    Raises:
        UsageError, msgspec.ValidationError, KeyError, TypeError: devices would not believe it.
    """
    name = parse_target(path)
    custom = msgspec.convert(target["custom"], ReleaseCustom, strict=True)
    product, version = parse_product(custom.product), custom.version
    if name.split("/")[:3] != [channel, product, version]:
        raise UsageError(f"it says that it is {product} {version}, in the channel {channel}")
    check_forms(custom)
    length, sha256 = target["length"], target["hashes"]["sha256"]
    if type(length) is not int or not 0 < length <= limits.ARTIFACT_BYTES_MAX:
        raise UsageError(f"a release of {length} bytes is not possible")
    if not _SHA256.match(sha256):
        raise UsageError("its SHA-256 is not one")
    check_deltas(custom.deltas, custom.info_hash)
    return Release(
        target=name,
        channel=channel,
        product=product,
        version=version,
        sequence=custom.sequence,
        platform=custom.platform,
        length=length,
        sha256=sha256,
        info_hash=InfoHash(custom.info_hash),
        recipe=custom.recipe,
        prerequisites=tuple(custom.prerequisites),
        rollback_from=custom.rollback_from,
        mirrors=mirrors_of(custom.mirrors),
        deltas=tuple(custom.deltas),
    )


def _read_grant(path: str, target: Any) -> SeedGrant:
    grant = msgspec.convert(target["custom"], SeedGrant, strict=True)
    check_grant(grant)
    if path != grant_path(grant.node):
        raise UsageError(f"it is a grant for {grant.node}")
    return grant


def grant_path(node: NodeId) -> TargetPath:
    """Return the target path of a node's grant."""
    return TargetPath(f"points/{node}.grant")
