"""What `p2pdist path` says of a session: the reason belongs to the path that it names."""

from __future__ import annotations

import pytest

from p2pdist.cli.path import reason_for
from p2pdist.core.session import PathKind
from p2pdist.net.punching import Attempt
from p2pdist.net.rtc.report import PunchReport, TriedCandidate

HERE = TriedCandidate(kind="host", host="10.0.0.1", port=1)
THERE = TriedCandidate(kind="host", host="10.0.0.2", port=2)
THEIR_NAT = TriedCandidate(kind="srflx", host="203.0.113.2", port=2)
UDP_BLOCKED = "UDP does not get through on the device's side"


def direct(number: int) -> Attempt:
    return Attempt(number=number, path="direct", seconds=0.1, report=PunchReport(pair=(HERE, THERE)))


def punched(number: int) -> Attempt:
    return Attempt(number=number, path="punched", seconds=0.1, report=PunchReport(pair=(HERE, THEIR_NAT)))


def failed(number: int) -> Attempt:
    return Attempt(number=number, path=None, seconds=10, report=PunchReport(failure="nobody answered"))


def why(
    path: PathKind | None,
    *attempts: Attempt,
    opened: set[PathKind] | None = None,
    obstacle: str | None = None,
) -> str:
    return reason_for(path, attempts, opened=opened or {"relayed"}, obstacle=obstacle, wait_s=12)


def test_a_better_path_is_explained_by_the_way_that_it_goes() -> None:
    assert why("direct", direct(1)) == "no NAT between 10.0.0.1:1 and 10.0.0.2:2"
    assert why("punched", punched(1)).startswith("this machine is 10.0.0.1:1, a NAT shows the device as 203.")


@pytest.mark.parametrize("later", [failed(2), punched(2)], ids=["failed", "gave another kind"])
def test_a_path_that_came_of_an_older_attempt_is_explained_by_that_one(later: Attempt) -> None:
    assert why("direct", direct(1), later, obstacle=UDP_BLOCKED) == "no NAT between 10.0.0.1:1 and 10.0.0.2:2"


def test_a_session_that_stays_relayed_says_what_the_nats_say_or_what_the_attempt_did() -> None:
    assert why("relayed", failed(1), obstacle=UDP_BLOCKED) == UDP_BLOCKED
    assert why("relayed", failed(1)) == "nobody answered"
    assert why("relayed") == "nothing better in 12 s"


def test_a_session_that_has_fallen_back_says_so_and_names_what_was_lost() -> None:
    said = why("relayed", direct(1))
    assert said == (
        "the direct path was lost, and is looked for again (no NAT between 10.0.0.1:1 and 10.0.0.2:2)"
    )
    assert why("relayed", direct(1), failed(2), obstacle=UDP_BLOCKED) == UDP_BLOCKED


def test_a_path_that_stands_and_is_not_used_yet_is_not_called_lost() -> None:
    assert why("relayed", direct(1), opened={"relayed", "direct"}).startswith(
        "the direct path has not taken over"
    )


def test_a_session_without_any_path_says_so_whatever_was_tried() -> None:
    for attempts in ([], [direct(1)], [failed(1)]):
        assert why(None, *attempts) == "every path is lost; without one the session ends after 60 s"
