"""Drafts: who must sign, what each signature is worth, and what a change asks to be signed again."""

from __future__ import annotations

import copy
from datetime import timedelta

import msgspec
import pytest
from ceremony import STABLE, keys, sign_all, target
from securesystemslib.signer import Signature
from workshop import now, signer

from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import ChannelName, FleetName, TargetPath
from p2pdist.trust import changes, releases
from p2pdist.trust.catalog import (
    AgentRecipe,
    AnyRecipe,
    CommandRecipe,
    DebRecipe,
    FileRecipe,
    ReleaseCustom,
    SeedGrant,
    TreeRecipe,
)
from p2pdist.trust.differences import differences
from p2pdist.trust.keys import IdentityKey
from p2pdist.trust.phrases import recipe_words
from p2pdist.trust.rolefiles import parse_document
from p2pdist.trust.signing import Lives, SigningState, parse_role

NODE = IdentityKey.generate().node


def founded() -> SigningState:
    state = changes.found_fleet(
        FleetName("acme"),
        root=keys("alice", "bob", "carol", threshold=2),
        targets=keys("lead"),
        points=keys("ops"),
        online=signer("online").public_key,
        lives=Lives(),
        now=now(),
    )
    changes.add_channel(state, STABLE, keys("dev", "rel", threshold=2), now())
    return state


def published() -> SigningState:
    """A fleet whose first state is signed and published."""
    state = founded()
    put(state, "1.0")
    sign_all(state)
    return SigningState(state.fleet, state.lives, state.draft_files())


def release_custom(**fields: object) -> ReleaseCustom:
    values = {
        "product": "app",
        "version": "1.0",
        "sequence": 1,
        "platform": "any",
        "info_hash": "ab" * 32,
        "recipe": FileRecipe(path="/etc/motd"),
    }
    return ReleaseCustom(**{**values, **fields})  # type: ignore[arg-type]


def put(
    state: SigningState, version: str, *, sequence: int | None = None, sha256: str = "cd" * 32
) -> TargetPath:
    number = sequence or releases.sequence_for(state, target(version))
    custom = release_custom(version=version, sequence=number)
    releases.put_release(state, target(version), custom, length=10, sha256=sha256, now=now())
    return target(version)


def grant(**fields: object) -> SeedGrant:
    values = {
        "node": NODE,
        "duties": ("seed",),
        "scope": "/emea",
        "addresses": ("h:1",),
        "expires": 2_000_000_000,
    }
    return SeedGrant(**{**values, **fields})  # type: ignore[arg-type]


def words(state: SigningState, role: str) -> str:
    return "\n".join(differences(state, role))


# Signatures --------------------------------------------------------------------------------------


def test_a_new_fleet_waits_for_everybodys_signature() -> None:
    state = founded()
    assert state.roles() == ["root", "targets", "points", "channel-stable"]
    standing = state.standing("root")
    assert (standing.published, standing.draft, standing.complete) == (None, 1, False)
    assert standing.demands[0].missing == 2
    assert len(standing.demands[0].unsigned) == 3


def test_a_threshold_is_met_by_as_many_people_as_it_says() -> None:
    state = founded()
    state.sign("root", signer("alice"))
    assert state.standing("root").demands[0].missing == 1
    assert not state.standing("root").complete
    state.sign("root", signer("carol"))
    assert state.standing("root").complete
    assert state.wanted_keys("root") == {}


def test_nobody_signs_twice() -> None:
    state = founded()
    state.sign("root", signer("alice"))
    with pytest.raises(UsageError, match=r"alice .* has signed the trust root already"):
        state.sign("root", signer("alice"))
    assert state.standing("root").demands[0].missing == 1


def test_a_key_without_a_say_is_not_taken() -> None:
    state = founded()
    with pytest.raises(UsageError, match=r"dev .* has no say in the trust root"):
        state.sign("root", signer("dev"))
    with pytest.raises(UsageError, match="no draft to sign"):
        published().sign("root", signer("alice"))


