"""Deployments, what devices say of them, content and refusals, on both databases."""

from __future__ import annotations

import msgspec
import pytest

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath, InfoHash
from p2pdist.store import content, deployments, devices, incidents
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.records import ArtifactRecord, Beside, DeploymentRecord, DeviceDeploymentRecord
from tests.store.conftest import (
    HASH,
    NOW,
    TARGET,
    add_group,
    content_report,
    enrol,
    node_of,
    progress,
    refusal,
    report,
)


def deploy(store: FleetStore, deployment_id: str = "d1", group: str = "/") -> DeploymentRecord:
    return store.write_now(deployments.add_deployment, deployment_id, TARGET, GroupPath(group), "test", NOW)


def only_state(store: FleetStore, deployment_id: str = "d1") -> DeviceDeploymentRecord:
    (state,) = store.read_now(deployments.deployment_devices, deployment_id)
    return state


def test_a_deployment_needs_a_group_and_gets_a_growing_number(store: FleetStore) -> None:
    add_group(store, "/a")
    first, second = deploy(store, "d1", "/"), deploy(store, "d2", "/a")
    assert second.number > first.number
    with pytest.raises(UsageError, match="no group"):
        deploy(store, "d3", "/missing")
    assert [order.id for order in store.read_now(deployments.active_orders)] == ["d2", "d1"]


def test_ordering_the_same_again_returns_the_order_that_stands(store: FleetStore) -> None:
    assert deploy(store, "d2") == deploy(store, "d1")


def test_an_older_order_given_again_becomes_the_newest(store: FleetStore) -> None:
    add_group(store, "/a")
    deploy(store, "d1", "/")
    deploy(store, "d2", "/a")
    assert deploy(store, "d3", "/").id == "d3"


def test_a_stopped_deployment_stays_stopped_and_can_be_ordered_afresh(store: FleetStore) -> None:
    deploy(store, "d1")
    assert store.write_now(deployments.stop_deployment, "d1", NOW + 5).stopped == NOW + 5
    assert store.write_now(deployments.stop_deployment, "d1", NOW + 9).stopped == NOW + 5
    assert store.read_now(deployments.active_orders) == []
    assert deploy(store, "d2").id == "d2"
    with pytest.raises(UsageError, match="no deployment"):
        store.write_now(deployments.stop_deployment, "d9", NOW)


