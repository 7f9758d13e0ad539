"""A session's stream over paths that come and go."""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.core.session import PathKind, Session
from p2pdist.errors import PeerError, Unavailable, UsageError
from p2pdist.wire.paths import Ack, Data, End, Hello, Reset, StreamFrame

WINDOW = 4 * limits.SESSION_CHUNK_BYTES


def session(*kinds: PathKind, window: int = WINDOW) -> Session:
    """A session with these paths, numbered from 1, on which the other side has said hello."""
    one = Session(0.0, window_bytes=window)
    for number, kind in enumerate(kinds, 1):
        greet(one, number, kind)
    return one


def greet(one: Session, number: int, kind: PathKind, *, received: int = 0) -> None:
    one.handle_path_opened(number, kind)
    assert isinstance(one.poll_frame(number), Hello)
    one.handle_frame(number, Hello(received=received, limit=received + WINDOW))


def sent(one: Session, path: int) -> list[StreamFrame]:
    frames = []
    while (frame := one.poll_frame(path)) is not None:
        frames.append(frame)
    return frames


def test_a_path_begins_with_a_hello_of_both_sides_and_carries_nothing_before_theirs() -> None:
    one = Session(0.0, window_bytes=WINDOW)
    one.write(b"ab")
    one.handle_path_opened(1, "relayed")
    assert sent(one, 1) == [Hello(received=0, limit=WINDOW)]
    assert one.path is None
    one.handle_frame(1, Hello(received=0, limit=WINDOW))
    assert sent(one, 1) == [Data(offset=0, data=b"ab")]
    assert one.path == "relayed"


def test_bytes_come_in_order_once_and_are_acknowledged_when_they_are_read() -> None:
    one = session("relayed")
    one.handle_frame(1, Data(offset=0, data=b"abc"))
    assert sent(one, 1) == []
    assert (one.read(2), one.read(9), one.read(9)) == (b"ab", b"c", b"")
    assert sent(one, 1) == [Ack(received=3, limit=WINDOW + 3)]
    one.handle_frame(1, Data(offset=1, data=b"bcd"))
    assert one.read(9) == b"d"


def test_what_is_written_while_a_better_path_stands_goes_over_it_and_the_rest_is_not_sent_again() -> None:
    one = session("relayed")
    one.write(b"ab")
    assert sent(one, 1) == [Data(offset=0, data=b"ab")]
    greet(one, 2, "punched")
    one.write(b"cd")
    assert sent(one, 1) == []
    assert sent(one, 2) == [Data(offset=2, data=b"cd")]
    assert one.path == "punched"


def test_what_was_under_way_on_a_path_that_died_is_sent_again_over_the_next_best() -> None:
    one = session("relayed", "direct")
    one.write(b"abcd")
    one.write_end()
    assert sent(one, 2) == [Data(offset=0, data=b"abcd"), End(offset=4)]
    one.handle_frame(2, Ack(received=1, limit=WINDOW))
    one.handle_path_closed(2, 5.0)
    assert one.path == "relayed"
    assert sent(one, 1) == [Data(offset=1, data=b"bcd"), End(offset=4)]


def test_a_worse_path_is_kept_in_reserve() -> None:
    one = session("direct", "relayed")
    one.write(b"ab")
    assert sent(one, 2) == []
    assert sent(one, 1) == [Data(offset=0, data=b"ab")]


def test_bytes_that_come_early_over_the_new_path_wait_for_those_on_the_old_one() -> None:
    one = session("relayed", "punched")
    one.handle_frame(2, Data(offset=2, data=b"cd"))
    assert one.read(9) == b""
    one.handle_frame(1, Data(offset=0, data=b"ab"))
    assert one.read(9) == b"abcd"


def test_no_more_is_kept_and_sent_than_the_window_and_the_other_side_allow() -> None:
    one = Session(0.0, window_bytes=WINDOW)
    assert one.room == WINDOW
    one.write(bytes(WINDOW))
    assert one.room == 0
    with pytest.raises(UsageError):
        one.write(b"x")
    one.handle_path_opened(1, "relayed")
    one.handle_frame(1, Hello(received=0, limit=10))
    assert sent(one, 1)[1:] == [Data(offset=0, data=bytes(10))]
    one.handle_frame(1, Ack(received=10, limit=10))
    assert (one.room, sent(one, 1)) == (10, [])


def test_both_sides_are_done_when_each_knows_that_the_other_has_everything() -> None:
    one = session("relayed")
    one.write(b"a")
    one.write_end()
    assert sent(one, 1) == [Data(offset=0, data=b"a"), End(offset=1)]
    one.handle_frame(1, End(offset=0))
    assert one.at_end
    assert not one.done
    assert sent(one, 1) == [Ack(received=1, limit=WINDOW)]
    one.handle_frame(1, Ack(received=2, limit=WINDOW))
    assert one.done


def test_a_session_without_a_path_is_given_up_in_time_and_not_earlier() -> None:
    one = session("relayed")
    assert one.next_deadline() is None
    one.handle_path_closed(1, 100.0)
    deadline = one.next_deadline()
    assert deadline == 100.0 + limits.SESSION_PATHLESS_S
    one.handle_time(deadline - 0.1)
    assert one.failure is None
    one.handle_time(deadline)
    assert isinstance(one.failure, Unavailable)
    assert one.room == 0


