"""Metadata: believed when it is right; and attacks, each after a legitimate update and a sanity check."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata
from workshop import Workshop, grant_custom, now, release_custom, signer

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable, UsageError
from p2pdist.files import locked
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.verifier import Verifier
from p2pdist.wire.requests import Bundle

APP = "stable/app/1.0/app.bin"
MakeVerifier = Callable[[], Verifier]


def believe(verifier: Verifier, workshop: Workshop) -> None:
    """The legitimate update and the sanity check with which each attack begins."""
    assert APP in verifier.update(workshop.bundle(), now=now()).releases


def assert_unharmed(make_verifier: MakeVerifier) -> None:
    """What was believed before the attack is believed after it, also by a new process."""
    catalog = make_verifier().load(now=now())
    assert catalog is not None
    assert APP in catalog.releases


# What is right -----------------------------------------------------------------------------------


def test_a_release_and_a_grant_come_out_as_they_were_signed(verifier: Verifier, workshop: Workshop) -> None:
    node = IdentityKey.generate().node
    workshop.add_grant(f"points/{node}.grant", grant_custom(node))
    workshop.sign(bump=("points",))
    catalog = verifier.update(workshop.bundle(), now=now())
    release = catalog.releases[APP]  # type: ignore[index]
    assert (release.channel, release.product, release.version, release.sequence) == (
        "stable",
        "app",
        "1.0",
        1,
    )
    assert (release.length, release.sha256, release.info_hash) == (1_000, "cd" * 32, "ab" * 32)
    assert catalog.grants[node].scope == "/emea"
    assert catalog.channels == ("stable",)
    assert catalog.versions == {
        "root": 1,
        "timestamp": 2,
        "snapshot": 2,
        "targets": 1,
        "channel-stable": 1,
        "points": 2,
    }
    assert catalog.expires == int(workshop.timestamp.expires.timestamp())
    assert catalog.left_out == {}


def test_nothing_is_believed_before_the_first_update(verifier: Verifier) -> None:
    assert verifier.load(now=now()) is None
    assert verifier.versions() == {"root": 1}
    assert verifier.export({}).files == {}


def test_a_new_process_believes_what_the_last_one_verified(
    make_verifier: MakeVerifier, workshop: Workshop
) -> None:
    catalog = make_verifier().update(workshop.bundle(), now=now())
    assert make_verifier().load(now=now()) == catalog
    assert make_verifier().versions() == dict(catalog.versions)


def test_an_empty_bundle_changes_nothing(verifier: Verifier, workshop: Workshop) -> None:
    catalog = verifier.update(workshop.bundle(), now=now())
    assert verifier.update(Bundle(files={}), now=now()) == catalog


def test_only_what_is_missing_needs_to_travel(verifier: Verifier, workshop: Workshop, tmp_path: Path) -> None:
    believe(verifier, workshop)
    other = Verifier(tmp_path / "other", workshop.roots[0])
    other.update(verifier.export(other.versions()), now=now())
    workshop.add_release("stable/app/2.0/app.bin", release_custom("app", "2.0", 2))
    workshop.sign(bump=("channel-stable",))
    verifier.update(workshop.bundle(), now=now())
    missing = verifier.export(other.versions())
    assert set(missing.files) == {"timestamp.json", "2.snapshot.json", "2.channel-stable.json"}
    assert "stable/app/2.0/app.bin" in other.update(missing, now=now()).releases
    assert verifier.export(other.versions()).files == {}


def test_a_chain_of_roots_is_followed_from_the_first_one(
    verifier: Verifier, workshop: Workshop, tmp_path: Path
) -> None:
    believe(verifier, workshop)
    for _ in range(40):
        workshop.sign_root()
    workshop.sign()
    assert verifier.update(workshop.bundle(), now=now()).versions["root"] == 41
    late = Verifier(tmp_path / "late", workshop.roots[0])
    assert late.update(verifier.export(late.versions()), now=now()).versions["root"] == 41


def test_a_channel_that_is_added_later_is_believed(verifier: Verifier, workshop: Workshop) -> None:
    believe(verifier, workshop)
    workshop.delegate("channel-beta", "beta/*/*/*", ["dev"])
    workshop.add_release("beta/app/3.0/app.bin", release_custom("app", "3.0"), "channel-beta")
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert catalog.channels == ("beta", "stable")
    assert "beta/app/3.0/app.bin" in catalog.releases


def test_a_channel_that_is_no_longer_delegated_is_forgotten(verifier: Verifier, workshop: Workshop) -> None:
    believe(verifier, workshop)
    delegations = workshop.targets["targets"].delegations
    assert delegations is not None
    assert delegations.roles is not None
    del delegations.roles["channel-stable"]
    del workshop.targets["channel-stable"]
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert not catalog.releases
    assert "channel-stable" not in verifier.versions()


def test_forty_channels_are_all_loaded(verifier: Verifier, workshop: Workshop) -> None:
    for number in range(40):
        channel = f"c{number}"
        workshop.delegate(f"channel-{channel}", f"{channel}/*/*/*", ["dev"])
        path = f"{channel}/app/1/f"
        workshop.add_release(path, release_custom("app", "1"), f"channel-{channel}")
    workshop.sign()
    assert len(verifier.update(workshop.bundle(), now=now()).releases) == 41


# Attacks on signatures ---------------------------------------------------------------------------


def test_a_channel_signed_with_a_wrong_key_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    workshop.signers["channel-stable"] = ["mallory", "rel"]
    workshop.add_release("stable/app/2.0/app.bin", release_custom("app", "2.0", 2))
    workshop.sign(bump=("channel-stable",))
    with pytest.raises(TrustError, match="channel 'stable' carries 1 valid signatures of the 2"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("targets", "list of channels"),
        ("snapshot", "the snapshot"),
        ("timestamp", "the timestamp"),
        ("points", "seed grants"),
    ],
)
def test_a_role_signed_with_a_wrong_key_is_refused_and_named(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier, role: str, words: str
) -> None:
    believe(verifier, workshop)
    workshop.signers[role] = ["mallory"]
    workshop.sign(bump=(role,))
    with pytest.raises(TrustError, match=f"{words}.* carries 0 valid signatures of the 1"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


def test_one_signature_where_two_are_needed_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    workshop.signers["root"] = ["carol"]
    workshop.root.add_key(signer("mallory").public_key, "targets")
    workshop.sign_root()
    with pytest.raises(TrustError, match="version 2 of the trust root carries 1 valid signatures of the 2"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


def test_the_same_person_cannot_sign_twice(verifier: Verifier, workshop: Workshop) -> None:
    believe(verifier, workshop)
    workshop.signers["channel-stable"] = ["dev"]
    workshop.sign(bump=("channel-stable",))
    name = "2.channel-stable.json"
    doubled = json.loads(workshop.files[name])
    doubled["signatures"] *= 2
    workshop.files[name] = json.dumps(doubled).encode()
    with pytest.raises(P2PDistError):
        verifier.update(workshop.bundle(), now=now())


def test_a_target_outside_of_its_channel_is_left_out(verifier: Verifier, workshop: Workshop) -> None:
    workshop.delegate("channel-beta", "beta/*/*/*", ["dev"])
    workshop.add_release("stable/app/9.9/app.bin", release_custom("app", "9.9"), "channel-beta")
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert "in the channel beta" in catalog.left_out["stable/app/9.9/app.bin"]


@pytest.mark.parametrize(
    ("bases", "own"), [(("a", "a"), "d"), (("a", "ab"), "d"), (("a", "c"), "ab")], ids=str
)
def test_a_release_whose_deltas_name_a_base_twice_or_its_own_artifact_is_left_out(
    verifier: Verifier, workshop: Workshop, bases: tuple[str, str], own: str
) -> None:
    numbers = {"base_length": 9, "length": 5, "window_log": 20, "base_unpacked": 9, "unpacked": 9}
    hashes = {"base_sha256": "1" * 64, "sha256": "2" * 64, "info_hash": own * (64 // len(own))}
    deltas = [{"base": base * (64 // len(base)), **hashes, **numbers} for base in bases]
    target = "stable/app/9.9/app.bin"
    workshop.add_release(target, release_custom("app", "9.9", 9, deltas=deltas), "channel-stable")
    workshop.sign(bump=("channel-stable",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert "a base twice, or its own artifact" in catalog.left_out[target]


def test_a_role_that_is_delegated_more_than_its_channel_is_left_out(
    verifier: Verifier, workshop: Workshop
) -> None:
    workshop.delegate("channel-greedy", "*/*/*/*", ["dev"])
    workshop.add_release("greedy/app/9.9/app.bin", release_custom("app", "9.9"), "channel-greedy")
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert "delegated" in catalog.left_out["channel-greedy"]


def test_a_target_in_the_top_level_role_is_left_out(verifier: Verifier, workshop: Workshop) -> None:
    workshop.add_release("stable/app/9.9/app.bin", release_custom("app", "9.9"), "targets")
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert "only delegates" in catalog.left_out["stable/app/9.9/app.bin"]


def test_a_root_of_another_fleet_is_refused(verifier: Verifier, workshop: Workshop) -> None:
    believe(verifier, workshop)
    workshop.roots[0] = b"{}"
    foreign = Workshop()
    foreign.signers["timestamp"] = ["mallory"]
    foreign.timestamp.version = 9
    foreign.sign()
    with pytest.raises(TrustError, match="the timestamp carries 0 valid signatures"):
        verifier.update(foreign.bundle(), now=now())


# Attacks on time and versions --------------------------------------------------------------------


def test_an_older_timestamp_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    old = workshop.bundle()
    workshop.sign()
    believe(verifier, workshop)
    with pytest.raises(TrustError, match="the timestamp would go back to an older version"):
        verifier.update(old, now=now())
    assert_unharmed(make_verifier)


def test_an_older_snapshot_under_a_new_timestamp_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    old_snapshot = workshop.snapshot.version
    workshop.sign()
    believe(verifier, workshop)
    workshop.snapshot.version = old_snapshot
    workshop.timestamp.version += 1
    workshop.sign_online()
    with pytest.raises(TrustError, match="older version"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


def test_an_older_channel_under_a_new_snapshot_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    old = dict(workshop.files)
    old_meta = workshop.snapshot.meta["channel-stable.json"]
    workshop.sign(bump=("channel-stable",))
    believe(verifier, workshop)
    workshop.sign()
    workshop.snapshot.meta["channel-stable.json"] = old_meta
    workshop.sign_online()
    workshop.files["1.channel-stable.json"] = old["1.channel-stable.json"]
    with pytest.raises(TrustError, match="the snapshot would go back to an older version"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


def test_a_snapshot_that_drops_a_role_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    workshop.sign()
    del workshop.snapshot.meta["channel-stable.json"]
    workshop.sign_online()
    with pytest.raises(TrustError, match=r"missing info for 'channel-stable\.json'"):
        verifier.update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_expired_top_level_role_is_refused(verifier: Verifier, workshop: Workshop, role: str) -> None:
    believe(verifier, workshop)
    signed = {"timestamp": workshop.timestamp, "snapshot": workshop.snapshot, **workshop.targets}[role]
    signed.expires = workshop.later(-0.01)
    workshop.sign(bump=(role,))
    with pytest.raises(TrustError, match="has expired"):
        verifier.update(workshop.bundle(), now=now())


def test_an_expired_root_is_refused_and_a_renewed_one_heals_it(
    verifier: Verifier, workshop: Workshop
) -> None:
    believe(verifier, workshop)
    workshop.root.expires = workshop.later(-1)
    workshop.sign_root()
    workshop.sign()
    with pytest.raises(TrustError, match="the trust root has expired"):
        verifier.update(workshop.bundle(), now=now())
    workshop.root.expires = workshop.later(365)
    workshop.sign_root()
    believe(verifier, workshop)


def test_frozen_metadata_stops_being_believed_when_its_timestamp_expires(
    verifier: Verifier, workshop: Workshop
) -> None:
    believe(verifier, workshop)
    assert verifier.update(workshop.bundle(), now=now() + timedelta(hours=23))
    with pytest.raises(TrustError, match="the timestamp has expired on"):
        verifier.update(workshop.bundle(), now=now() + timedelta(hours=25))
    with pytest.raises(TrustError, match="the timestamp has expired on"):
        verifier.load(now=now() + timedelta(hours=25))


def test_an_expired_channel_is_left_out_and_the_others_stay(
    verifier: Verifier, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.delegate("channel-beta", "beta/*/*/*", ["dev"])
    workshop.add_release("beta/app/3.0/app.bin", release_custom("app", "3.0"), "channel-beta")
    workshop.targets["channel-beta"].expires = workshop.later(-1)
    workshop.sign(bump=("targets",))
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert "the channel 'beta' has expired" in catalog.left_out["channel-beta"]
    assert catalog.expires > now().timestamp()
    # Who asks us sees the same, and no gap.
    other = Verifier(tmp_path / "other", workshop.roots[0])
    assert other.update(verifier.export(other.versions()), now=now()) == catalog


def test_an_expired_channel_comes_back_when_it_is_renewed(verifier: Verifier, workshop: Workshop) -> None:
    workshop.targets["channel-stable"].expires = workshop.later(0.5)
    workshop.sign()
    believe(verifier, workshop)
    catalog = verifier.update(workshop.bundle(), now=now() + timedelta(hours=13))
    assert "channel-stable" in catalog.left_out
    workshop.targets["channel-stable"].expires = workshop.later(90)
    workshop.sign(bump=("channel-stable",))
    assert APP in verifier.update(workshop.bundle(), now=now() + timedelta(hours=13)).releases


def test_a_clock_that_was_set_back_is_noticed(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    with pytest.raises(TrustError, match="clock went back"):
        verifier.update(workshop.bundle(), now=now() - timedelta(days=2))
    with pytest.raises(TrustError, match="clock went back"):
        make_verifier().load(now=now() - timedelta(days=2))
    verifier.update(workshop.bundle(), now=now() - timedelta(seconds=limits.CLOCK_SKEW_S - 10))
    assert_unharmed(make_verifier)


def test_a_clock_set_back_a_little_cannot_make_expired_metadata_pass(
    verifier: Verifier, workshop: Workshop
) -> None:
    believe(verifier, workshop)
    end = workshop.timestamp.expires
    verifier.load(now=end - timedelta(seconds=2))
    # Two minutes later the machine's clock has been set back by one: within the skew, but time is up.
    floor = end - timedelta(seconds=2)
    assert verifier.load(now=floor - timedelta(seconds=60)) is not None
    with pytest.raises(TrustError, match="has expired"):
        verifier.load(now=end + timedelta(seconds=1))


def test_a_clock_far_in_the_past_is_noticed_on_a_new_machine(verifier: Verifier, workshop: Workshop) -> None:
    workshop.timestamp.unrecognized_fields["x-p2pdist-signed-at"] = int(now().timestamp())
    workshop.sign()
    with pytest.raises(TrustError, match="clock is late"):
        verifier.update(workshop.bundle(), now=now() - timedelta(days=400))
    believe(verifier, workshop)


# Attacks on files --------------------------------------------------------------------------------


def test_files_of_two_publications_cannot_be_mixed(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    workshop.targets["channel-stable"].unrecognized_fields["note"] = "one"
    workshop.sign(bump=("channel-stable",))
    mixed = workshop.files["2.channel-stable.json"]
    workshop.targets["channel-stable"].unrecognized_fields["note"] = "two"
    workshop.sign()
    with pytest.raises(TrustError, match="is not the file that the snapshot names"):
        verifier.update(workshop.bundle({"2.channel-stable.json": mixed}), now=now())
    assert_unharmed(make_verifier)


@pytest.mark.parametrize(
    "name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.channel-stable.json"]
)
def test_a_bundle_without_one_file_is_refused_and_the_file_is_named(
    verifier: Verifier, workshop: Workshop, name: str
) -> None:
    with pytest.raises(PeerError, match="is missing in the bundle"):
        verifier.update(workshop.bundle({name: None}), now=now())
    believe(verifier, workshop)


@pytest.mark.parametrize(
    ("name", "cap"),
    [
        ("2.root.json", limits.ROOT_BYTES_MAX),
        ("timestamp.json", limits.TIMESTAMP_BYTES_MAX),
    ],
)
def test_an_oversized_file_is_refused(verifier: Verifier, workshop: Workshop, name: str, cap: int) -> None:
    believe(verifier, workshop)
    with pytest.raises(PeerError, match="larger than it may be"):
        verifier.update(workshop.bundle({name: b" " * (cap + 1)}), now=now())


def test_an_oversized_snapshot_is_refused_before_it_is_parsed(verifier: Verifier, workshop: Workshop) -> None:
    with pytest.raises(P2PDistError, match="larger than it may be"):
        verifier.update(
            workshop.bundle({"1.snapshot.json": b" " * (limits.SNAPSHOT_BYTES_MAX + 1)}), now=now()
        )


def test_an_oversized_bundle_is_refused(verifier: Verifier) -> None:
    with pytest.raises(PeerError, match="too large"):
        verifier.update(Bundle(files={"1.root.json": bytes(limits.BUNDLE_BYTES_MAX + 1)}), now=now())
    many = {f"{n}.root.json": b"" for n in range(limits.BUNDLE_FILES_MAX + 1)}
    with pytest.raises(PeerError, match="too large"):
        verifier.update(Bundle(files=many), now=now())


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json", "2.root.json"])
def test_a_truncated_file_is_refused(
    verifier: Verifier, workshop: Workshop, tmp_path: Path, name: str
) -> None:
    workshop.sign_root()
    whole = workshop.publication()[name]
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        with pytest.raises(P2PDistError):
            verifier.update(workshop.bundle({name: whole[:cut]}), now=now())
    believe(verifier, workshop)


def test_a_chain_of_roots_without_an_end_is_cut_by_the_bundles_cap(
    verifier: Verifier, workshop: Workshop
) -> None:
    root = workshop.roots[0]
    endless = {f"{n}.root.json": root for n in range(1, limits.BUNDLE_FILES_MAX + 2)}
    with pytest.raises(PeerError, match="too large"):
        verifier.update(Bundle(files=endless), now=now())
    # Within the cap: the first root that does not follow from the one before ends it.
    endless = {f"{n}.root.json": root for n in range(1, 1_000)}
    with pytest.raises(TrustError, match="version 2 of the trust root has another version"):
        verifier.update(Bundle(files=endless), now=now())


def test_new_roots_are_kept_even_if_the_rest_of_the_bundle_is_refused(
    verifier: Verifier, workshop: Workshop, make_verifier: MakeVerifier
) -> None:
    believe(verifier, workshop)
    old_online = workshop.bundle()
    workshop.root.revoke_key(signer("online").public_key.keyid, "timestamp")
    workshop.root.add_key(signer("online2").public_key, "timestamp")
    workshop.sign_root()
    # Somebody who stole the old online key shows the new root, because he must, and an old timestamp.
    stolen = Bundle(files={**old_online.files, "2.root.json": workshop.roots[1]})
    with pytest.raises(TrustError, match="the timestamp carries 0 valid signatures"):
        verifier.update(stolen, now=now())
    assert make_verifier().versions()["root"] == 2
    with pytest.raises(TrustError, match="the timestamp carries 0 valid signatures"):
        make_verifier().load(now=now())
    workshop.signers["timestamp"] = ["online2"]
    workshop.sign()
    believe(make_verifier(), workshop)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_whatever_a_bundle_holds_only_our_errors_leave_the_verifier(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    workshop = FUZZED
    name = data.draw(st.sampled_from(sorted(workshop.publication())))
    original = workshop.publication()[name]
    json_value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
    kind = data.draw(st.sampled_from(["bytes", "json", "field", "flip"]))
    if kind == "bytes":
        changed = data.draw(st.binary(max_size=200))
    elif kind == "json":
        changed = json.dumps({"signed": data.draw(json_value), "signatures": data.draw(json_value)}).encode()
    elif kind == "field":
        raw = json.loads(original)
        key = data.draw(st.sampled_from(sorted(raw["signed"])))
        raw["signed"][key] = data.draw(json_value)
        changed = json.dumps(raw).encode()
    else:
        position = data.draw(st.integers(0, len(original) - 1))
        changed = (
            original[:position] + data.draw(st.binary(min_size=1, max_size=1)) + original[position + 1 :]
        )
    verifier = Verifier(tmp_path_factory.mktemp("fuzz"), workshop.roots[0])
    try:
        verifier.update(workshop.bundle({name: changed}), now=now())
    except (TrustError, PeerError):
        return
    # Accepted: then what is signed has not changed (root 1 is not even looked at).
    if name != "1.root.json":
        assert Metadata.from_bytes(changed).signed_bytes == Metadata.from_bytes(original).signed_bytes


FUZZED = Workshop()


# Wrong content under right signatures ------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "custom"),
    [
        ("stable/app/2.0/app.bin", None),
        ("stable/app/2.0/app.bin", [1, 2]),
        ("stable/app/2.0/app.bin", {"product": "app"}),
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", "seven")),  # type: ignore[arg-type]
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", 0)),
        ("stable/app/2.0/app.bin", release_custom("app", "3.0")),
        ("stable/app/2.0/app.bin", release_custom("other", "2.0")),
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", recipe={"kind": "magic"})),
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", info_hash="../../etc/passwd")),
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", prerequisites=["foo"])),
        ("stable/app/2.0/app.bin", release_custom("app", "2.0", mirrors=["http://h/x"])),
        ("stable/app/../app.bin", release_custom("app", "..")),
        ("stable/../../etc", release_custom("..", "..")),
        ("stable/app/2.0/.bashrc", release_custom("app", "2.0")),
        ("stable/app/2.0/a b", release_custom("app", "2.0")),
        ("stable/app/2.0/deeper/app.bin", release_custom("app", "2.0")),
        ("/etc/passwd", release_custom("app", "2.0")),
    ],
)
def test_a_malformed_target_is_left_out_and_the_rest_stands(
    verifier: Verifier, workshop: Workshop, path: str, custom: object
) -> None:
    workshop.add_release(path, custom)
    workshop.sign()
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.releases) == {APP}
    assert catalog.left_out[path]


@pytest.mark.parametrize(
    "fields",
    [
        {"scope": "not a group"},
        {"duties": []},
        {"duties": ["fly"]},
        {"addresses": ["no port"]},
        {"addresses": ["h:99999"]},
        {"expires": "soon"},
        {"node": "b" * 32},
    ],
    ids=str,
)
def test_a_malformed_grant_is_left_out_and_the_rest_stands(
    verifier: Verifier, workshop: Workshop, fields: dict[str, object]
) -> None:
    good, bad = IdentityKey.generate().node, IdentityKey.generate().node
    workshop.add_grant(f"points/{good}.grant", grant_custom(good))
    workshop.add_grant(f"points/{bad}.grant", {**grant_custom(bad), **fields})
    workshop.sign()
    catalog = verifier.update(workshop.bundle(), now=now())
    assert set(catalog.grants) == {good}
    assert catalog.left_out[f"points/{bad}.grant"]


# Accidents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["timestamp.json", "snapshot.json", "targets.json", "channel-stable.json"])
@pytest.mark.parametrize("damage", ["lost", "garbled"])
def test_a_damaged_file_is_noticed_and_fetched_again(
    make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path, name: str, damage: str
) -> None:
    believe(make_verifier(), workshop)
    path = tmp_path / "trust" / "current" / name
    path.unlink()
    if damage == "garbled":
        path.write_bytes(b"{garbled")
    verifier = make_verifier()
    if name == "timestamp.json":
        assert verifier.load(now=now()) is None
    else:
        with pytest.raises(TrustError, match="on this machine is damaged"):
            verifier.load(now=now())
    assert name.removesuffix(".json") not in verifier.versions()
    source = Verifier(tmp_path / "source", workshop.roots[0])
    source.update(workshop.bundle(), now=now())
    catalog = verifier.update(source.export(verifier.versions()), now=now())
    assert APP in catalog.releases
    assert_unharmed(make_verifier)


def test_a_damaged_root_is_noticed_and_fetched_again(
    make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.sign_root()
    workshop.sign_root()
    workshop.sign()
    believe(make_verifier(), workshop)
    path = tmp_path / "trust" / "current" / "root_history" / "2.root.json"
    path.unlink()
    path.write_bytes(b"{garbled")
    assert make_verifier().versions()["root"] == 1
    believe(make_verifier(), workshop)
    assert make_verifier().versions()["root"] == 3


def test_a_damaged_index_and_clock_cost_one_full_update(
    make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path
) -> None:
    believe(make_verifier(), workshop)
    (tmp_path / "trust" / "current" / "index.json").write_bytes(b"\x00")
    (tmp_path / "trust" / "clock").write_bytes(b"tomorrow")
    assert make_verifier().versions() == {"root": 1}
    believe(make_verifier(), workshop)


def test_leftovers_of_a_killed_update_are_removed(
    make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path
) -> None:
    believe(make_verifier(), workshop)
    leftover = tmp_path / "trust" / "sets" / "set-killed"
    leftover.mkdir()
    (leftover / "timestamp.json").write_bytes(b"half")
    (tmp_path / "trust" / "current.new").symlink_to("sets/set-killed")
    workshop.sign()
    believe(make_verifier(), workshop)
    assert len(list((tmp_path / "trust" / "sets").iterdir())) == 1


def test_a_second_process_is_told_that_the_metadata_is_in_use(
    verifier: Verifier, workshop: Workshop, tmp_path: Path
) -> None:
    with locked(tmp_path / "trust" / "lock", what="the test"), pytest.raises(Unavailable, match="in use"):
        verifier.update(workshop.bundle(), now=now())
    believe(verifier, workshop)


def test_a_full_disk_leaves_what_was_believed(
    make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believe(make_verifier(), workshop)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    workshop.sign()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="free some space"):
            make_verifier().update(workshop.bundle(), now=now())
    assert_unharmed(make_verifier)


def test_the_trust_root_itself_must_be_root_metadata(tmp_path: Path, workshop: Workshop) -> None:
    for data in (b"", b"{}", workshop.files["timestamp.json"]):
        with pytest.raises(UsageError, match="trust root"):
            Verifier(tmp_path / "t", data)


def test_the_directory_can_be_moved(make_verifier: MakeVerifier, workshop: Workshop, tmp_path: Path) -> None:
    believe(make_verifier(), workshop)
    shutil.move(tmp_path / "trust", tmp_path / "elsewhere")
    moved = Verifier(tmp_path / "elsewhere", workshop.roots[0])
    assert moved.load(now=now()) is not None