def test_only_relevant_keys_are_wanted() -> None:
    state = founded()
    assert set(state.wanted_keys("channel-stable")) == {
        signer("dev").public_key.keyid,
        signer("rel").public_key.keyid,
    }
    assert set(state.wanted_keys("points")) == {signer("ops").public_key.keyid}


def test_a_signature_is_checked_as_soon_as_it_is_made() -> None:
    class Broken:
        public_key = signer("alice").public_key

        def sign(self, payload: bytes) -> Signature:
            return Signature(self.public_key.keyid, "00" * 64)

    state = founded()
    with pytest.raises(TrustError, match="not valid; it was not taken"):
        state.sign("root", Broken())  # type: ignore[arg-type]
    assert not state.drafts["root"].signatures


def test_a_change_drops_the_signatures_on_what_was_before() -> None:
    state = founded()
    sign_all(state)
    assert state.standing("channel-stable").complete
    put(state, "1.0")
    assert not state.standing("channel-stable").complete
    assert state.standing("root").complete


def test_signatures_of_a_copy_are_taken_and_those_of_a_changed_copy_are_not() -> None:
    state = founded()
    copy = SigningState(state.fleet, state.lives, {}, state.draft_files())
    copy.sign("root", signer("bob"))
    assert state.take_signatures("root", copy.drafts["root"]) == [
        f"bob ({signer('bob').public_key.keyid[:8]})"
    ]
    assert state.take_signatures("root", copy.drafts["root"]) == []
    copy.drafts["root"].signed.version = 7
    with pytest.raises(TrustError, match="not the draft that is here"):
        state.take_signatures("root", copy.drafts["root"])


def test_a_forged_signature_in_a_copy_is_not_taken() -> None:
    state = founded()
    copy = SigningState(state.fleet, state.lives, {}, state.draft_files())
    keyid = signer("bob").public_key.keyid
    copy.drafts["root"].signatures[keyid] = Signature(keyid, "11" * 64)
    with pytest.raises(TrustError, match="not valid"):
        state.take_signatures("root", copy.drafts["root"])


def test_a_late_signature_on_what_was_published_meanwhile_is_ignored() -> None:
    state = published()
    assert state.take_signatures("root", state.published["root"]) == []


def test_the_online_key_is_nobody_elses() -> None:
    with pytest.raises(UsageError, match="online key"):
        changes.found_fleet(
            FleetName("acme"),
            root=keys("alice"),
            targets=keys("online"),
            points=keys("ops"),
            online=signer("online").public_key,
            lives=Lives(),
            now=now(),
        )


@pytest.mark.parametrize("threshold", [0, 3])
def test_a_threshold_that_cannot_be_met_is_refused(threshold: int) -> None:
    with pytest.raises(UsageError, match="from 1 to 2"):
        changes.add_channel(founded(), ChannelName("beta"), keys("dev", "rel", threshold=threshold), now())


def test_roles_are_named_as_people_name_them() -> None:
    assert parse_role("root") == "root"
    assert parse_role("stable") == parse_role("channel-stable") == "channel-stable"
    with pytest.raises(UsageError):
        parse_role("../etc")


def test_a_file_of_another_role_is_refused() -> None:
    state = founded()
    with pytest.raises(UsageError, match="holds targets metadata"):
        parse_document("root", state.drafts["targets"].to_bytes())
    with pytest.raises(UsageError, match="not valid"):
        parse_document("root", b"{")


# Releases and grants -----------------------------------------------------------------------------


def test_a_release_bumps_its_channel_and_nothing_else() -> None:
    state = published()
    put(state, "2.0")
    assert set(state.drafts) == {"channel-stable"}
    assert state.standing("channel-stable").draft == 2


def test_sequence_numbers_count_up_and_are_not_used_twice() -> None:
    state = published()
    put(state, "2.0")
    put(state, "3.0")
    targets = state.latest("channel-stable").signed.targets
    assert targets[target("3.0")].custom["sequence"] == 3
    with pytest.raises(UsageError, match="sequence number 3 already"):
        put(state, "4.0", sequence=3)


