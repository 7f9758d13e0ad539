"""Which neighbour a node dials, scripted as events at times."""

from __future__ import annotations

import pytest

from p2pdist.core.upstream import (
    RETRY_FIRST_S,
    RETRY_MAX_S,
    SERVER_DELAY_S,
    SHUNNED_FIRST_S,
    SHUNNED_MAX_S,
    Upstream,
    UpstreamChooser,
)
from p2pdist.ids import node_id_of

POINT = Upstream(node=node_id_of(b"p" * 32), host="192.0.2.1", port=7443, kind="point")
SPARE = Upstream(node=node_id_of(b"q" * 32), host="192.0.2.2", port=7443, kind="point")
SERVER = Upstream(node=node_id_of(b"s" * 32), host="192.0.2.3", port=7443, kind="server")


def chooser(*candidates: Upstream, spread: float = 0.5) -> UpstreamChooser:
    made = UpstreamChooser(spread=spread)
    made.set_candidates(candidates, now=0.0)
    return made


def test_the_best_candidate_is_dialled_first() -> None:
    assert chooser(POINT, SPARE, SERVER).next(0.0)[0] == POINT


def test_a_node_that_knows_only_the_server_dials_it_at_once() -> None:
    assert chooser(SERVER).next(0.0)[0] == SERVER


def test_when_a_point_fails_its_alternative_is_tried_at_once() -> None:
    made = chooser(POINT, SPARE, SERVER)
    made.failed(POINT, 0.0)
    assert made.next(0.0)[0] == SPARE


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_the_server_is_the_last_resort_after_a_delay_of_seconds_that_differs_by_node(spread: float) -> None:
    made = chooser(POINT, SERVER, spread=spread)
    made.connected(POINT)
    made.lost(POINT, 100.0)
    for _ in range(3):
        made.failed(POINT, 100.0)
    candidate, wake = made.next(100.0 + SERVER_DELAY_S * (1 + spread) - 0.01)
    assert candidate != SERVER
    assert wake <= 100.0 + SERVER_DELAY_S * (1 + spread) + RETRY_MAX_S
    made.failed(POINT, 100.0 + SERVER_DELAY_S * 2)
    assert made.next(100.0 + SERVER_DELAY_S * (1 + spread) + 0.01)[0] == SERVER


def test_repeated_failures_wait_longer_up_to_a_limit() -> None:
    made = chooser(SERVER)
    waits = []
    for _ in range(12):
        made.failed(SERVER, 0.0)
        waits.append(made.next(0.0)[1])
    assert waits == sorted(waits)
    assert 0 < waits[0] < waits[-1] <= RETRY_MAX_S


def test_while_attached_to_the_server_a_point_is_tried_again() -> None:
    made = chooser(POINT, SERVER)
    made.failed(POINT, 0.0)
    made.connected(SERVER)
    assert made.better(SERVER, 0.0)[0] is None
    assert made.better(SERVER, RETRY_MAX_S)[0] == POINT


def test_nothing_is_better_than_the_best() -> None:
    made = chooser(POINT, SERVER)
    made.connected(POINT)
    assert made.better(POINT, 1000.0)[0] is None


def test_a_candidate_that_stays_in_a_new_list_keeps_its_back_off() -> None:
    made = chooser(POINT, SERVER)
    made.failed(POINT, 0.0)
    made.set_candidates([POINT, SPARE, SERVER], 0.0)
    assert made.next(0.0)[0] == SPARE


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_a_point_that_fell_silent_is_dialled_again_only_after_everybody_else(spread: float) -> None:
    made = chooser(POINT, SPARE, SERVER, spread=spread)
    made.connected(POINT)
    made.lost(POINT, 100.0, silent=True)
    assert made.next(100.0)[0] == SPARE

    alone = chooser(POINT, SERVER, spread=spread)
    alone.connected(POINT)
    alone.lost(POINT, 100.0, silent=True)
    nobody, wake = alone.next(100.0)
    assert nobody is None
    assert alone.next(wake)[0] == SERVER
    alone.failed(SERVER, wake)
    assert alone.next(wake + RETRY_FIRST_S)[0] == POINT


def test_a_point_that_is_shunned_comes_last_even_behind_the_server() -> None:
    made = chooser(POINT, SERVER)
    made.connected(POINT)
    made.shun(POINT.node, 100.0)
    made.lost(POINT, 100.0)
    assert made.next(109.0)[0] == SERVER
    assert made.next(109.0, {SERVER})[0] is None, "nobody has failed yet"


def test_a_point_that_is_shunned_is_used_while_nobody_else_answers() -> None:
    made = chooser(POINT, SERVER)
    made.shun(POINT.node, 100.0)
    made.failed(SERVER, 100.0)
    assert made.next(100.1)[0] == POINT


def test_from_a_point_that_is_shunned_everybody_else_is_better_and_it_is_better_than_nobody() -> None:
    made = chooser(POINT, SPARE, SERVER)
    made.shun(POINT.node, 100.0)
    assert made.better(POINT, 100.0)[0] == SPARE
    assert made.better(SPARE, 100.0)[0] is None


def test_a_point_is_shunned_for_longer_each_time_until_it_does_its_work() -> None:
    made = chooser(POINT, SPARE)
    made.shun(POINT.node, 0.0)
    assert made.next(SHUNNED_FIRST_S - 1)[0] == SPARE
    assert made.next(SHUNNED_FIRST_S)[0] == POINT
    made.shun(POINT.node, 100.0)
    assert made.next(100.0 + 2 * SHUNNED_FIRST_S - 1)[0] == SPARE
    made.proved(POINT.node)
    assert made.next(101.0)[0] == POINT
    made.shun(POINT.node, 200.0)
    assert made.next(200.0 + SHUNNED_FIRST_S)[0] == POINT


def test_whoever_leaves_points_in_vain_waits_longer_before_it_leaves_the_next() -> None:
    made = chooser(POINT, SPARE)
    waits = [made.patience()]
    for number in range(12):
        made.shun((POINT, SPARE)[number % 2].node, 0.0)
        waits.append(made.patience())
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (SHUNNED_FIRST_S, 2 * SHUNNED_FIRST_S, SHUNNED_MAX_S)


def test_what_is_being_dialled_is_not_dialled_again() -> None:
    made = chooser(POINT, SPARE)
    assert made.next(0.0, {POINT})[0] == SPARE
    assert made.next(0.0, {POINT, SPARE})[0] is None


def test_in_another_network_everybody_is_tried_afresh() -> None:
    made = chooser(POINT, SPARE)
    for _ in range(5):
        made.failed(POINT, 10.0)
    assert made.next(10.0)[0] == SPARE
    made.network_changed(10.0)
    assert made.next(10.0)[0] == POINT
