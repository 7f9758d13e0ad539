"""Every candidate source, and why: also those that the node's own tracker never names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.explanation import (
    Asked,
    Explained,
    KnownPoint,
    explain_sources,
    presumed_site,
    stage_of,
)
from p2pdist.core.places import Place
from p2pdist.core.sources import DIRECT, verdict
from p2pdist.ids import GroupPath, NodeId, node_id_of
from p2pdist.trust.catalog import SeedGrant
from p2pdist.wire.frames import Candidate, Role
from p2pdist.wire.messages import SourceBytes

NOW = 1_000


def node(number: int) -> NodeId:
    return node_id_of(number.to_bytes(32, "big"))


ORIGIN, EAST, WEST, EMEA, PARIS, PC, MATE = (node(n) for n in range(7))
NAMES = {EAST: "berlin-east", WEST: "berlin-west", EMEA: "emea", PARIS: "paris"}


def point(name: NodeId, scope: str, *, online: bool = True, expires: int = NOW + 1) -> KnownPoint:
    grant = SeedGrant(
        node=name, duties=("seed",), scope=GroupPath(scope), addresses=("192.0.2.1:7601",), expires=expires
    )
    return KnownPoint(grant=grant, online=online)


POINTS = (
    point(EAST, "/emea/berlin"),
    point(WEST, "/emea/berlin"),
    point(EMEA, "/emea"),
    point(PARIS, "/emea/paris"),
)


def candidate(name: NodeId, role: Role, *, taken: bool = True, reason: str = "said so") -> Candidate:
    return Candidate(node=name, role=role, host="192.0.2.9", port=7602, taken=taken, reason=reason)


def came(name: NodeId, role: Role, received: int, sent: int = 0) -> SourceBytes:
    return SourceBytes(node=name, role=role, received=received, sent=sent)


def explained(
    receiver: Place,
    *,
    points: tuple[KnownPoint, ...] = POINTS,
    reported: tuple[Candidate, ...] | None = (),
    counted: tuple[SourceBytes, ...] = (),
    group: str = "/emea/berlin",
) -> dict[NodeId, Explained]:
    asked = Asked(
        receiver=receiver,
        group=GroupPath(group),
        origin=ORIGIN,
        points=points,
        reported=reported,
        counted=counted,
    )
    return {e.node: e for e in explain_sources(asked, name_of=lambda n: NAMES.get(n, n[:12]), now=NOW)}


DEVICE = Place(node=PC, role="device", site=EAST)
ON_ITS_OWN = Place(node=PC, role="device", site=f"{DIRECT}192.0.2.0/24")
THE_POINT = Place(node=EAST, role="point", site=EAST)


def test_a_device_of_a_site_hears_why_the_origin_and_every_other_point_are_not_for_it() -> None:
    found = explained(DEVICE, reported=(candidate(EAST, "point"), candidate(MATE, "device")))
    assert {name for name, source in found.items() if source.taken} == {EAST, MATE}
    assert found[EAST].reason == "said so"
    assert found[ORIGIN].reason == "over the WAN only distribution points fetch from the origin"
    assert found[WEST].reason == (
        "an alternative distribution point of this scope: berlin-east carries the device"
    )
    assert found[EMEA].reason == "it serves /emea, but /emea/berlin has distribution points of its own"
    assert found[PARIS].reason.startswith("it serves /emea/paris; another site")


def test_a_killed_point_was_a_source_before_and_is_none_now() -> None:
    lost = tuple(point(k.grant.node, k.grant.scope, online=k.grant.node != EAST) for k in POINTS)
    moved = Place(node=PC, role="device", site=WEST)
    reported = (candidate(WEST, "point"),)
    found = explained(moved, points=lost, reported=reported, counted=(came(EAST, "point", 700),))
    assert (found[EAST].taken, found[EAST].received) == (False, 700)
    assert found[EAST].reason == (
        "an alternative distribution point of this scope: berlin-west carries the device"
        "; it is offline; it was a source before"
    )


def test_a_device_that_fell_back_to_the_origin_has_not_reached_its_points() -> None:
    found = explained(ON_ITS_OWN, reported=(candidate(ORIGIN, "origin"),))
    assert {name for name, source in found.items() if source.taken} == {ORIGIN}
    assert found[EAST].reason == "a distribution point of this scope that the device does not reach"


def test_a_point_whose_grant_has_expired_is_no_source() -> None:
    expired = (point(EAST, "/emea/berlin", expires=NOW),)
    assert explained(DEVICE, points=expired)[EAST].reason == "its seed grant has expired"


def test_a_point_that_holds_nothing_of_the_release_takes_no_part() -> None:
    found = explained(DEVICE, reported=())
    assert not found[EAST].taken
    assert found[EAST].reason == "the distribution point of this site; it takes no part in this release"


def test_the_devices_of_a_point_feed_it_although_no_tracker_names_them() -> None:
    found = explained(
        THE_POINT, reported=(candidate(ORIGIN, "origin"),), counted=(came(MATE, "device", 10, 90),)
    )
    assert (found[MATE].taken, found[MATE].sent) == (True, 90)
    assert EAST not in found


def test_a_former_peer_is_no_candidate_any_more() -> None:
    found = explained(DEVICE, counted=(came(MATE, "device", 10), came(node(9), "device", 0, 10)))
    assert (found[MATE].taken, found[MATE].reason) == (False, "it was a source before")
    assert found[node(9)].reason == "it fetched from this node"


receivers = st.sampled_from([DEVICE, ON_ITS_OWN, THE_POINT, Place(node=PC, role="device", site=WEST)])


@given(
    receivers,
    st.lists(st.sampled_from([ORIGIN, EAST, WEST, EMEA, PARIS, MATE]), unique=True),
    st.dictionaries(st.sampled_from([ORIGIN, EAST, MATE, node(9)]), st.integers(0, 10)),
    st.sets(st.sampled_from([EAST, WEST, EMEA, PARIS])),
)
def test_every_source_is_explained_once_and_every_byte_is_counted_once(
    receiver: Place, listed: list[NodeId], bytes_from: dict[NodeId, int], offline: set[NodeId]
) -> None:
    def role(name: NodeId) -> Role:
        return "origin" if name == ORIGIN else "device" if name in (MATE, node(9)) else "point"

    points = tuple(point(k.grant.node, k.grant.scope, online=k.grant.node not in offline) for k in POINTS)
    reported = tuple(candidate(name, role(name)) for name in listed)
    counted = tuple(came(name, role(name), n) for name, n in bytes_from.items())
    found = explained(receiver, points=points, reported=reported, counted=counted)
    wanted = {ORIGIN, EAST, WEST, EMEA, PARIS, *listed, *bytes_from} - {receiver.node}
    assert found.keys() == wanted
    assert all(source.reason for source in found.values())
    assert sum(source.received for source in found.values()) == sum(
        n for name, n in bytes_from.items() if name != receiver.node
    )


@given(receivers)
def test_before_a_report_a_source_is_taken_only_if_the_rules_take_it(receiver: Place) -> None:
    for name, source in explained(receiver, reported=None).items():
        place = Place(node=name, role=source.role, site="origin" if name == ORIGIN else name)  # type: ignore[arg-type]
        assert source.taken == verdict(receiver, place)[0]


def test_a_node_belongs_to_the_point_that_carries_it_or_would() -> None:
    grants = [known.grant for known in POINTS]
    berlin = GroupPath("/emea/berlin")

    def site(name: NodeId, **how: object) -> str:
        fields = {"carrier": "", "direct": False, **how}
        return presumed_site(name, berlin, grants, now=NOW, **fields)  # type: ignore[arg-type]

    assert site(EAST) == EAST
    assert site(PC, carrier=WEST) == WEST
    assert site(PC, direct=True) == DIRECT
    assert site(PC) in (EAST, WEST)
    assert presumed_site(PC, GroupPath("/asia"), grants, carrier="", direct=False, now=NOW) == DIRECT


def test_the_stage_is_what_a_person_would_call_it() -> None:
    def stage(said: str | None = None, *, stopped: bool = False, point: bool = False, held: int = 0) -> str:
        return stage_of(said, stopped=stopped, point=point, held=held, length=10)  # type: ignore[arg-type]

    assert stage() == "not begun"
    assert stage("fetching") == "fetching"
    assert stage("fetching", stopped=True) == "stopped"
    assert stage("failed", stopped=True) == "failed"
    assert stage("installing", stopped=True) == "installing"
    assert stage(point=True, held=10) == "held"
    assert stage(point=True, held=4) == "fetching"
    assert stage(held=10) == "not begun"
