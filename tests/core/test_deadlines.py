"""Deadlines of many things: what is due is what a look at all of them finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.core.deadlines import Deadlines

changes = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 5), st.one_of(st.none(), st.floats(0, 10))),
        st.tuples(st.just("take"), st.floats(0, 10)),
    ),
    max_size=60,
)


@given(changes)
def test_they_are_what_a_look_at_all_keys_finds(script: list[tuple[object, float | None]]) -> None:
    deadlines: Deadlines[object] = Deadlines()
    known: dict[object, float] = {}
    for key, at in script:
        if key == "take":
            assert at is not None
            due = {each for each, then in known.items() if then <= at}
            assert set(deadlines.take(at)) == due
            known = {each: then for each, then in known.items() if each not in due}
        else:
            known.pop(key, None)
            if at is not None:
                known[key] = at
            deadlines.set(key, at)
        assert deadlines.first() == min(known.values(), default=None)


def test_a_key_that_is_given_deadline_after_deadline_takes_no_more_room() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for number in range(10_000):
        deadlines.set("one", float(number))
    assert len(deadlines._heap) < 100
