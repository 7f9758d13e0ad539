"""Who lied when a piece is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.assembly import Assembly, Part, Partial

RIGHT = bytes(range(100))


class Case:
    def __init__(self) -> None:
        self.liars: list[str] = []
        self.assembly = Assembly(lambda piece, data: data == RIGHT, lambda url, piece: self.liars.append(url))

    def judge(self, *parts: tuple[str, bytes], piece: int = 0) -> bool:
        return self.assembly.judge(piece, partial(parts)) is not None


def partial(parts: Sequence[tuple[str, bytes]]) -> Partial:
    made = Partial()
    for url, data in parts:
        made.append(url, "", memoryview(data))
    return made


def test_a_right_piece_says_which_part_came_from_whom() -> None:
    piece = Case().assembly.judge(3, partial([("a", RIGHT[:10]), ("a", RIGHT[10:60]), ("b", RIGHT[60:])]))
    assert piece is not None
    assert (piece.piece, piece.data, piece.parts) == (3, RIGHT, (Part("a", 0), Part("b", 60)))


def test_a_wrong_piece_convicts_the_only_mirror_that_it_came_from() -> None:
    case = Case()
    assert not case.judge(("a", RIGHT[:-1] + b"x"))
    assert case.liars == ["a"]


def test_a_wrong_piece_of_two_mirrors_convicts_nobody_until_it_comes_whole_from_one() -> None:
    case = Case()
    assert not case.judge(("a", RIGHT[:50]), ("b", bytes(50)))
    assert case.liars == []
    assert not case.assembly.may_go_on(0, partial([("a", RIGHT[:50])]), "b")
    assert case.assembly.may_go_on(0, partial([("a", RIGHT[:50])]), "a")
    assert case.judge(("a", RIGHT))
    assert case.liars == ["b"]
    assert case.assembly.may_go_on(0, partial([("a", RIGHT[:50])]), "c")


def test_the_one_that_is_asked_for_the_whole_piece_may_be_the_liar() -> None:
    case = Case()
    assert not case.judge(("a", RIGHT[:50]), ("b", bytes(50)))
    assert not case.judge(("b", bytes(100)))
    assert case.liars == ["b"]
    assert case.judge(("a", RIGHT))
    assert case.liars == ["b", "b"]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), min_size=1, max_size=8),
    st.sets(st.integers(0, 3)),
)
def test_only_liars_are_convicted_whatever_the_parts(plan: list[tuple[int, int]], liars: set[int]) -> None:
    case = Case()
    parts: list[tuple[str, bytes]] = []
    at = 0
    for mirror, count in [*plan, (0, 100)]:
        true = RIGHT[at : at + count]
        parts.append((str(mirror), bytes(b ^ 1 for b in true) if mirror in liars else true))
        at += len(true)
    case.judge(*(part for part in parts if part[1]))
    case.judge(("honest", RIGHT))
    assert set(case.liars) <= {str(mirror) for mirror in liars}
    used = {url for url, data in parts if data}
    assert set(case.liars) == {str(mirror) for mirror in liars} & used


def test_what_is_kept_to_tell_who_lied_is_bounded() -> None:
    case = Case()
    for piece in range(3 * limits.MIRROR_REFUSED_KEPT):
        case.judge(("a", RIGHT[:50]), ("b", bytes(50)), piece=piece)
    assert len(case.assembly._refused) == limits.MIRROR_REFUSED_KEPT