def test_a_path_that_returns_in_time_saves_the_session() -> None:
    one = session("relayed")
    one.write(b"ab")
    sent(one, 1)
    one.handle_path_closed(1, 100.0)
    greet(one, 2, "relayed", received=1)
    assert one.next_deadline() is None
    assert sent(one, 2) == [Data(offset=1, data=b"b")]


def test_a_side_that_gives_up_says_why_on_any_path() -> None:
    one = session("relayed")
    one.write(b"ab")
    one.reset("the port is closed")
    assert sent(one, 1) == [Reset(reason="the port is closed")]
    other = session("relayed")
    other.handle_frame(1, Reset(reason="the port is closed"))
    assert "the port is closed" in str(other.failure)


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        ([Data(offset=WINDOW, data=b"x")], "was asked for"),
        ([Ack(received=1, limit=WINDOW)], "says that it has"),
        ([End(offset=5), Data(offset=5, data=b"x")], "after the end"),
        ([End(offset=5), End(offset=6)], "two places"),
        ([Data(offset=0, data=b"ab"), End(offset=1)], "two places"),
        ([Data(offset=2 * n, data=b"x") for n in range(1, limits.SESSION_GAPS_MAX + 2)], "pieces"),
    ],
)
def test_whoever_breaks_the_rules_ends_the_session_and_is_told(frames: list[StreamFrame], what: str) -> None:
    one = session("relayed")
    *before, last = frames
    for frame in before:
        one.handle_frame(1, frame)
    with pytest.raises(PeerError, match=what):
        one.handle_frame(1, last)
    assert isinstance(one.failure, PeerError)
    (told,) = sent(one, 1)
    assert isinstance(told, Reset)


def test_a_path_that_does_not_begin_with_a_hello_ends_the_session() -> None:
    one = Session(0.0)
    one.handle_path_opened(1, "relayed")
    with pytest.raises(PeerError, match="begins with"):
        one.handle_frame(1, Data(offset=0, data=b"x"))


def test_there_are_only_so_many_paths_at_once() -> None:
    one = Session(0.0)
    for number in range(limits.SESSION_PATHS_MAX):
        one.handle_path_opened(number, "relayed")
    with pytest.raises(PeerError):
        one.handle_path_opened(99, "relayed")


class World:
    """Two ends and the paths between them: each keeps the order, delays as it likes, and may die."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ends = (Session(0.0, window_bytes=WINDOW), Session(0.0, window_bytes=WINDOW))
        self.wires: dict[int, tuple[deque[StreamFrame], deque[StreamFrame]]] = {}
        self.wrote = (bytearray(), bytearray())
        self.got = (bytearray(), bytearray())
        self.paths = 0

    def open_path(self) -> None:
        if len(self.wires) < limits.SESSION_PATHS_MAX:
            self.paths += 1
            kind: PathKind = self.random.choice(("direct", "punched", "relayed"))
            self.wires[self.paths] = deque(), deque()
            for end in self.ends:
                end.handle_path_opened(self.paths, kind)

    def close_path(self) -> None:
        """What is on the way is lost; one side may have heard some of it first."""
        if self.wires:
            path = self.random.choice(sorted(self.wires))
            for side in (0, 1):
                for _ in range(self.random.randint(0, 3)):
                    self.deliver(path, side)
            del self.wires[path]
            for end in self.ends:
                end.handle_path_closed(path, 0.0)

    def write(self) -> None:
        side = self.random.randint(0, 1)
        data = self.random.randbytes(min(self.ends[side].room, self.random.randint(0, 40_000)))
        self.ends[side].write(data)
        self.wrote[side].extend(data)

    def read(self) -> None:
        side = self.random.randint(0, 1)
        self.got[side].extend(self.ends[side].read(self.random.randint(1, 40_000)))

    def move(self) -> None:
        if self.wires:
            path = self.random.choice(sorted(self.wires))
            side = self.random.randint(0, 1)
            if frame := self.ends[side].poll_frame(path):
                self.wires[path][side].append(frame)
            self.deliver(path, self.random.randint(0, 1))

    def deliver(self, path: int, side: int) -> None:
        if self.wires[path][side]:
            self.ends[1 - side].handle_frame(path, self.wires[path][side].popleft())

    def finish(self) -> None:
        """One path that stays, and nobody writes any more."""
        if not self.wires:
            self.open_path()
        for end in self.ends:
            end.write_end()
        for _ in range(10_000):
            for path, wires in self.wires.items():
                for side in (0, 1):
                    while frame := self.ends[side].poll_frame(path):
                        wires[side].append(frame)
                    while wires[side]:
                        self.deliver(path, side)
            for side in (0, 1):
                self.got[side].extend(self.ends[side].read(10_000))
            if all(end.done for end in self.ends):
                return
        raise AssertionError("the ends do not agree that everything has come")


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(10, 400))
def test_whatever_happens_to_the_paths_every_byte_comes_once_and_in_order(seed: int, steps: int) -> None:
    world = World(seed)
    for _ in range(steps):
        world.random.choices(
            (world.open_path, world.close_path, world.write, world.read, world.move), (1, 1, 4, 4, 20)
        )[0]()
        for side in (0, 1):
            assert len(world.wrote[side]) - len(world.got[1 - side]) <= 2 * WINDOW
    world.finish()
    assert world.got[1] == world.wrote[0]
    assert world.got[0] == world.wrote[1]