def test_one_version_never_gets_another_content() -> None:
    state = published()
    with pytest.raises(UsageError, match="with another content"):
        put(state, "1.0", sequence=1, sha256="ef" * 32)
    put(state, "1.0", sequence=1)


def test_a_release_that_is_added_again_stays_as_new_as_it_was_and_keeps_its_signatures() -> None:
    state = published()
    put(state, "2.0")
    releases.allow_rollback(state, target("1.0"), None, now())
    sign_all(state)
    assert put(state, "1.0") == target("1.0")
    custom = state.latest("channel-stable").signed.targets[target("1.0")].custom
    assert (custom["sequence"], custom["rollback_from"]) == (1, 2)
    assert state.standing("channel-stable").complete
    assert "BECOMES" not in words(state, "channel-stable")


def test_an_older_release_becomes_newer_only_by_a_number_and_in_plain_words() -> None:
    state = published()
    put(state, "2.0")
    releases.allow_rollback(state, target("1.0"), None, now())
    put(state, "1.0", sequence=3)
    custom = state.latest("channel-stable").signed.targets[target("1.0")].custom
    assert "rollback_from" not in custom  # there is nothing newer to come back from
    text = words(state, "channel-stable")
    assert f"{target('1.0')} BECOMES NEWER, compared with {target('2.0')}: devices take it" in text
    assert "sequence number: 3 instead of 1" in text


def test_a_withdrawn_release_does_not_hand_its_number_on() -> None:
    state = published()
    put(state, "2.0")
    releases.remove_release(state, target("2.0"), now())
    assert "not given again: up to app 2" in words(state, "channel-stable")
    put(state, "3.0")
    assert state.latest("channel-stable").signed.targets[target("3.0")].custom["sequence"] == 3


def test_a_withdrawn_release_meets_no_prerequisite() -> None:
    state = published()
    releases.remove_release(state, target("1.0"), now())
    custom = release_custom(product="tool", prerequisites=["app>=1"])
    path = TargetPath("stable/tool/1.0/f")
    with pytest.raises(UsageError, match="there is no app in the channel"):
        releases.put_release(state, path, custom, length=1, sha256="cd" * 32, now=now())


def test_a_channel_that_comes_back_does_not_hand_numbers_on() -> None:
    state = published()
    changes.remove_channel(state, STABLE, now())
    changes.add_channel(state, STABLE, keys("dev"), now())
    put(state, "3.0")
    assert state.latest("channel-stable").signed.targets[target("3.0")].custom["sequence"] == 2


def test_a_release_is_found_by_its_product_and_version() -> None:
    state = published()
    assert releases.find_release(state, "app@1.0") == target("1.0")
    assert releases.find_release(state, target("1.0")) == target("1.0")
    with pytest.raises(UsageError, match=r"did you mean app@1\.0"):
        releases.find_release(state, "ap@1.0")


def test_two_releases_of_one_name_are_told_apart_by_their_paths() -> None:
    state = published()
    twin = TargetPath("stable/app/1.0/app-arm.bin")
    custom = release_custom(platform="linux-aarch64")
    releases.put_release(state, twin, custom, length=10, sha256="aa" * 32, now=now())
    with pytest.raises(UsageError, match=r"several releases are called app@1\.0.*app-arm"):
        releases.find_release(state, "app@1.0")


def test_a_release_for_a_channel_that_is_not_there_says_which_are() -> None:
    state = published()
    custom = release_custom(version="1")
    with pytest.raises(UsageError, match="there are: stable"):
        releases.put_release(state, TargetPath("beta/app/1/f"), custom, length=1, sha256="cd" * 32, now=now())


def test_a_withdrawn_release_is_gone_and_an_unknown_one_is_told() -> None:
    state = published()
    releases.remove_release(state, target("1.0"), now())
    assert not state.latest("channel-stable").signed.targets
    with pytest.raises(UsageError, match="no release is called"):
        releases.remove_release(state, target("9.9"), now())


