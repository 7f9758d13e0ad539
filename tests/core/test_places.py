"""Who shares a LAN with whom, and what a gateway's devices fetch from one another."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.places import Member, Places, whereabouts
from p2pdist.core.sources import decide_sources
from p2pdist.ids import GroupPath, node_id_of
from p2pdist.wire.frames import Candidate, Endpoint

GATEWAY, *DEVICES = [node_id_of(bytes([n]) * 32) for n in range(1, 14)]
HOME = (Endpoint(host="192.168.1.10", port=7602),)


def device(number: int, outside: str, *, complete: bool = False, unreached: Sequence[int] = ()) -> Member:
    """A device behind the NAT with this outside address."""
    own = (Endpoint(host=f"192.168.1.{10 + number}", port=7602),)
    where = whereabouts(GATEWAY, outside, 7602, own, spread=True)
    return Member(
        node=DEVICES[number],
        role="device",
        site=where.site,
        host=where.host,
        port=where.port,
        group=GroupPath("/"),
        complete=complete,
        have=0.0,
        gateway=where.gateway,
        translated=where.translated,
        own=where.own,
        unreached=frozenset(DEVICES[other] for other in unreached),
    )


def gateway() -> Member:
    return Member(
        node=GATEWAY,
        role="point",
        site=GATEWAY,
        host="198.51.100.1",
        port=7602,
        group=GroupPath("/"),
        complete=False,
        have=0.1,
    )


def origin() -> Member:
    return msgspec.structs.replace(gateway(), role="origin", site="origin", complete=True)


def told(receiver: Member, members: Sequence[Member], hopeless: str | None = None) -> dict[str, Candidate]:
    decided = decide_sources(receiver, [gateway(), *members], hopeless=lambda one, other: hopeless)
    return {candidate.node: candidate for candidate in decided}


def test_who_has_the_outside_address_itself_and_a_private_one_is_in_the_gateways_site() -> None:
    where = whereabouts(GATEWAY, "10.1.2.3", 7602, [Endpoint(host="10.1.2.3", port=7602)], spread=True)
    assert (where.site, where.gateway) == (GATEWAY, None)


def test_who_has_none_of_the_outside_address_is_behind_a_nat() -> None:
    where = whereabouts(GATEWAY, "203.0.113.7", 7602, HOME, spread=False)
    assert (where.site, where.gateway, where.translated) == ("behind 203.0.113.7", GATEWAY, True)


def test_a_node_that_names_no_addresses_is_in_the_site_as_ever() -> None:
    assert whereabouts(GATEWAY, "203.0.113.7", 7602, [], spread=False).gateway is None


def test_a_global_address_is_a_place_of_its_own_only_at_a_gateway() -> None:
    own = [Endpoint(host="2a00:1::5", port=7602)]
    assert whereabouts(GATEWAY, "2a00:1::5", 7602, own, spread=False).site == GATEWAY
    where = whereabouts(GATEWAY, "2a00:1::5", 7602, own, spread=True)
    assert (where.site, where.translated) == ("network 2a00:1::/64", False)


def test_neighbours_behind_one_nat_dial_each_other_at_home_and_one_fetches_for_both() -> None:
    first, second = device(0, "203.0.113.7"), device(1, "203.0.113.7")
    from_first, from_second = told(first, [first, second]), told(second, [first, second])
    assert from_first[GATEWAY].taken and from_first[GATEWAY].path == "relayed"
    assert not from_second[GATEWAY].taken
    assert (from_second[first.node].host, from_second[first.node].taken) == ("192.168.1.10", True)


def test_a_neighbour_that_cannot_reach_the_other_is_called_there_and_fetches_itself_meanwhile() -> None:
    first, second = device(0, "203.0.113.7"), device(1, "203.0.113.7", unreached=[0])
    decided = told(second, [first, second])
    assert decided[GATEWAY].taken
    assert (decided[first.node].taken, decided[first.node].path) == (True, "punched")


def test_a_device_that_cannot_reach_its_gateway_does_not_fetch_for_its_place() -> None:
    first, second = device(0, "203.0.113.7"), device(1, "203.0.113.7")
    first = msgspec.structs.replace(first, unreached=frozenset([GATEWAY]))
    assert told(second, [first, second])[GATEWAY].taken
    second = msgspec.structs.replace(second, unreached=frozenset([GATEWAY]))
    members = [first, second]
    assert all(told(member, members)[GATEWAY].taken for member in members)  # it is tried again


def test_at_the_admin_server_one_device_of_each_place_fetches_from_the_origin() -> None:
    members = [origin(), device(0, "203.0.113.7"), device(1, "203.0.113.7")]
    first, second = (decide_sources(member, members) for member in members[1:])
    assert [(c.taken, c.path) for c in first if c.role == "origin"] == [(True, "direct")]
    assert [(c.taken, c.path) for c in second if c.role == "origin"] == [(False, "direct")]


def test_one_device_of_each_of_two_places_is_told_to_call_the_other() -> None:
    here, mate, there = device(0, "203.0.113.7"), device(1, "203.0.113.7"), device(2, "203.0.113.8")
    members = [here, mate, there]
    assert told(here, members)[there.node].path == "punched"
    assert there.node not in told(mate, members)
    assert mate.node not in told(there, members)


def test_two_that_cannot_meet_stay_with_the_gateway_and_hear_why() -> None:
    here, there = device(0, "203.0.113.7"), device(1, "203.0.113.8")
    candidate = told(here, [here, there], "symmetric NAT")[there.node]
    assert (candidate.taken, candidate.reason) == (False, "through its gateway: symmetric NAT")


def test_who_has_a_global_address_is_dialled_even_if_no_call_can_work() -> None:
    home = device(0, "203.0.113.7")
    own = [Endpoint(host="198.18.0.1", port=7602), Endpoint(host="9.9.9.9", port=7602)]
    where = whereabouts(GATEWAY, "9.9.9.9", 7602, own, spread=True)
    public = msgspec.structs.replace(
        device(1, "203.0.113.8"), site=where.site, host=where.host, own=where.own, translated=False
    )
    candidate = told(home, [home, public], "no UDP")[public.node]
    assert candidate.taken and candidate.endpoints[0].host == "9.9.9.9"


def public(number: int, host: str) -> Member:
    """A device with this global address and no NAT before it."""
    where = whereabouts(GATEWAY, host, 7602, [Endpoint(host=host, port=7602)], spread=True)
    return msgspec.structs.replace(
        device(number, host), site=where.site, host=where.host, own=where.own, translated=False
    )


def test_of_two_in_different_places_one_dials_and_never_both() -> None:
    home, one, other = device(0, "203.0.113.7"), public(1, "9.9.9.9"), public(2, "8.8.8.8")
    members = [home, one, other]
    assert told(home, members)[one.node].dial == "receiver"
    assert told(one, members)[home.node].dial == "source"
    assert told(one, members)[other.node].dial == "either"  # who was there first is dialled
    assert not told(one, members)[home.node].endpoints


def test_a_gateway_that_dials_nobody_is_dialled_from_another_place_too() -> None:
    home = device(0, "203.0.113.7")
    dialled = msgspec.structs.replace(gateway(), dialled=True)
    (candidate,) = decide_sources(home, [dialled, home])
    assert (candidate.taken, candidate.dial) == (True, "receiver")


places = st.lists(
    st.tuples(st.integers(7, 10), st.booleans(), st.sets(st.integers(0, 11), max_size=4)),
    min_size=1,
    max_size=12,
)


def made(drawn: list[tuple[int, bool, set[int]]], *, apart: bool) -> list[Member]:
    return [
        device(n, f"203.0.113.{place}", complete=complete, unreached=sorted(unreached) if apart else ())
        for n, (place, complete, unreached) in enumerate(drawn)
    ]


MANY = 500


def test_among_hundreds_of_places_each_meets_a_few_and_those_meet_it() -> None:
    members = [
        msgspec.structs.replace(
            device(0, f"203.0.{n // 200}.{n % 200}"), node=node_id_of(n.to_bytes(32)), complete=n % 2 == 0
        )
        for n in range(MANY)
    ]
    judge = Places(members, lambda one, other: None)
    met = {
        one.node: {other.node for other in members if other != one and judge.on_device(one, other)}
        for one in members
    }
    assert all(one in met[other] for one, others in met.items() for other in others)
    assert min(map(len, met.values())) >= 1
    assert sum(map(len, met.values())) <= 2 * limits.PLACES_MET_MAX * MANY


@given(places)
def test_exactly_one_device_of_each_place_exchanges_content_over_its_uplink(
    drawn: list[tuple[int, bool, set[int]]],
) -> None:
    members = made(drawn, apart=False)
    judge = Places(members, lambda one, other: None)
    for site in {member.site for member in members}:
        assert len([m for m in members if m.site == site and judge.speaks(m)]) == 1


@given(places)
def test_whoever_lacks_something_has_a_source_however_few_neighbours_it_reaches(
    drawn: list[tuple[int, bool, set[int]]],
) -> None:
    """The gateway, or a neighbour that it reaches and that exchanges content for it."""
    members = made(drawn, apart=True)
    judge = Places(members, lambda one, other: None)
    for member in members:
        if member.complete or judge.on_carrier(member, gateway()).taken:
            continue
        mates = [m for m in members if m.site == member.site and judge.speaks(m)]
        assert any(m.node not in member.unreached and member.node not in m.unreached for m in mates)


@given(places)
def test_what_one_is_told_of_another_place_the_other_is_told_too(
    drawn: list[tuple[int, bool, set[int]]],
) -> None:
    members = made(drawn, apart=True)
    judge = Places(members, lambda one, other: None)

    def called(one: Member, other: Member) -> bool:
        ruling = judge.on_device(one, other)
        return ruling is not None and ruling.taken and ruling.path == "punched"

    for one in members:
        for other in members:
            if one.node != other.node:
                assert called(one, other) == called(other, one)
