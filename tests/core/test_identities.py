"""Which sightings are of one device."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.identities import Evidence, Identity, identities_of, resolve
from p2pdist.core.inventory import key_of
from p2pdist.wire.discovery import Sighting
from tests.core.seen import GUIDS, MACS, NODES, NOW, seen


def devices(*evidence: Evidence) -> set[frozenset[int]]:
    """The devices, each as the places of its evidence."""
    place = {each.key: number for number, each in enumerate(evidence)}
    return {frozenset(place[key] for key in keys) for keys in resolve(evidence).devices}


def conflicts(*evidence: Evidence) -> set[Identity]:
    return {conflict.identity for conflict in resolve(evidence).conflicts}


def test_a_device_that_several_methods_saw_is_one_device() -> None:
    evidence = (
        seen(method="neighbours", addresses=["10.1.0.7"], macs=[MACS[0]]),
        seen(method="mdns", addresses=["10.1.0.7"], names=["PC7.local"]),
        seen(method="netbios", addresses=["10.1.0.7"], names=["PC7"]),
        seen(method="directory", names=["pc7.corp.example"], guid=GUIDS[0]),
        seen(method="connect", addresses=["10.1.0.7"], services=["tcp/22"]),
        seen(method="managed", names=["pc7"], node=NODES[0]),
    )
    assert devices(*evidence) == {frozenset(range(6))}
    assert conflicts(*evidence) == set()


def test_the_same_address_and_name_at_two_sites_are_two_devices() -> None:
    evidence = (
        seen(network="berlin", addresses=["192.168.1.7"], names=["nas.local"]),
        seen(network="paris", addresses=["192.168.1.7"], names=["nas.local"]),
    )
    assert len(devices(*evidence)) == 2
    assert conflicts(*evidence) == set()


def test_a_device_is_known_again_at_another_site_by_its_card_or_its_node() -> None:
    by_card = (seen(network="berlin", macs=[MACS[0]]), seen(network="paris", macs=[MACS[0]]))
    by_node = (seen(network="berlin", node=NODES[0]), seen(network="paris", node=NODES[0]))
    assert len(devices(*by_card)) == len(devices(*by_node)) == 1


def test_a_random_mac_counts_only_within_its_network() -> None:
    random = "02:00:00:00:00:07"
    assert len(devices(seen(network="berlin", macs=[random]), seen(network="paris", macs=[random]))) == 2
    assert len(devices(seen(macs=[random], names=["a"]), seen(macs=[random], names=["b"]))) == 1


def test_two_computers_with_one_mac_stay_two_and_the_conflict_is_shown() -> None:
    evidence = (
        seen(macs=[MACS[0]], node=NODES[0], names=["a"]),
        seen(macs=[MACS[0]], node=NODES[1], names=["b"]),
        seen(method="neighbours", macs=[MACS[0]], addresses=["10.1.0.9"]),
    )
    assert devices(*evidence) == {frozenset({0}), frozenset({1}), frozenset({2})}
    assert conflicts(*evidence) == {Identity("mac", MACS[0], "")}


def test_hosts_that_call_themselves_differently_on_one_mac_stay_two() -> None:
    evidence = (
        seen(macs=[MACS[0]], addresses=["10.1.0.7"]),
        seen(macs=[MACS[0]], addresses=["10.1.0.8"]),
        seen(method="mdns", addresses=["10.1.0.7"], names=["a.local"]),
        seen(method="mdns", addresses=["10.1.0.8"], names=["b.local"]),
    )
    assert devices(*evidence) == {frozenset({0, 2}), frozenset({1, 3})}
    assert conflicts(*evidence) == {Identity("mac", MACS[0], "")}


def test_a_host_of_one_name_with_two_addresses_is_one_device() -> None:
    evidence = (
        seen(macs=[MACS[0]], addresses=["10.1.0.7"]),
        seen(macs=[MACS[0]], addresses=["fe80::7"]),
        seen(method="mdns", addresses=["10.1.0.7"], names=["a.local"]),
        seen(method="mdns", addresses=["fe80::7"], names=["a.local"]),
        seen(method="netbios", addresses=["10.1.0.7"], names=["A-AS-WINDOWS-CUTS"]),
    )
    assert len(devices(*evidence)) == 1
    assert conflicts(*evidence) == set()


def test_a_host_that_was_renamed_is_still_the_one_with_its_card() -> None:
    evidence = (
        seen(macs=[MACS[0]], addresses=["10.1.0.7"], last=NOW - 86_400),
        seen(macs=[MACS[0]], addresses=["10.1.0.8"]),
        seen(method="mdns", addresses=["10.1.0.7"], names=["old.local"], last=NOW - 86_400),
        seen(method="mdns", addresses=["10.1.0.8"], names=["new.local"]),
    )
    assert len(devices(*evidence)) == 1


def test_what_a_stranger_says_of_nodes_and_cards_is_no_identity() -> None:
    forged = Sighting(method="mdns", names=["a"], macs=[MACS[0]], node=NODES[0], guid=GUIDS[0])
    assert identities_of(forged, "berlin") == {Identity("name", "a", "berlin")}


def test_one_name_on_two_cards_is_a_conflict_because_names_are_what_strangers_say() -> None:
    evidence = (seen(macs=[MACS[0]], names=["pc7"]), seen(macs=[MACS[1]], names=["pc7"]))
    assert len(devices(*evidence)) == 2
    assert conflicts(*evidence) == {Identity("name", "pc7", "berlin")}


def test_hosts_of_one_name_in_two_domains_are_two_devices_and_no_conflict() -> None:
    evidence = (
        seen(method="directory", names=["web.a.example"], guid=GUIDS[0]),
        seen(method="directory", names=["web.b.example"], guid=GUIDS[1]),
    )
    assert len(devices(*evidence)) == 2
    assert conflicts(*evidence) == set()


def test_an_address_that_two_cards_claim_within_an_hour_is_a_conflict() -> None:
    evidence = (
        seen(macs=[MACS[0]], addresses=["10.1.0.7"]),
        seen(macs=[MACS[1]], addresses=["10.1.0.7"], last=NOW - limits.ADDRESS_TIE_S),
    )
    assert len(devices(*evidence)) == 2
    assert conflicts(*evidence) == {Identity("address", "10.1.0.7", "berlin")}


def test_an_address_that_has_changed_hands_ties_to_the_one_who_has_it_now() -> None:
    before = NOW - limits.ADDRESS_TIE_S - 1
    evidence = (
        seen(macs=[MACS[0]], addresses=["10.1.0.7"], last=before),
        seen(macs=[MACS[1]], addresses=["10.1.0.7"]),
        seen(method="connect", addresses=["10.1.0.7"], services=["tcp/22"]),
    )
    assert devices(*evidence) == {frozenset({0}), frozenset({1, 2})}
    assert conflicts(*evidence) == set()


def test_a_router_that_answers_for_everybody_makes_nobody_the_same() -> None:
    many = [
        seen(method="neighbours", macs=[MACS[0]], addresses=[f"10.1.{n // 250}.{n % 250 + 1}"])
        for n in range(limits.IDENTITY_HOLDERS_MAX + 1)
    ]
    assert len(devices(*many)) == len(many)


def test_names_and_cards_that_everybody_may_have_are_no_identity() -> None:
    for sighting in (
        Sighting(method="mdns", names=["localhost"]),
        Sighting(method="neighbours", macs=["00:00:00:00:00:00"]),
        Sighting(method="neighbours", macs=["01:00:5e:00:00:fb"]),
    ):
        assert identities_of(sighting, "berlin") == frozenset()


@st.composite
def evidences(draw: st.DrawFn) -> list[Evidence]:
    fields = st.fixed_dictionaries(
        {},
        optional={
            "node": st.sampled_from(NODES),
            "guid": st.sampled_from(GUIDS),
            "macs": st.lists(st.sampled_from([*MACS, "02:00:00:00:00:01"]), max_size=2, unique=True),
            "names": st.lists(
                st.sampled_from(["a", "b", "a.x.example", "b.x.example"]), max_size=2, unique=True
            ),
            "addresses": st.lists(
                st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), max_size=2, unique=True
            ),
        },
    ).filter(lambda fields: any(fields.values()))

    def one(fields: dict[str, Any]) -> Evidence:
        network = draw(st.sampled_from(["berlin", "paris"]))
        return seen(network=network, last=NOW + draw(st.integers(0, 3)) * 2_000, **fields)

    made = [one(each) for each in draw(st.lists(fields, min_size=1, max_size=10))]
    return list({each.key: each for each in made}.values())


@given(evidences(), st.randoms(use_true_random=False))
def test_the_order_of_sightings_does_not_matter(evidence: list[Evidence], random: Any) -> None:
    other = list(evidence)
    random.shuffle(other)
    assert resolve(evidence) == resolve(other)


@given(evidences())
def test_every_sighting_is_of_exactly_one_device(evidence: list[Evidence]) -> None:
    found = [key for keys in resolve(evidence).devices for key in keys]
    assert sorted(found) == sorted(each.key for each in evidence)


@given(evidences())
def test_a_shared_identity_is_of_one_device_or_shown_as_a_conflict(evidence: list[Evidence]) -> None:
    resolution = resolve(evidence)
    shown = {conflict.identity for conflict in resolution.conflicts}
    owner = {key: keys for keys in resolution.devices for key in keys}
    for identity in {i for each in evidence for i in each.identities}:
        if identity.kind in ("address", "name") or identity in shown:
            continue  # an address may have changed hands, a name may be of several domains
        assert len({owner[each.key] for each in evidence if identity in each.identities}) == 1


@given(evidences())
def test_no_conflict_is_silently_merged(evidence: list[Evidence]) -> None:
    """What only weaker identities tie together has at most one bearer of each stronger kind."""
    resolution = resolve(evidence)
    by_key = {each.key: each for each in evidence}
    for keys in resolution.devices:
        nodes = {by_key[key].sighting.node for key in keys} - {""}
        assert len(nodes) <= 1
        if len({by_key[key].sighting.guid for key in keys} - {""}) > 1:
            assert nodes, "only a node may have two numbers in a directory"


@given(evidences())
def test_what_is_one_device_stays_one_when_the_same_is_seen_again(evidence: list[Evidence]) -> None:
    again = [seen_again(each) for each in evidence]
    assert resolve(again).devices == resolve(evidence).devices


def seen_again(each: Evidence) -> Evidence:
    later = {"first": each.first, "last": each.last + 86_400}
    assert key_of(each.sighting, each.network) == each.key
    return Evidence(key=each.key, network=each.network, sighting=each.sighting, **later)