def test_a_rollback_is_permitted_up_to_the_newest_sequence() -> None:
    state = published()
    put(state, "2.0")
    assert releases.allow_rollback(state, target("1.0"), None, now()) == 2
    assert state.latest("channel-stable").signed.targets[target("1.0")].custom["rollback_from"] == 2
    with pytest.raises(UsageError, match="nothing newer"):
        releases.allow_rollback(state, target("2.0"), None, now())
    assert releases.allow_rollback(state, target("2.0"), 7, now()) == 7


def test_a_grant_replaces_the_one_before_and_can_be_withdrawn() -> None:
    state = published()
    changes.put_grant(state, grant(), now())
    changes.put_grant(state, grant(scope="/apac"), now())
    targets = state.latest("points").signed.targets
    assert [file.custom["scope"] for file in targets.values()] == ["/apac"]
    changes.remove_grant(state, NODE, now())
    with pytest.raises(UsageError, match="has no grant"):
        changes.remove_grant(state, NODE, now())


@pytest.mark.parametrize(
    "fields", [{"duties": ()}, {"addresses": ("x",)}, {"expires": 1_000}, {"scope": "x"}]
)
def test_a_grant_that_nobody_would_believe_is_not_written(fields: dict[str, object]) -> None:
    state = published()
    with pytest.raises(UsageError):
        changes.put_grant(state, grant(**fields), now())
    assert not state.drafts


# Channels and keys -------------------------------------------------------------------------------


def test_a_channel_needs_the_signature_of_targets_and_of_its_own_keys() -> None:
    state = published()
    changes.add_channel(state, ChannelName("beta"), keys("dev"), now())
    assert set(state.drafts) == {"targets", "channel-beta"}


@pytest.mark.parametrize("name", ["root", "points", "timestamp", "stable"])
def test_a_channel_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        changes.add_channel(published(), ChannelName(name), keys("dev"), now())


def test_a_removed_channel_takes_its_keys_along_and_comes_back_with_a_higher_version() -> None:
    state = published()
    changes.remove_channel(state, STABLE, now())
    assert state.targets.delegations is not None
    assert signer("dev").public_key.keyid not in state.targets.delegations.keys
    sign_all(state)
    files = {**state.published_files, **state.draft_files()}
    later = SigningState(state.fleet, state.lives, files)
    changes.add_channel(later, STABLE, keys("dev"), now())
    assert later.standing("channel-stable").draft == 2
    assert not later.latest("channel-stable").signed.targets


def test_replacing_a_root_key_needs_the_old_keys_and_the_new_ones() -> None:
    state = published()
    changes.change_keys(
        state, "root", add=[signer("dave").public_key], remove=["alice", "bob"], threshold=2, now=now()
    )
    old, new = state.standing("root").demands
    assert (old.threshold, new.threshold) == (2, 2)
    assert any(name.startswith("dave") for name in new.unsigned)
    state.sign("root", signer("carol"))
    state.sign("root", signer("dave"))
    assert not state.standing("root").complete  # the new keys are content, one of the old is missing
    assert signer("carol").public_key.keyid not in state.wanted_keys("root")
    state.sign("root", signer("alice"))
    assert state.standing("root").complete


def test_a_channel_whose_key_is_replaced_must_be_signed_again() -> None:
    state = published()
    opened = changes.change_keys(
        state, "channel-stable", add=[signer("new").public_key], remove=["dev"], now=now()
    )
    assert opened == ["channel-stable"]
    assert set(state.drafts) == {"targets", "channel-stable"}
    wanted = state.wanted_keys("channel-stable")
    assert set(wanted) == {signer("new").public_key.keyid, signer("rel").public_key.keyid}


def test_a_further_key_alone_needs_no_new_signature_of_the_channel() -> None:
    state = published()
    assert changes.change_keys(state, "channel-stable", add=[signer("new").public_key], now=now()) == []
    assert set(state.drafts) == {"targets"}


