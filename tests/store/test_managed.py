"""Enrolled devices in the inventory: recognised by the cards that they tell of."""

from __future__ import annotations

from typing import Any

import pytest

from p2pdist.core.inventory import FoundDevice
from p2pdist.ids import NodeId
from p2pdist.store import devices, inventory
from p2pdist.store.fleetstore import FleetStore
from p2pdist.wire.discovery import Interface, Sighting
from tests.store.conftest import NOW, enrol, heartbeat, node_of

pytestmark = pytest.mark.slow  # a database for each

MAC, SECOND, CHOSEN = "00:1b:21:00:00:07", "00:1b:21:00:00:08", "02:42:ac:11:00:02"


def enrol_at(store: FleetStore, number: int, point: NodeId | str = "") -> NodeId:
    node = enrol(store, number).node
    beat = heartbeat(name=f"device-{number}")
    store.write_now(devices.record_heartbeats, [(node, beat, str(point))], NOW)
    return node


def told(store: FleetStore, node: NodeId, *, now: int = NOW, **cards: list[str]) -> list[NodeId]:
    interfaces = [Interface(mac=globals()[name], addresses=addresses) for name, addresses in cards.items()]
    changed = store.write_now(devices.record_interfaces, [(node, interfaces)])
    store.write_now(inventory.refresh_managed, changed, now)
    return changed


def poll(store: FleetStore, network: str, *, now: int = NOW, mac: str = MAC, at: str = "10.1.0.7") -> None:
    seen: list[Any] = [Sighting(method="neighbours", macs=[mac], addresses=[at])]
    store.write_now(inventory.record_sightings, seen, network=network, now=now)


def found(store: FleetStore) -> list[FoundDevice]:
    return store.read_now(inventory.list_found)


def test_a_device_whose_card_a_poll_sees_is_the_enrolled_one_without_any_name(store: FleetStore) -> None:
    point = enrol_at(store, 9)
    node = enrol_at(store, 1, point)
    told(store, node, MAC=["10.1.0.7", "fd00::7"], SECOND=["10.2.0.7"])
    assert found(store) == [], "nobody has discovered it"
    poll(store, point)
    (device,) = found(store)
    assert (device.node, device.name, device.known_by) == (node, "device-1", "node")
    assert set(device.macs) == {MAC, SECOND}
    assert {each.address for each in device.addresses} == {"10.1.0.7", "10.2.0.7", "fd00::7"}


def test_new_addresses_of_a_discovered_device_are_there_before_the_next_poll(store: FleetStore) -> None:
    point = enrol_at(store, 9)
    node = enrol_at(store, 1, point)
    told(store, node, MAC=["10.1.0.7"])
    poll(store, point)
    assert told(store, node, MAC=["10.1.0.7"]) == [], "it has said nothing new"
    assert told(store, node, MAC=["10.1.0.9"], now=NOW + 86_400) == [node]
    (device,) = found(store)
    assert [(each.address, each.last) for each in device.addresses] == [
        ("10.1.0.9", NOW + 86_400), ("10.1.0.7", NOW),
    ]  # fmt: skip


def test_a_device_that_has_left_a_network_is_not_refreshed_there(store: FleetStore) -> None:
    point, other = enrol_at(store, 9), enrol_at(store, 8)
    node = enrol_at(store, 1, point)
    told(store, node, MAC=["10.1.0.7"])
    poll(store, point)
    beat = heartbeat(name="device-1")
    store.write_now(devices.record_heartbeats, [(node, beat, other)], NOW)
    told(store, node, MAC=["10.8.0.7"])
    assert {each.address for each in found(store)[0].addresses} == {"10.1.0.7"}


def test_a_guest_from_another_network_is_known_by_its_card_and_no_more_of_it_is_claimed_there(
    store: FleetStore,
) -> None:
    point = enrol_at(store, 9)
    node = enrol_at(store, 1, enrol_at(store, 8))
    told(store, node, MAC=["10.1.0.7"], SECOND=["10.1.0.50"])
    poll(store, point)
    poll(store, point, mac="00:1b:21:00:00:99", at="10.1.0.50")
    by_node = {device.node: device for device in found(store)}
    assert by_node[node].macs == (MAC,)
    assert [each.address for each in by_node[""].addresses] == ["10.1.0.50"]


def test_an_address_that_software_chose_for_a_card_says_nothing_in_another_network(store: FleetStore) -> None:
    node = enrol_at(store, 1, enrol_at(store, 8))
    told(store, node, CHOSEN=["172.17.0.2"])
    poll(store, enrol_at(store, 9), mac=CHOSEN, at="172.17.0.2")
    assert [device.node for device in found(store)] == [""]
    poll(store, node_of(8), mac=CHOSEN, at="172.17.0.2")
    assert {device.node for device in found(store)} == {"", node}


def test_two_devices_that_tell_of_one_card_stay_two_and_are_shown_as_a_conflict(store: FleetStore) -> None:
    point = enrol_at(store, 9)
    nodes = {enrol_at(store, number, point) for number in (1, 2)}
    for node in nodes:
        told(store, node, MAC=[])
    poll(store, point)
    assert {device.node for device in found(store)} >= nodes
    ((conflict, parties),) = store.read_now(inventory.list_conflicts)
    assert (conflict.kind, conflict.value) == ("mac", MAC)
    assert {device.node for device in parties} >= nodes


def test_the_cards_of_a_revoked_device_recognise_nobody(store: FleetStore) -> None:
    point = enrol_at(store, 9)
    node = enrol_at(store, 1, point)
    told(store, node, MAC=["10.1.0.7"])
    store.write_now(devices.revoke_device, node, "stolen", NOW)
    poll(store, point)
    assert [device.node for device in found(store)] == [""]


def test_what_an_unknown_node_tells_is_left_out(store: FleetStore) -> None:
    assert told(store, node_of(77), MAC=["10.1.0.7"]) == []
    assert store.read_now(devices.list_interfaces, node_of(77)) == []


def test_a_point_that_has_found_itself_is_the_enrolled_one_though_it_does_not_see_its_card(
    store: FleetStore,
) -> None:
    point = enrol_at(store, 9)
    told(store, point, MAC=["10.1.0.2"])
    seen = [Sighting(method="echo", addresses=[address]) for address in ("10.1.0.2", "10.1.0.3")]
    store.write_now(inventory.record_sightings, seen, network=point, now=NOW)
    assert {device.addresses[0].address: device.node for device in found(store)} == {
        "10.1.0.2": point,
        "10.1.0.3": "",
    }
