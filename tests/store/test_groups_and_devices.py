"""Groups, tokens and devices, on both databases."""

from __future__ import annotations

import pytest
import trio

from p2pdist import limits
from p2pdist.errors import TrustError, UsageError
from p2pdist.ids import GroupPath
from p2pdist.store import deployments, devices, groups, incidents, mailroom, tokens
from p2pdist.store.devices import CloneRefused
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ApiTokenRecord
from tests.store.conftest import (
    NOW,
    TARGET,
    add_group,
    add_token,
    enrol,
    heartbeat,
    node_of,
    public_of,
    token_record,
)

pytestmark = pytest.mark.slow  # a database for each


def paths(store: FleetStore) -> list[str]:
    return [group.path for group in store.read_now(groups.list_groups)]


# Groups --------------------------------------------------------------------------------------------


def test_making_a_group_makes_its_ancestors(store: FleetStore) -> None:
    made = store.write_now(groups.add_group, GroupPath("/emea/berlin/floor1"), NOW)
    assert made == ["/emea", "/emea/berlin", "/emea/berlin/floor1"]
    with pytest.raises(UsageError, match="there already"):
        store.write_now(groups.add_group, GroupPath("/emea"), NOW)


def test_groups_are_listed_as_a_tree_with_their_devices(store: FleetStore) -> None:
    add_group(store, "/b/x", "/a", "/b-2")
    enrol(store, 1, "/b/x")
    enrol(store, 2, "/b/x")
    found = {str(group.path): group.devices for group in store.read_now(groups.list_groups)}
    assert list(found) == ["/", "/a", "/b", "/b/x", "/b-2"]
    assert found["/b/x"] == 2 and found["/b"] == 0


def test_moving_a_group_takes_its_subgroups_devices_tokens_and_deployments_along(store: FleetStore) -> None:
    add_group(store, "/emea/berlin/floor1", "/emea-old", "/apac")
    enrol(store, 1, "/emea/berlin/floor1")
    add_token(store, "secret", token_record("/emea/berlin"))
    store.write_now(deployments.add_deployment, "d1", TARGET, GroupPath("/emea"), "test", NOW)
    moved = store.write_now(groups.move_group, GroupPath("/emea"), GroupPath("/apac/west"))
    assert moved == ["/apac/west", "/apac/west/berlin", "/apac/west/berlin/floor1"]
    assert paths(store) == ["/", "/apac", *moved, "/emea-old"]
    assert store.read_now(devices.require_device, node_of(1)).group_path == "/apac/west/berlin/floor1"
    assert store.read_now(tokens.list_enrolment_tokens)[0].group_path == "/apac/west/berlin"
    assert store.read_now(deployments.find_deployment, "d1").group_path == "/apac/west"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("/", "/x", "root"),
        ("/a", "/a/b/c", "into itself"),
        ("/a", "/a", "into itself"),
        ("/missing", "/x", "no group"),
        ("/a", "/missing/x", "no group"),
        ("/a", "/b", "there already"),
    ],
)
def test_a_move_that_makes_no_sense_changes_nothing(store: FleetStore, old: str, new: str, why: str) -> None:
    add_group(store, "/a/b", "/b")
    with pytest.raises(UsageError, match=why):
        store.write_now(groups.move_group, GroupPath(old), GroupPath(new))
    assert paths(store) == ["/", "/a", "/a/b", "/b"]


def test_a_move_that_would_make_a_path_too_long_is_refused(store: FleetStore) -> None:
    long = "/" + "/".join(["x" * 60] * 7)
    add_group(store, long, "/" + "y" * 60 + "/" + "z" * 60)
    with pytest.raises(UsageError, match="too long"):
        store.write_now(
            groups.move_group, GroupPath("/" + "x" * 60), GroupPath(f"/{'y' * 60}/{'z' * 60}/{'x' * 60}")
        )


def test_only_an_empty_group_can_be_removed(store: FleetStore) -> None:
    add_group(store, "/a/b", "/c")
    enrol(store, 1, "/c")
    for path, why in (("/", "root"), ("/a", "subgroups"), ("/c", "devices"), ("/d", "no group")):
        with pytest.raises(UsageError, match=why):
            store.write_now(groups.remove_group, GroupPath(path))
    store.write_now(groups.remove_group, GroupPath("/a/b"))
    assert paths(store) == ["/", "/a", "/c"]


# Tokens and enrolment ------------------------------------------------------------------------------


def test_a_token_is_found_by_its_secret_only_and_stored_as_a_hash(store: FleetStore) -> None:
    add_token(store, "the secret", token_record())
    assert store.read_now(tokens.check_enrolment_token, "the secret").id == "t1"
    with pytest.raises(TrustError, match="not one of this fleet"):
        store.read_now(tokens.check_enrolment_token, "t1")
    assert "the secret" not in tokens.hash_token("the secret")


