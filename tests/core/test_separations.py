"""Who is separated from whom: what one artifact has shown counts for the next."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.separations import Separations
from p2pdist.ids import NodeId, node_id_of
from p2pdist.wire.frames import Presence

NODES = [node_id_of(bytes([number]) * 32) for number in range(limits.SEPARATIONS_MAX + 8)]
ANN, BOB = NODES[:2]


def fetching(*unreached: NodeId, artifact: int = 0, complete: bool = False) -> Presence:
    return Presence(
        info_hash=f"{artifact:064x}",
        pieces=4,
        have=4 if complete else 0,
        complete=complete,
        unreached=list(unreached),
    )


def test_who_could_not_be_reached_is_separated_for_both_also_when_everything_is_there() -> None:
    separations = Separations()
    separations.handle_announced(ANN, [fetching(BOB)], 0.0)
    separations.handle_announced(ANN, [fetching(complete=True)], 1.0)
    assert (separations.of(ANN, 2.0), separations.of(BOB, 2.0)) == ({BOB}, {ANN})


def test_who_was_reached_after_all_is_not() -> None:
    separations = Separations()
    separations.handle_announced(ANN, [fetching(BOB)], 0.0)
    separations.handle_announced(ANN, [fetching()], 1.0)
    assert separations.of(ANN, 2.0) == separations.of(BOB, 2.0) == frozenset()


def test_it_is_forgotten_after_some_minutes_and_when_one_of_the_two_is_gone() -> None:
    separations = Separations()
    separations.handle_announced(ANN, [fetching(BOB)], 0.0)
    assert separations.of(ANN, limits.MEETING_GIVEN_UP_S) == frozenset()
    separations.handle_gone(BOB)
    assert separations.of(ANN, 1.0) == frozenset()


nodes = st.sampled_from(NODES)


@given(st.lists(st.tuples(nodes, st.lists(nodes, max_size=limits.UNREACHED_MAX), st.booleans()), max_size=40))
def test_it_is_mutual_and_bounded_whatever_is_said(said: Sequence[tuple[NodeId, list[NodeId], bool]]) -> None:
    separations = Separations()
    for node, unreached, gone in said:
        separations.handle_announced(node, [fetching(*unreached)], 0.0)
        if gone:
            separations.handle_gone(node)
    whom = {node: separations.of(node, 1.0) for node in NODES}
    assert all(len(others) <= limits.SEPARATIONS_MAX for others in whom.values())
    assert all(node in whom[other] for node, others in whom.items() for other in others)