def test_a_new_targets_key_reaches_down_to_targets_only() -> None:
    state = published()
    opened = changes.change_keys(
        state, "targets", add=[signer("lead2").public_key], remove=["lead"], now=now()
    )
    assert opened == ["targets"]
    assert set(state.drafts) == {"root", "targets"}


def test_removing_too_many_keys_changes_nothing() -> None:
    state = published()
    with pytest.raises(UsageError, match="from 1 to 1"):
        changes.change_keys(state, "channel-stable", remove=["dev"], now=now())
    assert not state.drafts
    with pytest.raises(UsageError, match="no key is called 'nobody'"):
        changes.change_keys(state, "root", remove=["nobody"], now=now())
    with pytest.raises(UsageError, match="nothing would change"):
        changes.change_keys(state, "root", now=now())


def test_a_lost_online_key_is_replaced_by_a_new_root() -> None:
    state = published()
    changes.change_keys(state, "online", add=[signer("online2").public_key], remove=["online"], now=now())
    assert set(state.drafts) == {"root"}
    for role in ("snapshot", "timestamp"):
        assert state.root.roles[role].keyids == [signer("online2").public_key.keyid]


def test_a_key_is_found_in_every_role_that_it_signs() -> None:
    state = published()
    changes.change_keys(state, "points", add=[signer("dev").public_key], now=now())
    assert changes.roles_of_key(state, "dev") == ["points", "channel-stable"]
    assert changes.roles_of_key(state, signer("online").public_key.keyid) == ["online"]
    with pytest.raises(UsageError, match="no key called"):
        changes.roles_of_key(state, "nobody")


def test_a_renewed_role_changes_in_version_and_expiry_only() -> None:
    state = published()
    changes.renew(state, "targets", now() + timedelta(days=80))
    lines = differences(state, "targets")
    assert len(lines) == 2
    assert "version 1 becomes 2" in lines[0]
    assert "valid until" in lines[1]


def test_a_discarded_draft_is_as_if_it_had_never_been() -> None:
    state = published()
    put(state, "2.0")
    state.discard("channel-stable")
    assert not state.drafts
    with pytest.raises(UsageError, match="no draft"):
        state.discard("channel-stable")
    with pytest.raises(UsageError, match="never published"):
        founded().discard("root")


# In words ----------------------------------------------------------------------------------------


def test_a_first_root_says_who_may_sign_what() -> None:
    text = words(founded(), "root")
    assert "the trust root: 2 of 3 must sign" in text
    assert f"alice ({signer('alice').public_key.keyid[:8]}) may sign" in text
    assert signer("alice").public_key.keyval["public"] in text


def test_an_added_and_a_withdrawn_release_are_said_with_hash_and_recipe() -> None:
    state = published()
    put(state, "2.0", sha256="ef" * 32)
    releases.remove_release(state, target("1.0"), now())
    text = words(state, "channel-stable")
    assert f"the release {target('1.0')} is withdrawn" in text
    assert f"the release {target('2.0')} is added: 10 bytes, SHA-256 {'ef' * 32}" in text
    assert "installation: the file /etc/motd with the mode 0644, within 60 s" in text


def test_a_rollback_permission_stands_out() -> None:
    state = published()
    put(state, "2.0")
    releases.allow_rollback(state, target("1.0"), None, now())
    expected = f"devices MAY GO BACK to {target('1.0')} (sequence 1) from any sequence up to 2"
    assert expected in words(state, "channel-stable")


def test_a_changed_recipe_and_a_changed_content_are_said() -> None:
    state = published()
    signed = state.open("channel-stable", now())
    file = signed.targets[target("1.0")]
    file.unrecognized_fields["custom"] = {**file.custom, "recipe": {"kind": "file", "path": "/etc/passwd"}}
    file.hashes = {"sha256": "ff" * 32}
    text = words(state, "channel-stable")
    assert "the file /etc/passwd with the mode 0644, within 60 s instead of the file /etc/motd" in text
    assert f"THE CONTENT of {target('1.0')} changes" in text


