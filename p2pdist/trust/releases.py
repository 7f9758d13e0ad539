"""Releases in a channel's draft: put, find, take out, permit to go back to.

Like :mod:`~p2pdist.trust.changes`: each function makes one change, whole, or raises and makes none.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Literal

import msgspec
from tuf.api.metadata import TargetFile

from p2pdist.errors import UsageError
from p2pdist.ids import ChannelName, TargetPath, parse_channel, parse_product, parse_target
from p2pdist.trust.catalog import Release, ReleaseCustom
from p2pdist.trust.changes import highest_sequences, plain, remember_sequences
from p2pdist.trust.contents import CHANNEL_PREFIX, channel_role, read_release
from p2pdist.trust.requirements import check_forms, check_platform, parse_prerequisite
from p2pdist.trust.signing import SigningState

Outcome = Literal["added", "changed", "unchanged"]
"""What putting a release has done to its channel."""


def put_release(
    state: SigningState,
    target: TargetPath,
    custom: ReleaseCustom,
    *,
    length: int,
    sha256: str,
    now: datetime,
) -> Outcome:
    """Add a release to its channel, or change how the one with the same content is installed.

    A permission to roll back to the release stays, as long as there is something newer to come from.
    Nothing is opened, and no signature dropped, if everything is as it was.

    Raises:
        UsageError: there is no such channel, the target stands there with another content, its path
            and product do not fit, its sequence is taken by another version, or no device could
            install it: an unknown platform, a prerequisite that is not in the channel.
    """
    channel, product, version, _ = parse_target(target).split("/")
    if (product, version) != (parse_product(custom.product), custom.version):
        raise UsageError(f"{target} is not the path of {custom.product} {custom.version}")
    role = _existing_role(state, channel)
    listed = state.latest(role).signed
    targets = listed.targets
    check_platform(custom.platform)
    check_forms(custom)
    _check_prerequisites(custom, highest_sequences(listed, withdrawn=False), channel)
    for path, other in targets.items():
        theirs = other.custom or {}
        if path == target and other.hashes.get("sha256") != sha256:
            raise UsageError(
                f"{target} is in the channel already, with another content",
                hint="give the new content a new version",
            )
        same_line = theirs.get("product") == custom.product and theirs.get("platform") == custom.platform
        if path != target and same_line and theirs.get("sequence") == custom.sequence:
            raise UsageError(
                f"{path} has the sequence number {custom.sequence} already",
                hint="leave --sequence out to take the next one",
            )
    before = targets.get(target)
    permitted = (before.custom or {}).get("rollback_from") if before is not None else None
    if custom.rollback_from is None and permitted is not None and permitted > custom.sequence:
        custom = msgspec.structs.replace(custom, rollback_from=permitted)
    fields = {name: value for name, value in plain(custom).items() if value not in (None, [])}
    file = TargetFile(length, {"sha256": sha256}, target, {"custom": fields})
    if file == before:
        return "unchanged"
    state.open(role, now).targets[target] = file
    return "added" if before is None else "changed"


def sequence_for(state: SigningState, target: TargetPath) -> int:
    """Return the sequence number of a release that is to be put without one being said.

    A release that is in its channel keeps its number: putting it again makes it no newer. Another one
    gets the number after the highest that its product ever had, withdrawn releases included: a device
    that has one of those would take the same number for what it has already.
    """
    channel, product, _, _ = parse_target(target).split("/")
    signed = state.latest(_existing_role(state, channel)).signed
    known = signed.targets.get(target)
    if known is not None and known.custom:
        return int(known.custom["sequence"])
    return 1 + highest_sequences(signed).get(product, 0)


def releases_of(state: SigningState, channel: ChannelName) -> list[Release]:
    """Return the releases of a channel as they will be, without those that no device would believe."""
    targets = state.latest(_existing_role(state, channel)).signed.targets
    found = []
    for path, file in targets.items():
        with suppress(UsageError, msgspec.ValidationError, KeyError, TypeError):
            found.append(read_release(path, file.to_dict(), channel))
    return found


def release_of(state: SigningState, channel: ChannelName, target: TargetPath) -> Release | None:
    """Return one release of a channel as it will be, if it is there."""
    return next((each for each in releases_of(state, channel) if each.target == target), None)


def check_channel(state: SigningState, channel: ChannelName) -> None:
    """Check that there is such a channel. Raises UsageError."""
    _existing_role(state, channel)


def find_release(state: SigningState, text: str) -> TargetPath:
    """Find a release by its target path, or by ``product@version`` where only one is called so.

    Raises:
        UsageError: there is none, or several are; the hint names them, or those that are called nearly so.
    """
    names: dict[str, list[TargetPath]] = {}
    for path in _releases(state):
        _, product, version, _ = path.split("/")
        names.setdefault(path, []).append(path)
        names.setdefault(f"{product}@{version}", []).append(path)
    found = names.get(text, [])
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"several releases are called {text}", hint=f"name one: {', '.join(found)}")
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = "list shows what there is" if names else "the channels are empty"
    raise UsageError(f"no release is called {text[:200]}", hint=hint)


def remove_release(state: SigningState, target: TargetPath, now: datetime) -> None:
    """Take a release out of its channel. Raises UsageError if it is not there."""
    role = channel_role(parse_channel(find_release(state, target).split("/")[0]))
    signed = state.open(role, now)
    remember_sequences(signed)
    del signed.targets[target]


def allow_rollback(state: SigningState, target: TargetPath, sequence: int | None, now: datetime) -> int:
    """Permit devices to go down to *target* from sequence numbers up to *sequence*.

    Args:
        sequence: By default the highest that the product ever had in the channel.

    Returns:
        The number that was written.

    Raises:
        UsageError: the target is not in its channel, or nothing newer ever was.
    """
    role = channel_role(parse_channel(find_release(state, target).split("/")[0]))
    signed = state.latest(role).signed
    custom = signed.targets[target].custom
    limit = sequence if sequence is not None else highest_sequences(signed)[custom["product"]]
    if limit <= custom["sequence"]:
        raise UsageError(
            f"{target} has the sequence number {custom['sequence']}, and nothing newer is in the channel",
            hint="name the sequence number that was withdrawn: --from",
        )
    file = state.open(role, now).targets[target]
    file.unrecognized_fields["custom"] = {**file.custom, "rollback_from": limit}
    return limit


def _releases(state: SigningState) -> list[TargetPath]:
    roles = [role for role in state.roles() if role.startswith(CHANNEL_PREFIX)]
    return [TargetPath(path) for role in roles for path in sorted(state.latest(role).signed.targets)]


def _check_prerequisites(custom: ReleaseCustom, highest: Mapping[str, int], channel: str) -> None:
    for text in custom.prerequisites:
        product, least = parse_prerequisite(text)
        have = custom.sequence - 1 if product == custom.product else highest.get(product, 0)
        if have >= least:
            continue
        if have:
            what = f"{text} cannot be met: {product} is at {have} in the channel {channel!r}"
            raise UsageError(what, hint="add that release first")
        near = difflib.get_close_matches(product, highest, n=1)
        hint = f"did you mean {near[0]}?" if near else "add that product first"
        raise UsageError(f"{text} cannot be met: there is no {product} in the channel {channel!r}", hint=hint)


def _existing_role(state: SigningState, channel: str) -> str:
    role = channel_role(parse_channel(channel))
    if role not in state.roles():
        known = ", ".join(r.removeprefix("channel-") for r in state.roles() if r.startswith("channel-"))
        raise UsageError(
            f"there is no channel {channel!r}", hint=f"there are: {known}" if known else "add it: channel add"
        )
    return role
