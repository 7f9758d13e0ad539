"""Which distribution points serve a group."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.scope import ancestors, are_alternatives, covers, grant_valid, points_for, preferred_points
from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.trust.catalog import SeedGrant

NOW = 1_800_000_000


def node(number: int) -> NodeId:
    return node_id_of(number.to_bytes(32, "big"))


def grant(
    number: int, scope: str, *, expires: int = NOW + 1, duties: tuple[str, ...] = ("seed",)
) -> SeedGrant:
    return SeedGrant(
        node=node(number),
        duties=duties,  # type: ignore[arg-type]  # test data is written as plain strings
        scope=GroupPath(scope),
        addresses=("192.0.2.1:7443",),
        expires=expires,
    )


def test_ancestors_go_from_the_group_itself_to_the_root() -> None:
    assert list(ancestors(GroupPath("/emea/berlin"))) == ["/emea/berlin", "/emea", "/"]
    assert list(ancestors(GroupPath("/"))) == ["/"]


def test_a_scope_covers_its_subgroups_but_not_a_group_whose_name_only_starts_alike() -> None:
    assert covers(GroupPath("/emea"), GroupPath("/emea/berlin"))
    assert covers(GroupPath("/"), GroupPath("/emea"))
    assert not covers(GroupPath("/emea"), GroupPath("/emea2"))


def test_the_nearest_ancestor_that_has_points_serves_a_group() -> None:
    near, far = grant(1, "/emea/berlin"), grant(2, "/emea")
    assert points_for(GroupPath("/emea/berlin/lab"), [far, near], NOW) == (near,)
    assert points_for(GroupPath("/emea/paris"), [far, near], NOW) == (far,)


def test_several_points_of_one_group_are_alternatives() -> None:
    found = points_for(GroupPath("/emea"), [grant(1, "/emea"), grant(2, "/emea")], NOW)
    assert {g.node for g in found} == {node(1), node(2)}


def test_an_expired_grant_counts_for_nothing_and_the_next_ancestor_takes_over() -> None:
    expired, root = grant(1, "/emea", expires=NOW), grant(2, "/")
    assert points_for(GroupPath("/emea"), [expired, root], NOW) == (root,)


def test_a_grant_without_the_duty_does_not_serve_it() -> None:
    assert points_for(GroupPath("/"), [grant(1, "/", duties=("gateway",))], NOW) == ()
    assert not grant_valid(grant(1, "/", duties=("gateway",)), "seed", NOW)


def test_a_group_outside_every_scope_has_no_points() -> None:
    assert points_for(GroupPath("/apac"), [grant(1, "/emea")], NOW) == ()


@given(st.permutations([1, 2, 3, 4]))
def test_the_order_of_alternatives_does_not_depend_on_the_order_of_grants(order: list[int]) -> None:
    grants = [grant(number, "/") for number in order]
    expected = preferred_points(node(99), [grant(number, "/") for number in (1, 2, 3, 4)])
    assert preferred_points(node(99), grants) == expected


def test_devices_spread_evenly_over_alternative_points() -> None:
    grants = [grant(1, "/"), grant(2, "/"), grant(3, "/")]
    first = Counter(preferred_points(node(1000 + n), grants)[0].node for n in range(900))
    assert all(230 < count < 370 for count in first.values())


def test_when_a_point_goes_only_its_own_devices_move() -> None:
    grants = [grant(1, "/"), grant(2, "/"), grant(3, "/")]
    for number in range(100):
        before = preferred_points(node(1000 + number), grants)[0]
        after = preferred_points(node(1000 + number), grants[1:])[0]
        assert before == after or before == grants[0]


def test_points_are_alternatives_when_both_have_a_grant_for_the_same_scope() -> None:
    assert are_alternatives(grant(1, "/emea"), grant(2, "/emea"))
    assert not are_alternatives(grant(1, "/emea"), grant(2, "/emea/berlin"))
    assert not are_alternatives(grant(1, "/emea"), None)
    assert not are_alternatives(None, None)
