"""Changes to drafts: each function makes one, whole, or raises and makes none.

All take the state first and the time last. What they open must be signed (again) before publication.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from securesystemslib.signer import Key
from tuf.api.metadata import DelegatedRole, Delegations, Root, TargetFile, Targets

from p2pdist.errors import UsageError
from p2pdist.ids import ChannelName, FleetName, NodeId, parse_channel
from p2pdist.trust.catalog import SeedGrant
from p2pdist.trust.contents import (
    POINTS_PATTERN,
    POINTS_ROLE,
    SEQUENCES_FIELD,
    channel_pattern,
    channel_role,
    check_grant,
    grant_content,
    grant_path,
)
from p2pdist.trust.keys import KEY_NAME_FIELD, key_name
from p2pdist.trust.online import expires
from p2pdist.trust.refusals import role_words
from p2pdist.trust.signing import RESERVED_NAMES, ROOT, TARGETS, Lives, SigningState

_ONLINE_ROLES = ("snapshot", "timestamp")
T = TypeVar("T")


class KeySet(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of which *threshold* must sign."""

    keys: tuple[Key, ...]
    threshold: int

    def check(self, what: str) -> None:
        """Raise UsageError unless the threshold can be met and every key stands there once."""
        if len({key.keyid for key in self.keys}) != len(self.keys):
            raise UsageError(f"a key stands twice among those of {what}")
        if not 1 <= self.threshold <= len(self.keys):
            raise UsageError(
                f"{what} cannot need {self.threshold} signatures of {len(self.keys)} keys",
                hint=f"choose a threshold from 1 to {len(self.keys)}",
            )


def found_fleet(
    fleet: FleetName,
    *,
    root: KeySet,
    targets: KeySet,
    points: KeySet,
    online: Key,
    lives: Lives,
    now: datetime,
) -> SigningState:
    """Begin a fleet's metadata: drafts of root, targets and points, unsigned.

    Raises:
        UsageError: a threshold cannot be met, or the online key is also one that people use.
    """
    for what, keys in (("root", root), ("targets", targets), ("points", points)):
        keys.check(what)
        if online.keyid in (key.keyid for key in keys.keys):
            raise UsageError(f"the online key cannot be a key of {what}", hint="make a key of its own for it")
    state = SigningState(fleet, lives)
    top = Root(expires=expires(now, lives.root_s), consistent_snapshot=True)
    for role, keys in ((ROOT, root), (TARGETS, targets)):
        for key in keys.keys:
            top.add_key(key, role)
        top.roles[role].threshold = keys.threshold
    for role in _ONLINE_ROLES:
        top.add_key(online, role)
    listing = Targets(expires=expires(now, lives.targets_s))
    listing.delegations = Delegations({}, roles={})
    state.put(ROOT, top)
    state.put(TARGETS, listing)
    _delegate(state, POINTS_ROLE, POINTS_PATTERN, points, now)
    return state


def add_channel(state: SigningState, channel: ChannelName, keys: KeySet, now: datetime) -> None:
    """Add a channel with keys of its own. Raises UsageError if there is one, or the name is taken."""
    parse_channel(channel)
    if channel in RESERVED_NAMES:
        raise UsageError(f"a channel cannot be called {channel!r}", hint="choose another name")
    role = channel_role(channel)
    if role in state.roles():
        raise UsageError(f"there is a channel {channel!r} already", hint="change its keys with: rotate")
    keys.check(role_words(role))
    state.open(TARGETS, now)
    _delegate(state, role, channel_pattern(channel), keys, now)


def remove_channel(state: SigningState, channel: ChannelName, now: datetime) -> None:
    """Remove a channel with all its releases. Devices keep what they have installed."""
    role = channel_role(channel)
    if role not in state.roles():
        raise UsageError(f"there is no channel {channel!r}", hint="see: status")
    state.open(TARGETS, now)
    delegations = state.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    del delegations.roles[role]
    _drop_unused_keys(delegations)
    state.settle(now)


def put_grant(state: SigningState, grant: SeedGrant, now: datetime) -> None:
    """Grant a node that it may act as a distribution point; replaces its grant if it has one."""
    check_grant(grant)
    if grant.expires <= now.timestamp():
        raise UsageError("the grant would have expired already", hint="choose a later end")
    path = grant_path(grant.node)
    custom = plain(grant)
    file = TargetFile.from_data(path, grant_content(custom), ["sha256"])
    file.unrecognized_fields["custom"] = custom
    state.open(POINTS_ROLE, now).targets[path] = file


def remove_grant(state: SigningState, node: NodeId, now: datetime) -> None:
    """Withdraw a node's grant. Raises UsageError if it has none."""
    path = grant_path(node)
    if path not in state.latest(POINTS_ROLE).signed.targets:
        raise UsageError(f"the node {node} has no grant", hint="see: status")
    del state.open(POINTS_ROLE, now).targets[path]


def renew(state: SigningState, role: str, now: datetime) -> None:
    """Open a role as it is, so that signing it again gives it a new expiry."""
    state.open(role, now)


