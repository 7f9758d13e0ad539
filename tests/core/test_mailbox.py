"""Which envelopes a gateway takes, in which order they leave, and when they are let go."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pdist import limits
from p2pdist.core.mailbox import Letter, Mailbox, Space
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId

SERVER = NodeId("s" * 32)
A, B, C = (NodeId(letter * 32) for letter in "abc")
LATER = 1_900_000_000
SMALL = Space(envelopes=80, size_bytes=80_000, pair_envelopes=8, pair_bytes=8_000)


def accept(box: Mailbox, sender: NodeId, counter: int, *, size: int = 100, to: NodeId = SERVER) -> Letter:
    via = sender if to == SERVER else SERVER
    return box.accept(sender, to, counter=counter, expires=LATER, size=size, via=via)


def drain(box: Mailbox, recipient: NodeId) -> list[int]:
    """The counters of everything that waits for *recipient*, sent in order."""
    counters = []
    while (letter := box.peek(recipient)) is not None:
        box.sent(letter)
        counters.append(letter.counter)
    return counters


def flood(box: Mailbox, sender: NodeId, *, size: int = 100) -> int:
    """Send until it is refused; return how many were taken."""
    for counter in range(1, 10_000):
        try:
            accept(box, sender, counter, size=size)
        except Unavailable:
            return counter - 1
    raise AssertionError("it takes everything")


def test_each_recipient_gets_its_envelopes_in_the_order_of_their_arrival() -> None:
    box = Mailbox()
    for counter in (5, 3, 9):
        accept(box, SERVER, counter, to=A)
        accept(box, SERVER, counter + 100, to=B)
    assert drain(box, A) == [5, 3, 9]
    assert drain(box, B) == [105, 103, 109]


def test_what_is_under_way_when_a_link_ends_waits_again_at_its_old_place() -> None:
    box = Mailbox()
    letters = [accept(box, A, counter) for counter in (1, 2, 3, 4)]
    assert drain(box, SERVER) == [1, 2, 3, 4]
    box.remove(letters[1].number)
    for letter in reversed(letters):
        box.returned(letter.number)
    assert drain(box, SERVER) == [1, 3, 4]


def test_an_envelope_that_comes_again_while_it_is_here_is_the_same_letter() -> None:
    box = Mailbox()
    assert accept(box, A, 1) is accept(box, A, 1)
    assert len(box) == 1
    assert accept(box, B, 1) is not accept(box, A, 1)


def test_an_envelope_that_comes_again_after_it_has_left_is_a_new_one() -> None:
    box = Mailbox()
    first = accept(box, A, 1)
    box.remove(first.number)
    assert accept(box, A, 1).number > first.number


def test_one_device_cannot_use_more_than_its_own_share() -> None:
    box = Mailbox(space=SMALL)
    assert flood(box, A) == SMALL.pair_envelopes
    assert flood(box, B, size=1_000) == SMALL.pair_bytes // 1_000


def test_however_many_devices_flood_there_is_room_for_another_one() -> None:
    box = Mailbox(space=Space(envelopes=1_000, size_bytes=2**30))
    nodes = [NodeId(f"{number:032d}") for number in range(40)]
    taken = [flood(box, node) for node in nodes]
    assert taken == sorted(taken, reverse=True)
    assert taken[-1] >= 1
    assert accept(box, C, 1)


def test_a_neighbour_that_names_many_senders_leaves_half_of_the_room_to_others() -> None:
    box = Mailbox(space=SMALL)
    names = (NodeId(f"{number:032d}") for number in range(1_000))
    with pytest.raises(Unavailable, match="one neighbour"):
        [box.accept(name, SERVER, counter=1, expires=LATER, size=10, via=C) for name in names]
    assert len(box) == SMALL.envelopes // 2
    assert accept(box, A, 1)


def test_nothing_that_was_accepted_is_pushed_out_by_what_comes_later() -> None:
    box = Mailbox(space=SMALL)
    accept(box, A, 1)
    flood(box, B)
    flood(box, C)
    assert drain(box, SERVER)[0] == 1


def test_what_has_expired_is_let_go_and_its_room_is_free_again() -> None:
    box = Mailbox(space=SMALL)
    for counter in range(1, SMALL.pair_envelopes + 1):
        box.accept(A, SERVER, counter=counter, expires=100 + counter, size=10, via=A)
    assert box.expired(101 + limits.CLOCK_SKEW_S) == []
    late = box.expired(104 + limits.CLOCK_SKEW_S)
    assert [letter.counter for letter in late] == [1, 2, 3]
    for counter in (11, 12, 13):
        accept(box, A, counter)
    with pytest.raises(Unavailable):
        accept(box, A, 14)
    assert drain(box, SERVER) == [4, 5, 6, 7, 8, 11, 12, 13]


def test_after_a_restart_everything_is_at_its_place_and_counts_for_its_sender() -> None:
    before = Mailbox(space=SMALL)
    for counter in range(1, SMALL.pair_envelopes + 1):
        accept(before, A, counter).stored = True
    after = Mailbox(before.letters(), SMALL)
    assert after.size_bytes == before.size_bytes
    with pytest.raises(Unavailable):
        accept(after, A, 99)
    assert drain(after, SERVER) == list(range(1, SMALL.pair_envelopes + 1))


class Post(RuleBasedStateMachine):
    """The mailbox against plain queues."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Mailbox(space=SMALL)
        self.waiting: dict[NodeId, deque[int]] = {SERVER: deque(), A: deque(), B: deque()}
        self.under_way: dict[NodeId, list[int]] = {SERVER: [], A: [], B: []}
        self.counter = 0

    @rule(
        pair=st.sampled_from([(A, SERVER), (B, SERVER), (SERVER, A), (SERVER, B)]), size=st.integers(1, 3_000)
    )
    def arrives(self, pair: tuple[NodeId, NodeId], size: int) -> None:
        self.counter += 1
        try:
            letter = accept(self.box, pair[0], self.counter, to=pair[1], size=size)
        except Unavailable:
            return
        self.waiting[pair[1]].append(letter.number)

    @rule(recipient=st.sampled_from([SERVER, A, B]))
    def is_sent(self, recipient: NodeId) -> None:
        letter = self.box.peek(recipient)
        waiting = self.waiting[recipient]
        assert (letter.number if letter else None) == (waiting[0] if waiting else None)
        if letter is not None:
            self.box.sent(letter)
            self.under_way[recipient].append(waiting.popleft())

    @rule(recipient=st.sampled_from([SERVER, A, B]), data=st.data())
    def link_ends(self, recipient: NodeId, data: st.DataObject) -> None:
        flying = self.under_way[recipient]
        self.under_way[recipient] = []
        for number in data.draw(st.permutations(flying)):
            self.box.returned(number)
        self.waiting[recipient] = deque(sorted([*flying, *self.waiting[recipient]]))

    @precondition(lambda self: any(self.under_way.values()))
    @rule(data=st.data())
    def is_taken(self, data: st.DataObject) -> None:
        recipient = data.draw(st.sampled_from([r for r, flying in self.under_way.items() if flying]))
        number = self.under_way[recipient].pop(0)
        removed = self.box.remove(number)
        assert removed is not None and removed.number == number
        assert self.box.remove(number) is None

    @invariant()
    def nothing_is_lost_and_nothing_is_above_its_bounds(self) -> None:
        here = {n for each in (*self.waiting.values(), *self.under_way.values()) for n in each}
        assert {letter.number for letter in self.box.letters()} == here
        assert len(self.box) <= SMALL.envelopes
        assert self.box.size_bytes == sum(letter.size for letter in self.box.letters()) <= SMALL.size_bytes
        assert set(self.box.recipients()) == {r for r, waiting in self.waiting.items() if waiting}


TestPost = Post.TestCase
TestPost.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
