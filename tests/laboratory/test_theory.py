"""Which pairs of places can have a direct path, from the theory alone."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laboratory.kinds import KINDS, TCP_PORTS, Behaviour, Filtering, Kind, Mapping
from laboratory.theory import Traffic, direct_path_possible, neighbours_path_possible, reachable

CONES = ("full-cone", "address-restricted", "port-restricted", "carrier-grade", "hairpin", "no-hairpin")
UDP_BEHAVIOURS = st.builds(
    Behaviour,
    udp_out=st.just(True),
    translated=st.booleans(),
    mapping=st.sampled_from(Mapping),
    filtering=st.sampled_from(Filtering),
    hairpin=st.booleans(),
    expires_early=st.booleans(),
    udp_in=st.just(False),
    tcp_in=st.booleans(),
    tcp_out=st.frozensets(st.sampled_from(sorted(TCP_PORTS))),
)
BEHAVIOURS = st.one_of(
    UDP_BEHAVIOURS,
    st.builds(
        Behaviour,
        udp_out=st.just(False),
        translated=st.none(),
        mapping=st.none(),
        filtering=st.none(),
        hairpin=st.none(),
        expires_early=st.none(),
        udp_in=st.booleans(),
        tcp_in=st.booleans(),
        tcp_out=st.frozensets(st.sampled_from(sorted(TCP_PORTS))),
    ),
)
PLACES = st.builds(
    Kind,
    name=st.just("any"),
    summary=st.just("any"),
    ipv4=BEHAVIOURS,
    ipv6=st.none() | BEHAVIOURS,
    isolated=st.booleans(),
)


def possible(left: str, right: str, kind: Traffic = Traffic.SESSION) -> bool:
    return direct_path_possible(KINDS[left], KINDS[right], kind)


@pytest.mark.parametrize(("left", "right"), list(itertools.combinations_with_replacement(CONES, 2)))
def test_any_two_with_endpoint_independent_mapping_can_meet(left: str, right: str) -> None:
    assert possible(left, right)


@pytest.mark.parametrize("friendly", ["open", "full-cone", "address-restricted"])
def test_a_symmetric_nat_meets_who_lets_in_its_other_port(friendly: str) -> None:
    assert possible("symmetric", friendly)


@pytest.mark.parametrize("strict", ["port-restricted", "carrier-grade", "symmetric", "ipv6-firewall"])
def test_a_symmetric_nat_does_not_meet_who_filters_by_port(strict: str) -> None:
    assert not possible("symmetric", strict)


def test_two_behind_firewalls_meet_over_ipv6_where_their_ipv4_could_not() -> None:
    assert possible("ipv6-firewall", "ipv6-firewall")


@pytest.mark.parametrize("other", sorted(KINDS))
def test_without_udp_there_is_no_direct_session(other: str) -> None:
    assert not possible("udp-blocked", other)
    assert not possible("only-443", other)


@pytest.mark.parametrize("listening", ["open", "dmz"])
def test_without_udp_content_comes_over_tcp_from_who_can_be_dialled(listening: str) -> None:
    assert possible("udp-blocked", listening, Traffic.CONTENT)
    assert not possible("only-443", listening, Traffic.CONTENT)


@pytest.mark.parametrize("dialling", ["open", *CONES, "symmetric"])
def test_who_may_only_answer_is_dialled_by_everyone_with_udp(dialling: str) -> None:
    assert possible("dmz", dialling)


def test_two_who_may_only_answer_cannot_meet() -> None:
    assert not possible("dmz", "dmz", Traffic.CONTENT)


def test_neighbours_meet_unless_they_are_kept_apart_without_hairpinning() -> None:
    apart = {name for name, kind in KINDS.items() if not neighbours_path_possible(kind)}
    assert apart == {"no-hairpin"}


@pytest.mark.parametrize(("left", "right"), list(itertools.combinations_with_replacement(KINDS, 2)))
def test_every_pair_is_reachable(left: str, right: str) -> None:
    assert reachable(KINDS[left], KINDS[right])


def test_who_can_neither_dial_nor_be_dialled_is_not_reachable() -> None:
    nowhere = replace(KINDS["dmz"], ipv4=replace(KINDS["dmz"].ipv4, tcp_in=False, udp_in=False))
    assert not reachable(nowhere, KINDS["open"])


@settings(deadline=None)
@given(left=PLACES, right=PLACES, kind=st.sampled_from(Traffic))
def test_it_does_not_matter_who_is_left(left: Kind, right: Kind, kind: Traffic) -> None:
    assert direct_path_possible(left, right, kind) == direct_path_possible(right, left, kind)
    assert reachable(left, right) == reachable(right, left)


@settings(deadline=None)
@given(left=PLACES, right=PLACES)
def test_content_has_every_path_that_a_session_has(left: Kind, right: Kind) -> None:
    if direct_path_possible(left, right, Traffic.SESSION):
        assert direct_path_possible(left, right, Traffic.CONTENT)


@settings(deadline=None)
@given(left=PLACES, right=PLACES, udp=UDP_BEHAVIOURS, kind=st.sampled_from(Traffic))
def test_letting_more_in_never_costs_a_path(left: Kind, right: Kind, udp: Behaviour, kind: Traffic) -> None:
    strictest_first = (
        Filtering.ADDRESS_AND_PORT_DEPENDENT,
        Filtering.ADDRESS_DEPENDENT,
        Filtering.ENDPOINT_INDEPENDENT,
    )
    possible = [
        direct_path_possible(replace(left, ipv4=replace(udp, filtering=filtering)), right, kind)
        for filtering in strictest_first
    ]
    assert possible == sorted(possible)


@settings(deadline=None)
@given(left=PLACES, right=PLACES, ipv6=BEHAVIOURS, kind=st.sampled_from(Traffic))
def test_another_family_never_costs_a_path(left: Kind, right: Kind, ipv6: Behaviour, kind: Traffic) -> None:
    without = replace(left, ipv6=None)
    assert direct_path_possible(replace(left, ipv6=ipv6), right, kind) >= direct_path_possible(
        without, right, kind
    )
