"""What is known of a device, and the ids of devices."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.inventory import SeenAt, describe, device_ids, evidence_of, key_of
from p2pdist.wire.discovery import Sighting
from tests.core.seen import GUIDS, MACS, NODES, NOW, seen


def test_a_device_shows_what_was_seen_last_first_and_keeps_the_history_of_its_addresses() -> None:
    device = describe(
        "d1",
        [
            seen(macs=[MACS[0]], addresses=["10.1.0.7"], first=NOW - 900, last=NOW - 500),
            seen(macs=[MACS[0]], addresses=["10.1.0.8"], first=NOW - 400, last=NOW),
            seen(method="netbios", names=["PC7"], addresses=["10.1.0.8"], first=NOW - 10, last=NOW),
        ],
    )
    assert device.addresses == (
        SeenAt(address="10.1.0.8", network="berlin", first=NOW - 400, last=NOW),
        SeenAt(address="10.1.0.7", network="berlin", first=NOW - 900, last=NOW - 500),
    )
    assert (device.name, device.macs, device.known_by) == ("PC7", (MACS[0],), "mac")
    assert (device.first, device.last) == (NOW - 900, NOW)


def test_the_name_that_an_agent_or_a_directory_says_stands_before_what_a_neighbour_says() -> None:
    device = describe(
        "d1",
        [
            seen(method="mdns", names=["bob-laptop.local"], last=NOW + 5),
            seen(method="directory", names=["pc7.corp.example"], guid=GUIDS[0], unit="OU=Berlin,DC=corp"),
            seen(method="managed", names=["pc7"], node=NODES[0], platform="linux-x86_64"),
        ],
    )
    assert device.names == ("pc7", "pc7.corp.example", "bob-laptop.local")
    assert (device.node, device.guid, device.unit) == (NODES[0], GUIDS[0], "OU=Berlin,DC=corp")
    assert (device.platform, device.known_by) == ("linux-x86_64", "node")


def test_a_device_without_a_name_is_called_by_its_address() -> None:
    assert describe("d1", [seen(addresses=["10.1.0.7"], macs=[MACS[0]])]).name == "10.1.0.7"
    assert describe("d1", [seen(macs=[MACS[0]])]).name == MACS[0]


def test_the_same_thing_seen_again_has_the_same_key_and_another_offer_changes_nothing() -> None:
    one = Sighting(method="mdns", names=["a", "b"], services=["tcp/22"])
    two = Sighting(method="mdns", names=["b", "a"], services=["tcp/80"], platform="linux")
    assert key_of(one, "berlin") == key_of(two, "berlin")
    assert key_of(one, "berlin") != key_of(one, "paris")


def test_what_identifies_nobody_is_no_evidence() -> None:
    assert evidence_of([Sighting(method="mdns", names=["localhost"])], "berlin", NOW) == []


def test_a_device_keeps_its_id_when_more_is_known_of_it() -> None:
    both = frozenset({"aa" * 16, "bb" * 16})
    assert device_ids([both], {"aa" * 16: "device-1"}, {"device-1"}) == {both: "device-1"}


def test_when_two_devices_turn_out_to_be_one_it_has_the_id_of_most() -> None:
    before = {"a": "d1", "b": "d1", "c": "d2"}
    assert device_ids([{"a", "b", "c"}], before, ()) == {frozenset("abc"): "d1"}


KEYS = [f"{number:032x}" for number in range(1, 9)]


@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=8),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["d1", "d2", "d3"])),
)
def test_no_two_devices_ever_have_one_id_and_every_one_has_one(
    numbers: list[int], before: dict[str, str]
) -> None:
    devices = {
        frozenset(key for key, mine in zip(KEYS, numbers, strict=True) if mine == number)
        for number in set(numbers)
    }
    taken = {KEYS[0][:12], "d9"}
    ids = device_ids(devices, before, taken)
    assert set(ids) == devices
    assert len(set(ids.values())) == len(devices)
    assert not set(ids.values()) & taken
