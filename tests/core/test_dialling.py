"""Who dials whom: always the same, seen from either side."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.dialling import called_by, callers_of, content_dialler, dials, who_dials
from p2pdist.core.scope import gateways_above
from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.trust.catalog import SeedGrant

NOW = 1_800_000_000


def grant(
    number: int, scope: str, *, dialled: bool = False, duties: tuple[str, ...] = ("seed", "gateway")
) -> SeedGrant:
    return SeedGrant(
        node=node_id_of(number.to_bytes(32, "big")),
        duties=duties,  # type: ignore[arg-type]  # test data is written as plain strings
        scope=GroupPath(scope),
        addresses=("192.0.2.1:7601",),
        expires=NOW + 1,
        dialled=dialled,
    )


fleets = st.lists(
    st.builds(
        grant,
        st.integers(1, 99),
        st.sampled_from(["/", "/a", "/a/b", "/a/b/c", "/z"]),
        dialled=st.booleans(),
        duties=st.sampled_from([("seed",), ("gateway",), ("seed", "gateway")]),
    ),
    unique_by=lambda each: each.node,
    max_size=8,
)


def names(grants: tuple[SeedGrant, ...]) -> set[NodeId]:
    return {each.node for each in grants}


def test_everybody_dials_upwards_unless_its_grant_says_that_it_is_dialled() -> None:
    upper, lower, zone = grant(1, "/a"), grant(2, "/a/b"), grant(3, "/a/b", dialled=True)
    assert who_dials(upper, None) == who_dials(upper, lower) == who_dials(None, lower) == "below"
    assert who_dials(upper, zone) == who_dials(None, zone) == "above"


def test_of_two_that_are_dialled_neither_dials_the_other() -> None:
    assert who_dials(grant(1, "/a", dialled=True), grant(2, "/a/b", dialled=True)) is None


def test_the_admin_server_may_dial_every_point_that_is_dialled_also_a_plain_one() -> None:
    zones = [grant(1, "/a", dialled=True), grant(2, "/z", dialled=True, duties=("seed",))]
    assert names(called_by(None, [*zones, grant(3, "/a/b")], NOW)) == names(tuple(zones))


def test_a_gateway_dials_those_below_it_and_no_others() -> None:
    upper, zone, elsewhere = grant(1, "/a"), grant(2, "/a/b", dialled=True), grant(3, "/z", dialled=True)
    grants = [upper, zone, elsewhere]
    assert names(called_by(upper, grants, NOW)) == {zone.node}
    assert names(callers_of(zone, grants, NOW)) == {upper.node}


def test_where_the_next_gateway_above_is_dialled_too_the_one_above_that_dials() -> None:
    top, middle, zone = grant(1, "/"), grant(2, "/a", dialled=True), grant(3, "/a/b", dialled=True)
    assert names(callers_of(zone, [top, middle, zone], NOW)) == {top.node}
    assert names(called_by(top, [top, middle, zone], NOW)) == {middle.node, zone.node}


@given(fleets)
def test_a_node_is_called_by_exactly_those_whose_call_it_takes(grants: list[SeedGrant]) -> None:
    for one in grants:
        for other in grants:
            calls = other.node in names(called_by(one, grants, NOW))
            assert calls == (one.node in names(callers_of(other, grants, NOW)))
            if calls:
                assert dials(one)
                assert not dials(other)
                assert one.node not in names(callers_of(one, grants, NOW))


@given(fleets)
def test_no_two_gateways_dial_each_other(grants: list[SeedGrant]) -> None:
    dialling = {
        (one.node, above.node) for one in grants if dials(one) for above in gateways_above(one, grants, NOW)
    }
    dialling |= {(one.node, below.node) for one in grants for below in called_by(one, grants, NOW)}
    assert not [pair for pair in dialling if pair[::-1] in dialling]


@given(st.booleans(), st.booleans())
def test_for_content_both_sides_name_the_same_dialler(one: bool, other: bool) -> None:
    mirrored = {"receiver": "source", "source": "receiver", "either": "either", None: None}
    seen = content_dialler(receiver_dialled=one, source_dialled=other)
    assert mirrored[seen] == content_dialler(receiver_dialled=other, source_dialled=one)
    assert (seen is None) == (one and other)
