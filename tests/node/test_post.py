"""A node's own envelopes when its link changes, and what a recipient does with those that come again."""

from __future__ import annotations

from pathlib import Path

import nacl.utils
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId
from p2pdist.node.mail import Mail
from p2pdist.node.post import OwnPost
from p2pdist.trust.sealing import seal
from p2pdist.wire import codec
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Routed, Taken
from p2pdist.wire.messages import FromServer, Received
from tests.node.nodes import Nodes

G, H = NodeId("g" * 32), NodeId("h" * 32)
NOW = 1_800_000_000


class Outlet:
    """A link's end that keeps what is sent on it."""

    def __init__(self) -> None:
        self.frames: list[AnyFrame] = []

    def send_nowait(self, frame: AnyFrame) -> None:
        self.frames.append(frame)

    @property
    def counters(self) -> list[int]:
        return [frame.envelope.counter for frame in self.frames if isinstance(frame, Routed)]


def envelope(counter: int) -> Envelope:
    return Envelope(sender=G, recipient=H, counter=counter, expires=NOW, box=bytes(40))


def test_what_the_neighbour_did_not_answer_for_goes_to_the_next_one_first() -> None:
    post, before, after = OwnPost(), Outlet(), Outlet()
    post.linked(G, before)
    for counter in (1, 2, 3):
        post.send(envelope(counter))
    post.taken(Taken(count=1))
    post.unlinked()
    post.linked(H, after)
    post.send(envelope(4))
    assert (before.counters, after.counters) == ([1, 2, 3], [2, 3, 4])
    post.taken(Taken(count=3))
    post.unlinked()
    post.unlinked()
    post.linked(G, last := Outlet())
    assert last.counters == []


def test_between_links_nothing_is_sent() -> None:
    with pytest.raises(Unavailable):
        OwnPost().send(envelope(1))


def test_a_neighbour_that_answers_for_nothing_gets_no_more_than_the_limit() -> None:
    post, outlet = OwnPost(), Outlet()
    post.linked(G, outlet)
    for counter in range(limits.POST_ENVELOPES_MAX):
        post.send(envelope(counter + 1))
    with pytest.raises(Unavailable):
        post.send(envelope(9_999))
    assert len(outlet.counters) == limits.POST_ENVELOPES_MAX


async def test_what_comes_is_answered_for_also_when_it_is_for_somebody_else() -> None:
    post, outlet = OwnPost(), Outlet()
    post.linked(G, outlet)
    post.settle()
    await post.receive(envelope(1))
    assert outlet.frames == [Taken(count=1), Taken(count=2)]


async def test_the_stamp_of_a_link_is_larger_than_on_any_link_before(nodes: Nodes, tmp_path: Path) -> None:
    home = nodes.home(tmp_path)
    mail = Mail(home)
    first = await mail.stamp()
    sealed = await mail.seal(
        codec.decode(codec.encode(Received(ids=[])), Received),  # type: ignore[arg-type]  # any message will do
        now=NOW,
    )
    assert first < sealed.counter < await mail.stamp() < await Mail(home).stamp()


@given(data=st.data())
@settings(deadline=None)  # it writes to the disk
def test_envelopes_that_are_repeated_and_overtaken_are_each_opened_once_whatever_restarts(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    home = nodes.home(tmp_path_factory.mktemp("node"))
    first = data.draw(st.integers(1, 10_000))
    envelopes = [
        seal(
            codec.encode(Received(ids=[str(number)])),
            key=nodes.server,
            recipient_public=home.key.public,
            counter=first + number,
            expires=NOW + 60,
            nonce=nacl.utils.random(24),
        )
        for number in range(8)
    ]
    order = data.draw(st.permutations([*range(8), *range(8), *range(8)]))
    restarts = data.draw(st.sets(st.integers(0, len(order))))

    async def open_all() -> list[FromServer]:
        mail, opened = Mail(home), []
        for place, number in enumerate(order):
            if place in restarts:
                mail = Mail(home)
            message = mail.open(envelopes[number], now=NOW)
            if message is not None:
                opened.append(message)
                await mail.dealt_with(envelopes[number])
        return opened

    opened = trio.run(open_all)
    assert sorted(message.ids for message in opened if isinstance(message, Received)) == [
        [str(number)] for number in range(8)
    ]
