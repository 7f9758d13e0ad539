"""A few times in a while, and no more."""

from __future__ import annotations

from p2pdist.core.throttle import Throttle
from p2pdist.ids import NodeId

ONE, OTHER = NodeId("a" * 32), NodeId("b" * 32)


def test_a_node_may_do_something_a_few_times_and_again_once_the_first_is_long_ago() -> None:
    throttle = Throttle(2, 10.0)
    assert [throttle.allows(ONE, now) for now in (0, 1, 2, 9.9, 10, 10.5, 11)] == [
        True, True, False, False, True, False, True,
    ]  # fmt: skip


def test_nodes_do_not_count_for_one_another() -> None:
    throttle = Throttle(1, 10.0)
    assert [throttle.allows(node, 0.0) for node in (ONE, OTHER, ONE)] == [True, True, False]