def test_the_newest_progress_of_a_device_counts(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    batch = [(node_of(1), progress("d1", fraction=0.1)), (node_of(1), progress("d1", fraction=0.9))]
    store.write_now(deployments.record_progress, batch, NOW)
    store.write_now(deployments.record_progress, [(node_of(1), progress("d1", "verifying", 1.0))], NOW + 4)
    state = only_state(store)
    assert (state.stage, state.fraction, state.started, state.updated) == ("verifying", 1.0, NOW, NOW + 4)


def test_progress_that_arrives_after_the_report_changes_nothing(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    store.write_now(deployments.record_reports, [(node_of(1), report("d1"))], NOW)
    store.write_now(deployments.record_progress, [(node_of(1), progress("d1"))], NOW + 1)
    state = only_state(store)
    assert (state.stage, state.exit_code, state.seconds) == ("installed", 0, 12.5)
    assert state.output == b"\x00\xffraw output"


def test_a_report_that_is_repeated_or_older_changes_nothing_and_a_newer_one_counts(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    for stage, report_id, at in (
        ("failed", "r2", NOW + 2),
        ("installed", "r1", NOW + 1),
        ("failed", "r2", NOW + 2),
    ):
        said = report("d1", stage, report_id=report_id, at=at)
        store.write_now(deployments.record_reports, [(node_of(1), said)], NOW)
    assert only_state(store).report == "r2"
    newer = report("d1", "installed", report_id="r3", at=NOW + 3)
    store.write_now(deployments.record_reports, [(node_of(1), newer)], NOW)
    assert only_state(store).stage == "installed"


def test_another_try_is_asked_of_those_that_failed_or_refused_and_of_no_other(store: FleetStore) -> None:
    for number in (1, 2, 3, 4):
        enrol(store, number)
    add_group(store, "/a")
    deploy(store, "d1", "/")
    deploy(store, "d2", "/a")
    said = [(1, "failed"), (2, "refused"), (3, "installed")]
    batch = [(node_of(number), report("d1", stage)) for number, stage in said]
    store.write_now(deployments.record_reports, batch, NOW)
    store.write_now(deployments.record_progress, [(node_of(4), progress("d1"))], NOW)
    everybody = [node_of(number) for number in (1, 2, 3, 4, 5)]
    again = store.write_now(deployments.retry_deployment, "d1", everybody)
    assert sorted(again) == sorted([node_of(1), node_of(2)])
    orders = {order.id: order.retries for order in store.read_now(deployments.active_orders)}
    assert orders == {"d1": {node_of(1): 1, node_of(2): 1}, "d2": {}}


def test_a_try_is_asked_for_once_until_the_device_has_spoken_of_it(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    failed = report("d1", "failed", at=NOW)
    store.write_now(deployments.record_reports, [(node_of(1), failed)], NOW)
    for _ in range(2):
        store.write_now(deployments.retry_deployment, "d1", [node_of(1)])
        assert (only_state(store).retry, only_state(store).retry_wanted) == (0, 1)
    store.write_now(deployments.record_reports, [(node_of(1), failed)], NOW)  # repeated: it is of before
    assert (only_state(store).stage, only_state(store).retry) == ("failed", 0)
    going = msgspec.structs.replace(progress("d1"), retry=1)
    store.write_now(deployments.record_progress, [(node_of(1), going)], NOW)
    assert (only_state(store).stage, only_state(store).retry) == ("fetching", 1)
    store.write_now(deployments.record_reports, [(node_of(1), failed)], NOW)
    store.write_now(deployments.record_progress, [(node_of(1), progress("d1", "waiting"))], NOW)
    assert only_state(store).stage == "fetching"
    assert store.write_now(deployments.retry_deployment, "d1", [node_of(1)]) == []
    early = msgspec.structs.replace(report("d1", "failed", report_id="r2", at=NOW - 9), retry=1)
    store.write_now(deployments.record_reports, [(node_of(1), failed), (node_of(1), early)], NOW)
    assert (only_state(store).report, only_state(store).retry_wanted) == ("r2", 1), "its clock went back"
    store.write_now(deployments.retry_deployment, "d1", [node_of(1)])
    assert only_state(store).retry_wanted == 2


def test_a_stopped_or_unknown_deployment_is_not_tried_again(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    store.write_now(deployments.record_reports, [(node_of(1), report("d1", "failed"))], NOW)
    store.write_now(deployments.stop_deployment, "d1", NOW)
    with pytest.raises(UsageError, match="has been stopped"):
        store.write_now(deployments.retry_deployment, "d1", [node_of(1)])
    with pytest.raises(UsageError, match="no deployment"):
        store.write_now(deployments.retry_deployment, "d9", [node_of(1)])


def test_a_device_that_names_the_last_number_of_a_try_is_asked_for_no_other(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    last = msgspec.structs.replace(report("d1", "failed"), retry=limits.RETRIES_MAX)
    store.write_now(deployments.record_reports, [(node_of(1), last)], NOW)
    assert store.write_now(deployments.retry_deployment, "d1", [node_of(1)]) == []


def test_what_is_said_of_an_unknown_deployment_does_not_stop_the_batch(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    store.write_now(
        deployments.record_progress,
        [(node_of(1), progress("unknown")), (node_of(1), progress("a\0b")), (node_of(1), progress("d1"))],
        NOW,
    )
    store.write_now(
        deployments.record_reports, [(node_of(1), report("unknown")), (node_of(1), report("d1"))], NOW
    )
    assert only_state(store).stage == "installed"


def test_numbers_beyond_a_column_are_clamped(store: FleetStore) -> None:
    enrol(store, 1)
    deploy(store)
    huge = msgspec.structs.replace(report("d1"), exit_code=2**70, seconds=float("inf"), reason="a\0b")
    store.write_now(deployments.record_reports, [(node_of(1), huge)], NOW)
    state = only_state(store)
    assert (state.exit_code, state.seconds, state.reason) == (2**31 - 1, float(2**31), "a\ufffdb")


def test_stages_are_counted_by_deployment(store: FleetStore) -> None:
    for number in (1, 2, 3):
        enrol(store, number)
    deploy(store)
    batch = [(node_of(number), progress("d1")) for number in (1, 2)]
    store.write_now(deployments.record_progress, batch, NOW)
    store.write_now(deployments.record_reports, [(node_of(3), report("d1"))], NOW)
    assert store.read_now(deployments.stages_by_deployment) == {"d1": {"fetching": 2, "installed": 1}}


def test_only_devices_that_a_deployment_reaches_now_are_counted(store: FleetStore) -> None:
    for group in ("/emea", "/emea/berlin", "/emea2", "/e%a"):
        add_group(store, group)
    enrol(store, 1, "/emea")
    enrol(store, 2, "/emea/berlin")
    enrol(store, 3, "/emea2")
    enrol(store, 4, "/emea")
    deploy(store, "d1", group="/emea")
    batch = [(node_of(number), report("d1")) for number in (1, 2, 3, 4)]
    store.write_now(deployments.record_reports, batch, NOW)
    store.write_now(devices.revoke_device, node_of(4), "stolen", NOW)
    assert store.read_now(deployments.stages_by_deployment) == {"d1": {"installed": 2}}


def test_a_large_batch_is_stored_in_one_transaction(store: FleetStore) -> None:
    enrol(store, 1)
    for number in range(1_200):
        store.write_now(
            deployments.add_deployment, f"d{number}", TARGET, GroupPath("/"), "test", NOW
        ) if number < 3 else None
    batch = [(node_of(1), progress(f"d{number}", fraction=0.25)) for number in range(7_000)]
    store.write_now(deployments.record_progress, batch, NOW)
    assert len(store.read_now(deployments.device_history, node_of(1))) == 1


# Content -------------------------------------------------------------------------------------------


def test_the_newest_content_report_replaces_the_one_before(store: FleetStore) -> None:
    node = node_of(1)
    for received in (100, 250):
        store.write_now(content.record_content, [(node, "device", content_report(received))], NOW)
    found, sources = store.read_now(content.find_content, node, InfoHash(HASH))
    assert found is not None and [c.reason for c in found.candidates] == ["same site", "WAN"]
    assert {s.role: (s.received, s.sent) for s in sources} == {"point": (250, 0), "device": (7, 5)}


def test_bytes_are_summed_by_kind_of_source_and_of_receiver(store: FleetStore) -> None:
    store.write_now(
        content.record_content,
        [
            (node_of(1), "device", content_report(100)),
            (node_of(2), "device", content_report(50)),
            (node_of(201), "point", content_report(1_000)),
        ],
        NOW,
    )
    assert store.read_now(content.bytes_by_source, InfoHash(HASH)) == {
        "device": {"point": 150, "device": 14},
        "point": {"point": 1_000, "device": 7},
    }
    assert store.read_now(content.sources_by_target, TARGET)[node_of(2)] == {"point": 50, "device": 7}


def test_bytes_that_are_in_no_account_are_summed_beside_those_that_are(store: FleetStore) -> None:
    report = msgspec.structs.replace(content_report(), held=110, unattributed=3, wasted=1)
    store.write_now(
        content.record_content, [(node_of(1), "device", report), (node_of(2), "device", report)], NOW
    )
    assert store.read_now(content.bytes_beside) == {
        "device": Beside(held=220, unattributed=6, wasted=2),
    }


def artifact(**changes: object) -> ArtifactRecord:
    record = ArtifactRecord(
        info_hash=InfoHash(HASH), length=10**12, sha256="cd" * 32, modified_ns=NOW * 10**9,
        published=False, damage="", stored=NOW, sent_bytes=0,
    )  # fmt: skip
    return msgspec.structs.replace(record, **changes)


def test_an_artifact_is_stored_published_damaged_and_mended(store: FleetStore) -> None:
    store.write_now(content.put_artifact, artifact())
    store.write_now(content.add_sent_bytes, {InfoHash(HASH): 5_000_000_000, InfoHash("ff" * 32): 9})
    store.write_now(content.mark_published, [InfoHash(HASH)])
    store.write_now(content.mark_damaged, InfoHash(HASH), "piece 3 does not match")
    (found,) = store.read_now(content.list_artifacts).values()
    assert found == artifact(published=True, damage="piece 3 does not match", sent_bytes=5_000_000_000)
    store.write_now(content.put_artifact, artifact(published=True))
    assert store.read_now(content.list_artifacts)[InfoHash(HASH)].sent_bytes == 5_000_000_000
    store.write_now(content.mark_published, [])
    assert not store.read_now(content.list_artifacts)[InfoHash(HASH)].published


# Refusals ------------------------------------------------------------------------------------------


def test_a_refusal_is_stored_once_and_counted_when_it_happens_again(store: FleetStore) -> None:
    same = [(node_of(1), refusal(at=NOW)), (node_of(1), refusal(at=NOW)), (node_of(2), refusal(at=NOW))]
    store.write_now(incidents.record_refusals, same)
    store.write_now(incidents.record_refusals, [(node_of(1), refusal(at=NOW + 60))])
    found = {r.node: (r.times, r.at) for r in store.read_now(incidents.list_refusals, rows_max=10)}
    assert found == {node_of(1): (2, NOW + 60), node_of(2): (1, NOW)}


def test_the_oldest_refusals_make_room(store: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REFUSALS_KEPT_MAX", 3)
    for number in range(6):
        store.write_now(incidents.record_refusals, [(node_of(1), refusal(f"f{number}"))])
    found = [r.id for r in store.read_now(incidents.list_refusals, rows_max=10)]
    assert found == ["f5", "f4", "f3"]
