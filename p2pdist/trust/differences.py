"""What would be signed, in words: a draft against what is published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuf.api.metadata import Delegations, Role, Root, TargetFile, Targets

from p2pdist.trust.contents import SEQUENCES_FIELD, SIGNED_AT_FIELD
from p2pdist.trust.keys import key_name
from p2pdist.trust.phrases import field_words, in_order, printable, size_words
from p2pdist.trust.refusals import role_words
from p2pdist.trust.signing import ROOT, SigningState

_KNOWN = {SIGNED_AT_FIELD}


def differences(state: SigningState, role: str) -> list[str]:
    """Describe what a role's draft changes, one sentence each; empty if it has no draft.

    Nothing that is signed goes unsaid: what has no words of its own is shown as it stands.
    """
    draft = state.drafts.get(role)
    if draft is None:
        return []
    before = state.published.get(role)
    old = before.signed if before is not None else None
    lines = _root_lines(old, draft.signed) if role == ROOT else _targets_lines(old, draft.signed)
    return [printable(line) for line in lines]


def _header(old: Any, new: Any) -> Iterator[str]:
    if old is None:
        yield f"it is signed for the first time, as version {new.version}"
    else:
        yield f"version {old.version} becomes {new.version}"
    before = f" instead of {old.expires:%Y-%m-%d %H:%M}" if old is not None else ""
    yield f"it is valid until {new.expires:%Y-%m-%d %H:%M} UTC{before}"
    yield from _other_fields(
        "it", old.unrecognized_fields if old is not None else {}, new.unrecognized_fields
    )


def _root_lines(old: Root | None, new: Root) -> Iterator[str]:
    yield from _header(old, new)
    for role in new.roles:
        old_role = old.roles[role] if old is not None else None
        yield from _keys_lines(
            role_words(role),
            (old.keys, old_role) if old is not None and old_role is not None else None,
            (new.keys, new.roles[role]),
        )
    if old is not None and old.consistent_snapshot != new.consistent_snapshot:
        yield f"consistent snapshots are {'on' if new.consistent_snapshot else 'off'}"


def _targets_lines(old: Targets | None, new: Targets) -> Iterator[str]:
    yield from _header(old, new)
    yield from _delegation_lines(old.delegations if old else None, new.delegations)
    before: Mapping[str, TargetFile] = old.targets if old is not None else {}
    for path in sorted(before.keys() - new.targets.keys()):
        yield f"{_noun(path)} {path} is withdrawn"
    for path in sorted(new.targets.keys() - before.keys()):
        file = new.targets[path]
        yield f"{_noun(path)} {path} is added: {_size(file)}"
        yield from _file_lines(path, {}, file.unrecognized_fields)
    for path in sorted(new.targets.keys() & before.keys()):
        first, second = before[path], new.targets[path]
        if first == second:
            continue
        if (first.length, first.hashes) != (second.length, second.hashes) and not path.startswith("points/"):
            yield f"THE CONTENT of {path} changes: {_size(first)} becomes {_size(second)}"
        yield f"{_noun(path)} {path} changes:"
        yield from _order_lines(path, first, second, new.targets)
        yield from _file_lines(path, first.unrecognized_fields, second.unrecognized_fields)


def _order_lines(
    path: str, old: TargetFile, new: TargetFile, targets: Mapping[str, TargetFile]
) -> Iterator[str]:
    """Say that a release that was signed before takes another place among those of its product."""
    before, after = _place(old), _place(new)
    if before is None or after is None or before == after:
        return
    low, high = sorted((before[1], after[1]))
    passed = [
        other
        for other, file in sorted(targets.items())
        if other != path and (place := _place(file)) and place[0] == after[0] and low <= place[1] <= high
    ]
    which = f", compared with {', '.join(passed)}" if passed else ""
    if after[1] > before[1]:
        yield f"{path} BECOMES NEWER{which}: devices take it for an update"
    else:
        yield f"{path} BECOMES OLDER{which}: devices that have a newer release refuse it"


def _place(file: TargetFile) -> tuple[str, int] | None:
    """A release's product and sequence number; None where there is none, in a draft from elsewhere."""
    custom = file.unrecognized_fields.get("custom")
    if not isinstance(custom, dict):
        return None
    product, sequence = custom.get("product"), custom.get("sequence")
    return (product, sequence) if isinstance(product, str) and isinstance(sequence, int) else None


