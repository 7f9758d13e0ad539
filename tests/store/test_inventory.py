"""What discovery has seen, in both databases."""

from __future__ import annotations

import random
from typing import Any

import pytest
import sqlalchemy as sa

from p2pdist import limits
from p2pdist.core.inventory import FoundDevice
from p2pdist.core.placement import PlacementRule
from p2pdist.errors import UsageError
from p2pdist.ids import GroupPath
from p2pdist.store import devices, groups, inventory, placement
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.tables import sightings
from p2pdist.wire.discovery import Method, Sighting
from tests.store.conftest import NOW, add_group, enrol, heartbeat, node_of

pytestmark = pytest.mark.slow  # a database for each

MAC = "00:1b:21:00:00:07"
OTHER_MAC = "00:1b:21:00:00:08"
GUID = "00000000-0000-4000-8000-000000000007"


def record(store: FleetStore, *seen: Sighting, network: str = "berlin", now: int = NOW) -> list[str]:
    return store.write_now(inventory.record_sightings, seen, network=network, now=now)


def saw(method: Method = "neighbours", **fields: Any) -> Sighting:
    return Sighting(method=method, **fields)


def found(store: FleetStore) -> list[FoundDevice]:
    return store.read_now(inventory.list_found)


def test_what_was_seen_in_several_polls_is_one_device_with_the_history_of_its_addresses(
    store: FleetStore,
) -> None:
    (first,) = record(store, saw(macs=[MAC], addresses=["10.1.0.7"]))
    (second,) = record(
        store,
        saw(macs=[MAC], addresses=["10.1.0.9"]),
        saw("netbios", names=["PC7"], addresses=["10.1.0.9"]),
        now=NOW + 86_400,
    )
    (device,) = found(store)
    assert first == second == device.id
    assert [(a.address, a.first, a.last) for a in device.addresses] == [
        ("10.1.0.9", NOW + 86_400, NOW + 86_400),
        ("10.1.0.7", NOW, NOW),
    ]
    assert device.names == ("PC7",)


def test_the_same_seen_again_only_moves_its_time(store: FleetStore) -> None:
    record(store, saw(macs=[MAC], addresses=["10.1.0.7"]))
    record(store, saw(macs=[MAC], addresses=["10.1.0.7"]), now=NOW + 600)
    (device,) = found(store)
    assert (device.first, device.last) == (NOW, NOW + 600)


def test_two_nodes_with_one_mac_are_taken_apart_when_the_second_one_comes(store: FleetStore) -> None:
    point = enrol(store, 9).node
    nodes = [enrol(store, number).node for number in (1, 2)]
    beats = [(node, heartbeat(name=f"desk-{number}"), point) for number, node in enumerate(nodes, start=1)]
    store.write_now(devices.record_heartbeats, beats, NOW)

    def poll(number: int, now: int) -> None:
        at = [f"10.1.0.{number}"]
        seen = saw(macs=[MAC], addresses=at), saw("mdns", names=[f"desk-{number}.local"], addresses=at)
        record(store, *seen, network=point, now=now)

    poll(1, NOW)
    (before,) = found(store)
    assert (before.node, before.macs) == (nodes[0], (MAC,))
    poll(2, NOW + 60)
    after = {device.node: device for device in found(store)}
    assert set(after) == set(nodes) and after[nodes[0]].id == before.id
    ((conflict, contenders),) = store.read_now(inventory.list_conflicts)
    assert (conflict.kind, conflict.value, conflict.since) == ("mac", MAC, NOW + 60)
    assert {device.node for device in contenders} == set(nodes)


def test_a_point_that_claims_to_have_seen_an_enrolled_node_is_not_believed(store: FleetStore) -> None:
    assert record(store, saw("managed", node=node_of(1), names=["pc7"])) == []
    assert found(store) == []