async def test_of_many_who_use_a_one_use_token_at_once_exactly_one_succeeds(store: FleetStore) -> None:
    add_token(store, "secret", token_record())
    outcomes: list[str] = []

    async def attempt(number: int) -> None:
        try:
            device, _ = await store.write(
                devices.enrol_device,
                token="secret",
                node=node_of(number),
                public=public_of(number),
                name="x",
                platform="linux-x86_64",
                machine=str(number),
                now=NOW,
            )
            outcomes.append(device.node)
        except TrustError as error:
            outcomes.append(str(error))

    async with trio.open_nursery() as nursery:
        for number in range(1, 9):
            nursery.start_soon(attempt, number)
    refused = [outcome for outcome in outcomes if "has been used once" in outcome]
    assert len(outcomes) == 8 and len(refused) == 7
    assert len(store.read_now(devices.list_devices)) == 1


def test_of_two_servers_on_one_database_only_one_takes_the_last_use(url: str) -> None:
    first, second = FleetStore.open(url), FleetStore.open(url)
    add_token(first, "secret", token_record())
    first.write_now(tokens.use_enrolment_token, "secret", NOW)
    with pytest.raises(TrustError, match="used once"):
        second.write_now(tokens.use_enrolment_token, "secret", NOW)
    first.close()
    second.close()


def test_a_token_works_as_often_as_it_says_and_not_after_its_expiry(store: FleetStore) -> None:
    add_token(store, "secret", token_record(uses=2))
    with pytest.raises(TrustError, match="expired on 2023-11-14 at 23:13 UTC"):
        store.write_now(tokens.use_enrolment_token, "secret", NOW + 3600)
    for _ in range(2):
        store.write_now(tokens.use_enrolment_token, "secret", NOW + 3599)
    with pytest.raises(TrustError, match="used 2 times"):
        store.write_now(tokens.use_enrolment_token, "secret", NOW)


def test_a_withdrawn_token_is_unknown(store: FleetStore) -> None:
    add_token(store, "secret", token_record())
    store.write_now(tokens.remove_enrolment_token, "t1")
    with pytest.raises(TrustError, match="withdrawn"):
        store.write_now(tokens.use_enrolment_token, "secret", NOW)
    with pytest.raises(UsageError):
        store.write_now(tokens.remove_enrolment_token, "t1")


def test_the_same_machine_enrols_again_as_the_same_device_where_it_stood(store: FleetStore) -> None:
    add_group(store, "/a", "/b")
    enrol(store, 1, "/a", machine="m")
    add_token(store, "second", token_record("/b", token_id="t2"))
    again = enrol(store, 1, machine="m", token="second")
    assert again.group_path == "/a"
    assert len(store.read_now(devices.list_devices)) == 1


def test_another_machine_with_the_same_key_is_refused_and_its_token_stays_unused(store: FleetStore) -> None:
    enrol(store, 1, machine="original")
    add_token(store, "for the clone", token_record(token_id="t9"))
    with pytest.raises(CloneRefused, match="cloned"):
        enrol(store, 1, machine="copy", token="for the clone")
    assert store.read_now(tokens.check_enrolment_token, "for the clone").uses_left == 1
    for _ in range(limits.CLONE_SIGHTINGS_MAX + 3):
        store.write_now(devices.note_clone, node_of(1), "10.0.0.9", "another machine", NOW)
    assert store.read_now(devices.require_device, node_of(1)).clones == limits.CLONE_SIGHTINGS_MAX + 3
    assert len(store.read_now(devices.list_clones, node_of(1))) == limits.CLONE_SIGHTINGS_MAX


def test_a_revoked_device_cannot_enrol_again(store: FleetStore) -> None:
    enrol(store, 1)
    store.write_now(devices.revoke_device, node_of(1), "stolen", NOW)
    with pytest.raises(TrustError, match="revoked: stolen"):
        enrol(store, 1, machine="machine-1")
    second = store.write_now(devices.revoke_device, node_of(1), "another reason", NOW + 9)
    assert (second.revoked, second.revoked_reason) == (NOW, "stolen")


def test_an_api_token_works_until_it_expires_or_is_withdrawn(store: FleetStore) -> None:
    record = ApiTokenRecord(id="a1", name="ops", role="operator", expires=NOW + 10, created=NOW)
    store.write_now(tokens.add_api_token, "key", record)
    assert store.read_now(tokens.find_api_token, "key", NOW) == record
    assert store.read_now(tokens.find_api_token, "key", NOW + 10) is None
    assert store.read_now(tokens.find_api_token, "Key", NOW) is None
    store.write_now(tokens.remove_api_token, "a1")
    assert store.read_now(tokens.list_api_tokens) == []