def test_what_has_no_words_of_its_own_is_shown_as_it_stands() -> None:
    state = published()
    signed = state.open("channel-stable", now())
    signed.unrecognized_fields["x-surprise"] = {"a": 1}
    signed.targets[target("1.0")].unrecognized_fields["y-surprise"] = 2
    text = words(state, "channel-stable")
    assert "x-surprise is {'a': 1}" in text
    assert "y-surprise is 2" in text


def test_keys_thresholds_and_channels_are_said() -> None:
    state = published()
    changes.change_keys(
        state, "channel-stable", add=[signer("new").public_key], remove=["dev"], threshold=1, now=now()
    )
    changes.add_channel(state, ChannelName("beta"), keys("dev"), now())
    text = words(state, "targets")
    assert "the channel 'stable': dev " in text and "loses the right to sign" in text
    assert "the channel 'stable': 1 of 2 must sign instead of 2" in text
    assert "the channel 'beta' is added, for the paths beta/*/*/*" in text


def test_a_grant_is_said_in_full() -> None:
    state = published()
    changes.put_grant(state, grant(), now())
    text = words(state, "points")
    assert f"the seed grant points/{NODE}.grant is added" in text
    assert "scope: /emea" in text
    assert "duties: seed" in text
    assert "ends: 2033-05-18 03:33 UTC" in text
    assert "disk: all that is free" in text


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            TreeRecipe(unpacked_bytes=4_200_000_000, entries=9, health_check=["bin/app", "a b"], keep=0),
            (
                "a tree of 9 entries, unpacked 4.2 GB (4200000000 bytes); no older version stays;"
                " healthy if this succeeds: bin/app 'a b', within 60 s"
            ),
        ),
        (
            DebRecipe(package="hello", version="1:2", architecture="amd64"),
            "the Debian package hello 1:2 for amd64, within 900 s",
        ),
        (
            CommandRecipe(
                arguments=["{artifact}", "-q"], expected_exit_codes=[0, 3], check=["test", "-e", "/x"]
            ),
            "it runs: '{artifact}' -q; done with exit code 0, 3; there already if this succeeds: test -e /x",
        ),
        (AgentRecipe(), "the version before comes back unless the new one reports, within 300 s"),
        (FileRecipe(path="/m", mode=0o600, reload=["kill", "-1"]), "mode 0600; afterwards it runs: kill -1"),
    ],
)
def test_an_installation_is_said_in_a_sentence(recipe: AnyRecipe, said: str) -> None:
    assert said in recipe_words(msgspec.to_builtins(recipe))


def test_a_field_of_an_installation_that_nobody_knows_is_shown() -> None:
    assert recipe_words({"kind": "file", "path": "/m", "x": 1}).endswith("; and {'x': 1}")
    assert recipe_words({"kind": "file"}) == "{'kind': 'file'}"


def test_a_target_that_is_no_release_is_shown_as_it_stands() -> None:
    state = published()
    old = state.published["channel-stable"].signed.targets
    new = state.open("channel-stable", now()).targets
    for sequence, targets in ((1, old), (2, new)):
        odd = copy.deepcopy(targets[target("1.0")])
        odd.unrecognized_fields["custom"] = {"product": ["app"], "sequence": sequence}
        targets["odd"] = odd
    text = words(state, "channel-stable")
    assert "the release odd changes" in text
    assert "BECOMES" not in text


def test_nothing_in_a_draft_steers_the_terminal_of_whoever_looks() -> None:
    state = published()
    file = state.open("channel-stable", now()).targets[target("1.0")]
    file.unrecognized_fields["custom"] = {**file.custom, "version": "1\x1b[2J\u202e"}
    text = words(state, "channel-stable")
    assert r"version: 1\x1b[2J\u202e" in text


def test_no_draft_has_no_differences() -> None:
    assert differences(published(), "root") == []


def test_lives_reach_the_drafts() -> None:
    state = SigningState(FleetName("acme"), Lives(targets_s=3_600), published().published_files)
    moment = now()
    changes.renew(state, "targets", moment)
    assert state.latest("targets").signed.expires <= moment + timedelta(hours=1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"root_s": 1}, Lives)
