"""Which of its sources a node could not reach."""

from __future__ import annotations

import math

from p2pdist import limits
from p2pdist.ids import node_id_of
from p2pdist.swarm.model import Source
from p2pdist.swarm.reach import DIAL_S, NEAR_S, Reach
from p2pdist.wire.frames import Endpoint, Path

NODE = node_id_of(bytes(32))
OTHERS = (Endpoint(host="10.0.0.1", port=1), Endpoint(host="10.0.0.2", port=1))


def told(path: Path = "direct", endpoints: tuple[Endpoint, ...] = (), *, at_once: bool = False) -> Reach:
    reach = Reach()
    reach.handle_sources(
        [Source(node=NODE, role="device", host="192.0.2.1", port=1, path=path, endpoints=endpoints)],
        0.0,
        at_once=at_once,
    )
    return reach


def test_a_source_is_missed_when_it_is_not_connected_in_time() -> None:
    reach = told()
    reach.handle_linked({}, DIAL_S - 0.1)
    assert reach.unreached == ()
    reach.handle_linked({}, DIAL_S)
    assert reach.unreached == (NODE,)


def test_a_neighbour_that_is_dialled_at_once_is_missed_as_soon_as_it_should_have_answered() -> None:
    reach = told(at_once=True)
    assert reach.next_look(0.0) == NEAR_S
    reach.handle_linked({}, NEAR_S)
    assert reach.unreached == (NODE,)


def test_a_neighbour_that_has_answered_is_given_time_to_be_connected() -> None:
    reach = told(at_once=True)
    reach.handle_linked({}, NEAR_S, answering={"192.0.2.1"})
    assert reach.unreached == ()
    assert reach.next_look(NEAR_S) == DIAL_S
    reach.handle_linked({}, DIAL_S, answering={"192.0.2.1"})
    assert reach.unreached == (NODE,)


def test_nobody_is_waited_for_who_is_connected_or_missed() -> None:
    reach = told(at_once=True)
    reach.handle_linked({NODE: "direct"}, 0.1)
    assert reach.next_look(0.1) == math.inf
    reach.handle_linked({}, 0.2)
    reach.handle_linked({}, 0.1 + DIAL_S)
    assert reach.unreached == (NODE,)
    assert reach.next_look(0.1 + DIAL_S) == math.inf


def test_it_stays_missed_while_it_is_called_and_until_it_is_connected() -> None:
    reach = told()
    reach.handle_linked({}, DIAL_S)
    reach.handle_called(NODE, 2.0)
    reach.handle_linked({}, 2.1)
    assert reach.unreached == (NODE,)
    reach.handle_linked({NODE: "punched"}, 3.0)
    assert reach.unreached == ()
    assert reach.paths == {NODE: "punched"}


def test_one_that_was_missed_for_another_artifact_is_missed_at_once_until_it_is_connected() -> None:
    other, reach = told(), told()
    other.handle_linked({}, DIAL_S)
    reach.handle_missed_elsewhere(other.missed_since(DIAL_S + 1.0))
    assert reach.unreached == (NODE,)
    reach.handle_linked({NODE: "direct"}, DIAL_S + 2.0)
    reach.handle_missed_elsewhere(other.missed_since(DIAL_S + 3.0))
    assert reach.unreached == ()


def test_who_was_missed_for_another_artifact_long_ago_or_is_no_source_is_not_missed() -> None:
    other, reach = told(), Reach()
    other.handle_linked({}, DIAL_S)
    assert other.missed_since(DIAL_S + limits.MEETING_GIVEN_UP_S) == {}
    reach.handle_missed_elsewhere(other.missed_since(DIAL_S))
    assert reach.unreached == ()


def test_one_that_is_to_be_called_is_given_the_time_that_a_call_takes() -> None:
    reach = told("punched")
    reach.handle_linked({}, limits.CALL_ANSWER_S)
    assert reach.unreached == ()


def test_of_one_that_is_to_be_called_the_first_address_is_not_tried_again() -> None:
    reach = told("punched", OTHERS)
    assert reach.next_endpoints(DIAL_S) == [OTHERS[1]]
    assert reach.next_endpoints(10 * DIAL_S) == []


def test_its_other_addresses_are_tried_one_after_the_other_before_it_is_missed() -> None:
    reach = told(endpoints=OTHERS)
    tried, now = [], 0.0
    while not reach.unreached and now < 10:
        now += 0.5
        tried += reach.next_endpoints(now)
        reach.handle_linked({}, now)
    assert tuple(tried) == OTHERS