def change_keys(
    state: SigningState,
    role: str,
    *,
    add: Sequence[Key] = (),
    remove: Sequence[str] = (),
    threshold: int | None = None,
    now: datetime,
) -> list[str]:
    """Change who signs a role (``online``: who signs snapshot and timestamp).

    Args:
        add: New keys.
        remove: Names or ids of keys that lose their say.
        threshold: How many must sign from now on; as before by default.

    Returns:
        The other roles that must be signed again because of it.

    Raises:
        UsageError: a key is not there, or the threshold could not be met.
    """
    before = current_keys(state, role)
    leaving = {match_key(before.keys, text).keyid for text in remove}
    keys = (*(key for key in before.keys if key.keyid not in leaving), *add)
    after = KeySet(keys=keys, threshold=before.threshold if threshold is None else threshold)
    words = role_words(role) if role != "online" else "the online roles"
    after.check(words)
    if before == after:
        raise UsageError(f"nothing would change about the keys of {words}")

    def change(state: SigningState) -> None:
        for name in _ONLINE_ROLES if role == "online" else (role,):
            _set_keys(state, name, after, now)

    _whole(state, change)
    return state.settle(now)


def current_keys(state: SigningState, role: str) -> KeySet:
    """Return who signs a role, as it will be. Raises UsageError if there is no such role."""
    if role in (ROOT, TARGETS, "online", *_ONLINE_ROLES):
        holder: Any = state.root
        entry, keys = state.root.roles["snapshot" if role == "online" else role], state.root.keys
    else:
        holder = state.targets.delegations
        if holder is None or role not in (holder.roles or {}):
            raise UsageError(f"there is no {role_words(role).removeprefix('the ')}", hint="see: status")
        entry, keys = holder.roles[role], holder.keys
    return KeySet(keys=tuple(keys[keyid] for keyid in entry.keyids), threshold=entry.threshold)


def roles_of_key(state: SigningState, text: str) -> list[str]:
    """List the roles (``online`` for snapshot and timestamp) in which a key has a say, by name or id."""
    found = []
    for role in (*state.roles(), "online"):
        if any(_matches(key, text) for key in current_keys(state, role).keys):
            found.append(role)
    if not found:
        raise UsageError(f"no key called {text!r} is in use", hint="see: status")
    return found


def match_key(keys: Sequence[Key], text: str) -> Key:
    """Find a key by its name or the beginning of its id. Raises UsageError unless there is exactly one."""
    matching = [key for key in keys if _matches(key, text)]
    if len(matching) != 1:
        known = ", ".join(key_name(key) for key in keys)
        raise UsageError(
            f"{len(matching)} keys here are called {text!r}" if matching else f"no key is called {text!r}",
            hint=f"there are: {known}",
        )
    return matching[0]


def highest_sequences(signed: Targets, *, withdrawn: bool = True) -> dict[str, int]:
    """Return the highest sequence number that each product of a channel ever had, or has now."""
    remembered = signed.unrecognized_fields.get(SEQUENCES_FIELD, {}) if withdrawn else {}
    highest: dict[str, int] = dict(remembered)
    for path, file in signed.targets.items():
        product = path.split("/")[1]
        highest[product] = max(highest.get(product, 0), (file.custom or {}).get("sequence", 0))
    return highest


def remember_sequences(signed: Targets) -> None:
    """Write down the highest numbers before releases are withdrawn, so that none is given twice."""
    signed.unrecognized_fields[SEQUENCES_FIELD] = highest_sequences(signed)


def plain(struct: msgspec.Struct) -> dict[str, Any]:
    """Return a structure as it will come out of the metadata's JSON."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(struct))
    return plain


def _delegate(state: SigningState, role: str, pattern: str, keys: KeySet, now: datetime) -> None:
    delegations = state.targets.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles[role] = DelegatedRole(role, [], keys.threshold, True, [pattern])
    for key in keys.keys:
        state.targets.add_key(key, role)
    if role in state.published:  # it was removed once, and its versions must go on growing
        signed = state.open(role, now)
        remember_sequences(signed)
        signed.targets.clear()
    else:
        state.put(role, Targets(expires=expires(now, state.lives.targets_s)))


def _set_keys(state: SigningState, role: str, keys: KeySet, now: datetime) -> None:
    if role in (ROOT, TARGETS, *_ONLINE_ROLES):
        root = state.open(ROOT, now)
        holder, entry, remove = root, root.roles[role], root.revoke_key
    else:
        targets = state.open(TARGETS, now)
        holder, entry, remove = targets, targets.delegations.roles[role], targets.revoke_key
    staying = {key.keyid for key in keys.keys}
    for keyid in [keyid for keyid in entry.keyids if keyid not in staying]:
        remove(keyid, role)
    for key in keys.keys:
        holder.add_key(key, role)
    entry.threshold = keys.threshold


def _drop_unused_keys(delegations: Delegations) -> None:
    used = {keyid for role in (delegations.roles or {}).values() for keyid in role.keyids}
    for keyid in set(delegations.keys) - used:
        del delegations.keys[keyid]


def _whole(state: SigningState, change: Callable[[SigningState], T]) -> T:
    """Apply a change of several steps, or none of them."""
    before = copy.deepcopy(state.drafts)
    try:
        return change(state)
    except BaseException:
        state.drafts = before
        raise


def _matches(key: Key, text: str) -> bool:
    return key.unrecognized_fields.get(KEY_NAME_FIELD) == text or (
        len(text) >= 8 and key.keyid.startswith(text)
    )