def test_a_device_that_has_come_through_a_point_is_believed_to_be_where_the_point_has_reached_it(
    store: FleetStore,
) -> None:
    node, point = enrol(store, 1).node, enrol(store, 9).node
    record(store, saw(macs=[MAC], addresses=["10.1.0.7"]), network=point)
    reached = saw("managed", node=node, addresses=["10.1.0.7"], names=["not-its-name"])
    store.write_now(devices.record_heartbeats, [(node, heartbeat(name="PC7"), node_of(8))], NOW)
    record(store, reached, network=point)
    assert [device.node for device in found(store)] == [""], "another point carries it"
    store.write_now(devices.record_heartbeats, [(node, heartbeat(name="PC7"), point)], NOW)
    record(store, reached, network=point)
    (device,) = found(store)
    assert (device.node, device.macs, device.names) == (node, (MAC,), ())


def test_a_conflict_is_shown_since_it_began_and_until_one_side_is_forgotten(store: FleetStore) -> None:
    two = (saw("directory", names=["pc7"], guid=GUID), saw("directory", names=["pc7"], guid=GUID[:-1] + "8"))
    record(store, *two)
    record(store, *two, now=NOW + 600)
    ((conflict, contenders),) = store.read_now(inventory.list_conflicts)
    assert (conflict.kind, conflict.value, conflict.since) == ("name", "pc7", NOW)
    store.write_now(inventory.forget_found, contenders[0].id)
    assert store.read_now(inventory.list_conflicts) == []
    assert [device.id for device in found(store)] == [contenders[1].id]


def test_an_address_that_another_device_has_now_does_not_make_them_one(store: FleetStore) -> None:
    port = saw("connect", addresses=["10.1.0.7"], services=["tcp/22"])
    record(store, saw(macs=[MAC], addresses=["10.1.0.7"]), port)
    record(store, saw(macs=[OTHER_MAC], addresses=["10.1.0.7"]), port, now=NOW + 86_400)
    by_mac = {device.macs: device for device in found(store)}
    assert set(by_mac) == {(MAC,), (OTHER_MAC,)}
    assert by_mac[(OTHER_MAC,)].services == ("tcp/22",)
    assert store.read_now(inventory.list_conflicts) == []


def test_an_enrolled_device_that_a_poll_of_its_point_names_is_managed(store: FleetStore) -> None:
    node, point = enrol(store, 1).node, enrol(store, 9).node
    store.write_now(devices.record_heartbeats, [(node, heartbeat(name="PC7"), point)], NOW)
    record(store, saw("mdns", names=["pc7.local"], addresses=["10.1.0.7"]), network=point)
    record(store, saw("mdns", names=["pc7.local"], addresses=["10.1.0.7"]), network=node_of(8))
    here, elsewhere = sorted(found(store), key=lambda device: device.node, reverse=True)
    assert (here.node, here.networks) == (node, (point,))
    assert (elsewhere.node, elsewhere.networks) == ("", (node_of(8),))


def test_a_device_that_is_linked_to_the_server_itself_stands_in_the_servers_network(
    store: FleetStore,
) -> None:
    node = enrol(store, 1).node
    record(store, saw("reverse", names=["device-1.corp.example"], addresses=["10.1.0.7"]),
           network=node_of(200))  # fmt: skip
    (device,) = found(store)
    assert device.node == node and device.addresses[0].address == "10.1.0.7"


def test_the_order_in_which_sightings_come_does_not_matter(store: FleetStore) -> None:
    seen = [
        saw(macs=[MAC], addresses=["10.1.0.7"]),
        saw("mdns", names=["a.local"], addresses=["10.1.0.7"]),
        saw("netbios", names=["A"], addresses=["10.1.0.7"]),
        saw("directory", names=["a.corp.example"], guid=GUID, unit="OU=Berlin,DC=corp"),
        saw(macs=[OTHER_MAC], addresses=["10.1.0.8"]),
        saw("mdns", names=["b.local"], addresses=["10.1.0.8"]),
        saw("reverse", names=["b.corp.example"], addresses=["10.1.0.8"]),
    ]
    outcomes = set()
    for seed in range(6):
        order = list(seen)
        random.Random(seed).shuffle(order)
        for sighting in order:
            record(store, sighting)
        outcomes.add(frozenset((device.macs, device.names, device.guid) for device in found(store)))
        for device in found(store):
            store.write_now(inventory.forget_found, device.id)
    assert len(outcomes) == 1


