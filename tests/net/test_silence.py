"""When a neighbour is asked for a sign of life, and when it is given up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.net.silence import Silence

KEEPALIVE_S = limits.LINK_KEEPALIVE_S
GIVEN_UP_S = limits.LINK_AWAITED_S + 2 * limits.LINK_ANSWER_S


def silence() -> Silence:
    return Silence(keepalive_s=KEEPALIVE_S, now=0.0)


def play(one: Silence, until: float) -> list[tuple[float, str]]:
    """Look whenever it says so; return what it said."""
    said = []
    while (now := one.next_look()) <= until:
        verdict = one.look(now)
        said.append((now, verdict))
        if verdict == "gone":
            break
    return said


def test_while_nobody_waits_a_silent_neighbour_is_asked_rarely_and_given_up_late() -> None:
    assert play(silence(), 100.0) == [(20.0, "ask"), (40.0, "ask"), (45.0, "gone")]


def test_a_neighbour_that_is_waited_for_is_asked_twice_and_given_up_within_seconds() -> None:
    one = silence()
    one.awaited(10.0)
    assert play(one, 100.0) == [(11.0, "ask"), (13.5, "ask"), (16.0, "gone")]


def test_the_silence_before_anybody_waited_does_not_count_against_it() -> None:
    one = silence()
    assert play(one, 44.0) == [(20.0, "ask"), (40.0, "ask")]
    one.awaited(41.0)
    assert one.look(41.0) == "fine"
    assert play(one, 44.0) == [(42.0, "ask")]


def test_any_sign_of_life_begins_the_patience_anew() -> None:
    one = silence()
    one.awaited(0.0)
    assert play(one, 5.0) == [(1.0, "ask"), (3.5, "ask")]
    one.heard(5.0)
    assert play(one, 10.0) == [(6.0, "ask"), (8.5, "ask")]


def test_when_nobody_waits_any_more_it_has_all_the_time_again() -> None:
    one = silence()
    one.awaited(0.0)
    assert play(one, 5.0) == [(1.0, "ask"), (3.5, "ask")]
    one.not_awaited()
    assert play(one, 30.0) == [(23.5, "ask")]


def test_whoever_waits_next_does_not_begin_anew_with_its_patience() -> None:
    one = silence()
    one.awaited(0.0)
    assert play(one, 5.0) == [(1.0, "ask"), (3.5, "ask")]
    one.not_awaited()
    one.awaited(5.5)
    assert play(one, 60.0) == [(6.0, "gone")]


def test_the_answer_may_take_as_long_as_what_was_sent_before_the_question_is_arriving() -> None:
    one = silence()
    one.awaited(0.0)
    assert play(one, 3.0) == [(1.0, "ask")]
    one.arriving(3.5)
    assert play(one, 5.5) == []
    one.arriving(6.0)
    assert play(one, 60.0) == [(8.5, "ask"), (11.0, "gone")]


def test_whoever_was_stopped_itself_asks_once_more_before_it_gives_anybody_up() -> None:
    one = silence()
    one.awaited(0.0)
    assert one.look(1.0) == "ask"
    assert one.look(40.0) == "ask"
    assert one.look(40.1) == "fine"


def test_who_has_few_neighbours_is_asked_soon_and_given_up_within_ten_seconds_though_nobody_waits() -> None:
    one = silence()
    one.paced(limits.LINK_PACES_S[0])
    assert play(one, 100.0) == [(3.0, "ask"), (5.5, "ask"), (8.0, "gone")]


@given(
    st.lists(
        st.tuples(st.sampled_from(["heard", "awaited", "not_awaited", "arriving", "look"]), st.floats(0, 30))
    )
)
def test_a_neighbour_is_given_up_only_after_seconds_without_a_sign_of_life(
    events: list[tuple[str, float]],
) -> None:
    one, now, heard = silence(), 0.0, 0.0
    for event, passed in events:
        now += passed
        if event == "look":
            if one.look(now) == "gone":
                assert now - heard >= GIVEN_UP_S - 1e-6
                return
            continue
        if event == "heard":
            heard = now
            one.heard(now)
        elif event == "awaited":
            one.awaited(now)
        elif event == "arriving":
            one.arriving(now)
        else:
            one.not_awaited()
        assert one.next_look() <= heard + limits.LINK_DEAD_AFTER_S