def _delegation_lines(old: Delegations | None, new: Delegations | None) -> Iterator[str]:
    before = (old.roles or {}) if old else {}
    after = (new.roles or {}) if new else {}
    yield from _other_fields(
        "the delegations", old.unrecognized_fields if old else {}, new.unrecognized_fields if new else {}
    )
    if new is not None and new.succinct_roles is not None:
        yield f"hash bins are delegated: {new.succinct_roles.to_dict()}"
    for role in sorted(before.keys() - after.keys()):
        yield f"{role_words(role)} is removed, with everything in it"
    for role, entry in after.items():
        words = role_words(role)
        was = before.get(role)
        if was is None:
            yield f"{words} is added, for the paths {', '.join(entry.paths or [])}"
        elif (was.paths, was.terminating) != (entry.paths, entry.terminating):
            yield f"{words} speaks for {', '.join(entry.paths or [])} instead of {', '.join(was.paths or [])}"
        yield from _keys_lines(
            words,
            (old.keys, was) if old is not None and was is not None else None,
            (new.keys if new else {}, entry),
        )


_Keys = tuple[Mapping[str, Any], Role]


def _keys_lines(words: str, old: _Keys | None, new: _Keys) -> Iterator[str]:
    keys, entry = new
    keyids, threshold = entry.keyids, entry.threshold
    old_keys = old[0] if old is not None else {}
    old_keyids, old_threshold = (old[1].keyids, old[1].threshold) if old is not None else ([], 0)
    for keyid in old_keyids:
        if keyid not in keyids:
            yield f"{words}: {key_name(old_keys[keyid])} loses the right to sign"
    for keyid in keyids:
        if keyid not in old_keyids:
            yield f"{words}: {key_name(keys[keyid])} may sign, with the public key {_public(keys[keyid])}"
        elif keys[keyid] != old_keys[keyid]:
            was, becomes = key_name(old_keys[keyid]), keys[keyid].to_dict()
            yield f"{words}: the key {was} is written differently: {becomes}"
    if threshold != old_threshold:
        before = f" instead of {old_threshold}" if old is not None else ""
        yield f"{words}: {threshold} of {len(keyids)} must sign{before}"
    yield from _other_fields(words, old[1].unrecognized_fields if old else {}, entry.unrecognized_fields)


def _file_lines(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = old.get("custom", {}), new.get("custom", {})
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _custom_lines(path, before, after)
        old, new = ({k: v for k, v in fields.items() if k != "custom"} for fields in (old, new))
    yield from _other_fields(f"  {path}", old, new)


def _custom_lines(path: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if "rollback_from" in new and new["rollback_from"] != old.get("rollback_from"):
        yield (
            f"devices MAY GO BACK to {path} (sequence {new.get('sequence')}) from any sequence up to"
            f" {new['rollback_from']}"
        )
        old, new = ({k: v for k, v in c.items() if k != "rollback_from"} for c in (old, new))
    for name in in_order({**old, **new}):
        if name in old and name in new and old[name] == new[name]:
            continue
        if name not in new:
            label, words = field_words(name, old[name])
            yield f"  {label}: no longer {words}"
            continue
        label, words = field_words(name, new[name])
        instead = f" instead of {field_words(name, old[name])[1]}" if name in old else ""
        yield f"  {label}: {words}{instead}"


def _other_fields(words: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(old.keys() | new.keys()):
        if name in _KNOWN or old.get(name) == new.get(name):
            continue
        if name == SEQUENCES_FIELD:
            used = new.get(name)
            numbers = (
                ", ".join(f"{product} {n}" for product, n in used.items()) if isinstance(used, dict) else used
            )
            yield f"numbers that were given once and are not given again: up to {numbers}"
        elif name not in old:
            yield f"{words}: {name} is {new[name]!r}"
        elif name not in new:
            yield f"{words}: {name} is no longer {old[name]!r}"
        else:
            yield f"{words}: {name} is {new[name]!r} instead of {old[name]!r}"


def _noun(path: str) -> str:
    return "the seed grant" if path.startswith("points/") else "the release"


def _size(file: TargetFile) -> str:
    return f"{size_words(file.length)}, SHA-256 {file.hashes.get('sha256', '?')}"


def _public(key: Any) -> str:
    return str(key.keyval.get("public", "?"))
