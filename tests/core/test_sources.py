"""Who fetches from whom, and why."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.places import Member
from p2pdist.core.sources import SourceRules, crosses_wan, decide_sources, waits_for_mirrors
from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.wire.frames import Candidate, Role


def member(number: int, role: Role, site: str) -> Member:
    return Member(
        node=node_id_of(number.to_bytes(32, "big")),
        role=role,
        host=f"192.0.2.{number % 250 + 1}",
        port=7881,
        site=site,
        group=GroupPath("/"),
        complete=False,
        have=0.0,
    )


ORIGIN = member(0, "origin", "origin")
BERLIN = member(1, "point", "berlin")
PARIS = member(2, "point", "paris")
BERLIN_DEVICES = [member(10 + n, "device", "berlin") for n in range(3)]
PARIS_DEVICE = member(20, "device", "paris")
STRAY = member(30, "device", "direct:198.51.100.0/24")
EVERYBODY = [ORIGIN, BERLIN, PARIS, *BERLIN_DEVICES, PARIS_DEVICE, STRAY]


def without_room(point: Member) -> Member:
    return msgspec.structs.replace(point, no_room=True)


def taken(receiver: Member) -> set[NodeId]:
    return {NodeId(c.node) for c in decide_sources(receiver, EVERYBODY) if c.taken}


def about(receiver: Member, other: Member) -> Candidate:
    return next(c for c in decide_sources(receiver, EVERYBODY) if c.node == other.node)


def test_a_device_fetches_from_its_point_and_the_devices_of_its_site() -> None:
    assert taken(BERLIN_DEVICES[0]) == {BERLIN.node, BERLIN_DEVICES[1].node, BERLIN_DEVICES[2].node}


def test_a_device_of_a_site_with_a_point_is_refused_the_origin_with_the_reason() -> None:
    assert (
        about(BERLIN_DEVICES[0], ORIGIN).reason
        == "over the WAN only distribution points fetch from the origin"
    )


def test_a_device_does_not_reach_into_another_site() -> None:
    assert "another site" in about(BERLIN_DEVICES[0], PARIS_DEVICE).reason
    assert "another site" in about(BERLIN_DEVICES[0], PARIS).reason


def test_a_point_fetches_from_the_origin_the_other_points_and_its_own_site() -> None:
    assert taken(BERLIN) == {ORIGIN.node, PARIS.node, *(d.node for d in BERLIN_DEVICES)}


def test_a_device_without_any_point_falls_back_to_the_origin() -> None:
    assert taken(STRAY) == {ORIGIN.node}
    assert "no distribution point" in about(STRAY, ORIGIN).reason


def test_while_its_point_has_no_room_a_device_fetches_from_the_origin_with_the_reason() -> None:
    decided = decide_sources(BERLIN_DEVICES[0], [ORIGIN, without_room(BERLIN), *BERLIN_DEVICES])
    reasons = {c.node: c.reason for c in decided if c.taken}
    assert set(reasons) == {ORIGIN.node, BERLIN_DEVICES[1].node, BERLIN_DEVICES[2].node}
    assert "has no room" in reasons[ORIGIN.node]
    assert "no room" in next(c.reason for c in decided if c.node == BERLIN.node)


def test_a_device_of_another_site_gains_nothing_from_a_point_without_room() -> None:
    members = [ORIGIN, without_room(BERLIN), PARIS, PARIS_DEVICE]
    assert {c.node for c in decide_sources(PARIS_DEVICE, members) if c.taken} == {PARIS.node}


def test_a_point_does_not_fetch_from_another_one_that_has_no_room() -> None:
    decided = decide_sources(PARIS, [ORIGIN, without_room(BERLIN), PARIS])
    assert {c.node for c in decided if c.taken} == {ORIGIN.node}


@given(st.integers(0, 20))
def test_only_a_few_devices_of_a_site_without_room_turn_to_the_origin_and_never_none(count: int) -> None:
    site = [member(100 + n, "device", "berlin") for n in range(count)]
    members = [ORIGIN, without_room(BERLIN), *site]
    fetchers = [
        device
        for device in site
        if any(c.node == ORIGIN.node and c.taken for c in decide_sources(device, members))
    ]
    assert len(fetchers) == min(count, SourceRules().origin_devices_max)


def test_a_crowded_site_is_a_mesh_of_bounded_degree() -> None:
    crowd = [member(100 + n, "device", "berlin") for n in range(50)]
    decided = decide_sources(crowd[0], [BERLIN, *crowd], rules=SourceRules(site_peers_max=8))
    assert sum(c.taken for c in decided) == 9  # eight devices and the point
    assert any("closer peers" in c.reason for c in decided)


@given(st.permutations(EVERYBODY))
def test_decisions_do_not_depend_on_the_order_of_members(order: list[Member]) -> None:
    assert decide_sources(BERLIN, order) == decide_sources(BERLIN, EVERYBODY)


@given(st.sampled_from(EVERYBODY))
def test_every_other_member_gets_a_decision_and_a_reason(receiver: Member) -> None:
    decided = decide_sources(receiver, EVERYBODY)
    assert {c.node for c in decided} == {m.node for m in EVERYBODY} - {receiver.node}
    assert all(c.reason for c in decided)


@given(st.sampled_from(EVERYBODY), st.sampled_from(EVERYBODY))
def test_only_points_and_strays_cross_the_wan(receiver: Member, other: Member) -> None:
    if receiver.node == other.node or not about(receiver, other).taken:
        return
    if receiver.site != other.site:
        assert receiver.role != "device" or receiver.site.startswith("direct:")


def test_what_the_origin_sends_and_what_two_sites_exchange_crosses_the_wan() -> None:
    assert crosses_wan("device", "origin", alternatives=False)
    assert crosses_wan("origin", "point", alternatives=False)
    assert crosses_wan("point", "point", alternatives=False)


def test_within_a_site_nothing_crosses_the_wan() -> None:
    assert not crosses_wan("device", "point", alternatives=False)
    assert not crosses_wan("point", "device", alternatives=False)
    assert not crosses_wan("device", "device", alternatives=False)
    assert not crosses_wan("point", "point", alternatives=True), "two points of one scope stand in one site"


def test_each_side_is_told_who_dials_where_one_of_them_may_dial_nobody() -> None:
    zone = msgspec.structs.replace(PARIS, dialled=True)
    [seen] = decide_sources(BERLIN, [zone])
    assert (seen.taken, seen.dial) == (True, "receiver")
    assert {c.dial for c in decide_sources(zone, [ORIGIN, BERLIN])} == {"source"}
    assert {c.dial for c in decide_sources(BERLIN, EVERYBODY)} == {"either"}


def test_two_that_may_dial_nobody_are_no_sources_of_each_other() -> None:
    zones = [msgspec.structs.replace(point, dialled=True) for point in (BERLIN, PARIS)]
    [seen] = decide_sources(zones[0], zones)
    assert not seen.taken
    assert "neither of the two may dial" in seen.reason


def test_nobody_fetches_from_the_origin_what_comes_from_mirrors() -> None:
    origin = msgspec.structs.replace(ORIGIN, mirrored=True)
    for receiver in (BERLIN, STRAY, BERLIN_DEVICES[0]):
        (found,) = [
            c for c in decide_sources(receiver, [origin, BERLIN, *EVERYBODY[3:]]) if c.role == "origin"
        ]
        assert not found.taken
        assert "vendor's mirrors" in found.reason


def test_not_even_where_the_point_has_no_room_for_it() -> None:
    members = [msgspec.structs.replace(ORIGIN, mirrored=True), without_room(BERLIN), BERLIN_DEVICES[0]]
    assert not any(c.taken for c in decide_sources(BERLIN_DEVICES[0], members))


def test_of_two_points_the_one_behind_a_nat_dials() -> None:
    behind = msgspec.structs.replace(PARIS, translated=True)
    (seen,) = decide_sources(BERLIN, [behind])
    assert (seen.taken, seen.dial, seen.reason) == (True, "source", "another distribution point")
    (seen,) = decide_sources(behind, [BERLIN])
    assert (seen.taken, seen.dial) == (True, "receiver")
    (seen,) = decide_sources(msgspec.structs.replace(BERLIN, translated=True), [behind])
    assert seen.dial == "either", "one of them may have a port that is forwarded"


def test_who_has_no_other_source_is_told_to_wait_for_the_mirrors() -> None:
    origin = msgspec.structs.replace(ORIGIN, mirrored=True)
    assert "vendor's mirrors" in waits_for_mirrors(decide_sources(STRAY, [origin]))
    assert waits_for_mirrors(decide_sources(BERLIN_DEVICES[0], [origin, BERLIN])) == ""
    assert waits_for_mirrors(decide_sources(STRAY, [PARIS])) == "", "it may only be late"