# Devices -------------------------------------------------------------------------------------------


def test_a_device_is_found_by_id_name_or_the_beginning_of_its_id(store: FleetStore) -> None:
    enrol(store, 1)
    enrol(store, 2)
    for text in (node_of(1), "device-1", node_of(1)[:8]):
        assert store.read_now(devices.resolve_device, text).node == node_of(1)
    for text in ("device-9", "", "%", "_" * 4, node_of(1)[:3], "a\0b"):
        with pytest.raises(UsageError, match="no device"):
            store.read_now(devices.resolve_device, text)


def test_a_name_that_two_devices_have_is_not_guessed(store: FleetStore) -> None:
    enrol(store, 1)
    enrol(store, 2)
    store.write_now(devices.record_heartbeats, [(node_of(n), heartbeat(), "") for n in (1, 2)], NOW)
    with pytest.raises(UsageError, match="several devices"):
        store.read_now(devices.resolve_device, "renamed")


def test_listing_a_group_includes_its_subgroups_but_not_its_namesakes(store: FleetStore) -> None:
    add_group(store, "/a/b", "/a-b", "/a_b")
    for number, group in enumerate(("/a", "/a/b", "/a-b", "/a_b"), start=1):
        enrol(store, number, group)
    found = store.read_now(devices.list_devices, group=GroupPath("/a"))
    assert [device.node for device in found] == [node_of(1), node_of(2)]
    assert len(store.read_now(devices.list_devices)) == 4


def test_a_heartbeat_says_what_a_device_is(store: FleetStore) -> None:
    enrol(store, 1)
    store.write_now(devices.record_heartbeats, [(node_of(1), heartbeat(5), node_of(9))], NOW + 7)
    device = store.read_now(devices.require_device, node_of(1))
    assert (device.name, device.platform, device.via) == ("renamed", "linux-aarch64", node_of(9))
    assert (device.revision_known, device.last_seen) == (5, NOW + 7)
    assert device.installed == {"stable/app": 3} and device.metadata_versions == {"root": 1, "timestamp": 7}
    assert store.read_now(devices.count_devices, seen_since=NOW) == (1, 1, 0)


def test_text_that_a_database_cannot_hold_does_not_stop_the_batch(store: FleetStore) -> None:
    enrol(store, 1)
    store.write_now(devices.record_heartbeats, [(node_of(1), heartbeat(name="a\0b"), "")], NOW)
    assert store.read_now(devices.require_device, node_of(1)).name == "a\ufffdb"


def test_a_device_moves_between_groups_that_exist(store: FleetStore) -> None:
    add_group(store, "/a")
    enrol(store, 1)
    assert store.write_now(devices.move_device, node_of(1), GroupPath("/a")).group_path == "/a"
    with pytest.raises(UsageError, match="no group"):
        store.write_now(devices.move_device, node_of(1), GroupPath("/b"))
    with pytest.raises(UsageError, match="no device"):
        store.write_now(devices.move_device, node_of(2), GroupPath("/a"))


def test_a_certificate_is_remembered_until_it_is_history(store: FleetStore) -> None:
    enrol(store, 1)
    later = NOW + 100 + limits.CERTIFICATES_KEPT_S
    for serial, issued in (("1", NOW), ("2", later)):
        store.write_now(
            devices.record_certificate, serial=serial, node=node_of(1), issued=issued, expires=issued + 50
        )
    assert store.read_now(devices.require_device, node_of(1)).certificate_expires == later + 50


# Envelopes, audit ----------------------------------------------------------------------------------


async def test_an_envelope_counter_is_never_handed_out_twice(url: str) -> None:
    store = FleetStore.open(url)
    blocks: list[range] = []

    async def reserve() -> None:
        blocks.append(await store.write(mailroom.reserve_counters, 100))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(reserve)
    store.close()
    again = FleetStore.open(url)
    blocks.append(await again.write(mailroom.reserve_counters, 100))
    again.close()
    numbers = [number for block in blocks for number in block]
    assert sorted(numbers) == list(range(1, 1101))


def test_replay_windows_are_kept_and_replaced(store: FleetStore) -> None:
    enrol(store, 1)
    store.write_now(mailroom.save_windows, {node_of(1): b"old\0"})
    store.write_now(mailroom.save_windows, {node_of(1): b"new\0"})
    assert store.read_now(mailroom.load_windows, [node_of(1), node_of(2)]) == {node_of(1): b"new\0"}


def test_the_audit_log_lists_the_newest_first(store: FleetStore) -> None:
    for action in ("group.add", "device.revoke"):
        store.write_now(incidents.add_audit, at=NOW, actor="ops", action=action, subject="x", detail="a\0b")
    newest = store.read_now(incidents.list_audit, rows_max=1)
    assert [entry.action for entry in newest] == ["device.revoke"]