def test_what_was_not_seen_for_a_long_time_is_forgotten(store: FleetStore) -> None:
    record(store, saw(macs=[MAC], addresses=["10.1.0.7"]))
    record(store, saw(macs=[OTHER_MAC]), now=NOW + limits.SIGHTING_LIFE_S + 1)
    assert [device.macs for device in found(store)] == [(OTHER_MAC,)]


def test_of_too_much_the_oldest_is_forgotten(store: FleetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SIGHTINGS_KEPT_MAX", 3)
    for number in range(5):
        record(store, saw("mdns", names=[f"host-{number}"]), now=NOW + number)
    assert {device.name for device in found(store)} == {"host-2", "host-3", "host-4"}


def test_devices_are_listed_in_parts_and_by_network(store: FleetStore) -> None:
    for number in range(5):
        record(store, saw("mdns", names=[f"host-{number}"]), network="berlin" if number else "paris")
    whole = found(store)
    first = store.read_now(inventory.list_found, limit=2)
    rest = store.read_now(inventory.list_found, after=first[-1].id)
    assert [*first, *rest] == whole
    assert [d.name for d in store.read_now(inventory.list_found, network="paris")] == ["host-0"]


def test_a_device_is_found_by_the_beginning_of_its_id(store: FleetStore) -> None:
    (device,) = record(store, saw(macs=[MAC]))
    assert store.read_now(inventory.find_found, device[:6]).id == device
    for nobody in ("", "zz", "%"):
        with pytest.raises(UsageError, match="inventory list"):
            store.read_now(inventory.find_found, nobody)


def test_a_large_poll_is_taken_in_within_a_second_or_two(store: FleetStore) -> None:
    """Not a measurement: what hangs together must not be looked at anew for each address."""
    for start in range(0, 1_024, 128):
        record(
            store,
            *(
                saw(
                    macs=[f"00:1b:21:00:{n // 256:02x}:{n % 256:02x}"],
                    addresses=[f"10.1.{n // 256}.{n % 256}"],
                )
                for n in range(start, start + 128)
            ),
        )
    assert len(found(store)) == 1_000  # an answer's rows
    count = store.read_now(
        lambda c: c.execute(sa.select(sa.func.count()).select_from(sightings)).scalar_one()
    )
    assert count == 1_024


# Rules -----------------------------------------------------------------------------------------------


def rule(pattern: str, group: str = "/emea") -> PlacementRule:
    return PlacementRule(kind="name", pattern=pattern, group=GroupPath(group))


def add(store: FleetStore, made: PlacementRule) -> int:
    return store.write_now(placement.add_rule, made, now=NOW, created_by="test")


def test_rules_keep_their_order_and_follow_their_group(store: FleetStore) -> None:
    add_group(store, "/emea")
    numbers = [add(store, rule("b*")), add(store, rule("a*"))]
    store.write_now(groups.move_group, GroupPath("/emea"), GroupPath("/europe"))
    rules = store.read_now(placement.list_rules)
    assert [(each.number, each.pattern) for each in rules] == list(zip(numbers, ("b*", "a*"), strict=True))
    assert {each.rule.group for each in rules} == {"/europe"}
    with pytest.raises(UsageError, match="placement rules"):
        store.write_now(groups.remove_group, GroupPath("/europe"))
    store.write_now(placement.remove_rule, numbers[0])
    assert [each.pattern for each in store.read_now(placement.list_rules)] == ["a*"]


def test_a_rule_into_no_group_or_that_is_not_there_is_refused(store: FleetStore) -> None:
    with pytest.raises(UsageError, match="no group"):
        add(store, rule("a*", "/nowhere"))
    with pytest.raises(UsageError, match="rule list"):
        store.write_now(placement.remove_rule, 7)
