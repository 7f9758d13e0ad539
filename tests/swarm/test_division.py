"""How points divide an artifact's pieces among themselves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.ids import NodeId, node_id_of
from p2pdist.swarm.division import OTHER_PART, OWN_PART, points_among, priorities
from p2pdist.swarm.model import Source
from p2pdist.wire.frames import Role

NODES = [node_id_of(bytes([number]) * 32) for number in range(6)]


def source(node: NodeId, role: Role) -> Source:
    return Source(node=node, role=role, host="192.0.2.1", port=7602)


def test_the_origin_and_devices_have_no_part() -> None:
    sources = [source(NODES[1], "origin"), source(NODES[2], "device"), source(NODES[3], "point")]
    assert set(points_among(NODES[0], sources)) == {NODES[0], NODES[3]}


@given(st.lists(st.sampled_from(NODES), min_size=1, unique=True), st.integers(0, 200))
def test_points_that_know_each_other_prefer_each_piece_at_one_of_them_and_refuse_none(
    nodes: list[NodeId], pieces: int
) -> None:
    seen = [
        priorities(node, points_among(node, [source(n, "point") for n in nodes]), pieces) for node in nodes
    ]
    for piece in range(pieces):
        assert sorted(each[piece] for each in seen) == [OTHER_PART] * (len(nodes) - 1) + [OWN_PART]
