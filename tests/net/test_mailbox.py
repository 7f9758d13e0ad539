"""A gateway's mailbox between links: what comes in leaves it in order, and only with a receipt."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from p2pdist import limits
from p2pdist.core.mailbox import Space
from p2pdist.errors import PeerError, Unavailable
from p2pdist.ids import NodeId
from p2pdist.net import mailbox, mailfile
from p2pdist.net.mailbox import Mailbox, open_mailbox
from p2pdist.net.mailfile import MailFile, aside
from p2pdist.wire.envelope import Envelope
from p2pdist.wire.frames import AnyFrame, Routed, Taken

pytestmark = pytest.mark.slow  # a disk that keeps what it says

SERVER = NodeId("s" * 32)
A, B = NodeId("a" * 32), NodeId("b" * 32)
PATIENCE_S = 10.0


def envelope(
    counter: int, sender: NodeId = A, recipient: NodeId = SERVER, *, life_s: int = 3_600
) -> Envelope:
    return Envelope(
        sender=sender,
        recipient=recipient,
        counter=counter,
        expires=int(time.time()) + life_s,
        box=counter.to_bytes(40, "big"),
    )


class Neighbour:
    """A link's end that keeps what is sent on it, and is as full as the test says."""

    def __init__(self) -> None:
        self.counters: list[int] = []
        self.receipts: list[Taken] = []
        self.full = False
        self._changed = trio.Event()

    def send_nowait(self, frame: AnyFrame) -> None:
        if self.full:
            raise Unavailable("it does not read fast enough")
        if isinstance(frame, Routed):
            self.counters.append(frame.envelope.counter)
        elif isinstance(frame, Taken):
            self.receipts.append(frame)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not condition():
                self._changed = trio.Event()
                await self._changed.wait()

    async def has(self, *counters: int) -> None:
        """Wait until exactly these have come."""
        await self.until(lambda: len(self.counters) >= len(counters))
        assert self.counters == list(counters)

    async def receipt(self, count: int) -> None:
        """Wait for the receipt for so many."""
        await self.until(lambda: bool(self.receipts) and self.receipts[-1].count >= count)
        assert self.receipts[-1].count == count


class Post:
    """An open mailbox, and through whom each node is reached (itself unless the test says otherwise)."""

    def __init__(self) -> None:
        self.mailbox: Mailbox
        self.through: dict[NodeId, NodeId] = {}
        self.nursery: trio.Nursery

    async def written(self) -> None:
        """Wait until everything that was accepted is on the disk."""
        with trio.fail_after(PATIENCE_S):
            while self.mailbox.statistics().unstored:
                await trio.sleep(0.005)


@asynccontextmanager
async def opened(path: Path, space: Space | None = None) -> AsyncIterator[Post]:
    post = Post()
    async with (
        open_mailbox(
            path / "mailbox.db", way=lambda node: post.through.get(node, node), space=space
        ) as opened_mailbox,
        trio.open_nursery() as nursery,
    ):
        post.mailbox = opened_mailbox
        nursery.start_soon(opened_mailbox.run)
        yield post
        nursery.cancel_scope.cancel()


async def test_what_comes_for_a_neighbour_with_a_link_goes_on_at_once(tmp_path: Path) -> None:
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below, post.mailbox.hop(SERVER, server):
            await below.receive(envelope(1))
            assert server.counters == [1]


async def test_what_is_taken_before_it_is_written_never_touches_the_disk_and_has_its_receipt(
    tmp_path: Path,
) -> None:
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below, post.mailbox.hop(SERVER, server) as above:
            for counter in (1, 2, 3):
                await below.receive(envelope(counter))
            above.taken(Taken(count=3))
            await device.receipt(3)
        assert post.mailbox.statistics().written == 0
        assert post.mailbox.statistics().envelopes == 0


async def test_what_cannot_leave_has_its_receipt_once_it_is_on_the_disk(tmp_path: Path) -> None:
    device = Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            for counter in (1, 2, 3):
                await below.receive(envelope(counter))
            assert device.receipts == []
            await device.receipt(3)
        statistics = post.mailbox.statistics()
        assert (statistics.written, statistics.transactions, statistics.envelopes) == (3, 1, 3)


async def test_after_a_restart_what_waited_leaves_in_order_and_nothing_of_it_stays(tmp_path: Path) -> None:
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            for counter in range(1, 201):
                await below.receive(envelope(counter))
            await device.receipt(200)
    async with opened(tmp_path) as post:
        assert post.mailbox.statistics().envelopes == 200
        with post.mailbox.hop(SERVER, server) as above:
            post.mailbox.look(SERVER)
            await server.has(*range(1, 201))
            above.taken(Taken(count=200))
    async with opened(tmp_path) as post:
        assert post.mailbox.statistics().envelopes == 0


async def test_what_comes_while_older_envelopes_are_read_from_the_disk_waits_behind_them(
    tmp_path: Path,
) -> None:
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            for counter in range(1, 101):
                await below.receive(envelope(counter))
            await device.receipt(100)
            with post.mailbox.hop(SERVER, server):
                post.mailbox.look(SERVER)
                await below.receive(envelope(101))
                await server.has(*range(1, 102))


async def test_what_was_under_way_when_the_link_ended_is_sent_again_over_the_next(tmp_path: Path) -> None:
    device, before, after = Neighbour(), Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            with post.mailbox.hop(SERVER, before) as above:
                for counter in (1, 2, 3, 4):
                    await below.receive(envelope(counter))
                above.taken(Taken(count=2))
            assert before.counters == [1, 2, 3, 4]
            await device.receipt(4)
            with post.mailbox.hop(SERVER, after):
                post.mailbox.look(SERVER)
                await after.has(3, 4)


async def test_each_recipient_has_its_own_queue_and_none_waits_for_another(tmp_path: Path) -> None:
    server, awake = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(SERVER, server) as above, post.mailbox.hop(B, awake):
            for counter in (1, 2, 3):
                await above.receive(envelope(counter, SERVER, A))
                await above.receive(envelope(counter, SERVER, B))
            assert awake.counters == [1, 2, 3]
            await server.receipt(6)


async def test_envelopes_for_nodes_below_a_gateway_take_turns_on_its_link(tmp_path: Path) -> None:
    server, gateway = Neighbour(), Neighbour()
    g = NodeId("g" * 32)
    async with opened(tmp_path) as post:
        with post.mailbox.hop(SERVER, server) as above:
            for recipient, base in ((A, 10), (B, 20)):
                for counter in (1, 2):
                    await above.receive(envelope(base + counter, SERVER, recipient))
            post.through = {A: g, B: g}
            with post.mailbox.hop(g, gateway):
                gateway.full = True
                post.mailbox.look(A)
                post.mailbox.look(B)
                gateway.full = False
                post.mailbox.look(A)
                await gateway.until(lambda: len(gateway.counters) == 4)
    assert [c for c in gateway.counters if c < 20] == [11, 12]
    assert [c for c in gateway.counters if c > 20] == [21, 22]
    assert [c // 10 for c in gateway.counters] in ([1, 2, 1, 2], [2, 1, 2, 1])


async def test_no_more_is_under_way_than_the_window_allows(tmp_path: Path) -> None:
    device, server = Neighbour(), Neighbour()
    most = limits.MAILBOX_FLIGHT_ENVELOPES_MAX
    space = Space(pair_envelopes=10_000)
    async with opened(tmp_path, space) as post:
        with post.mailbox.hop(A, device) as below, post.mailbox.hop(SERVER, server) as above:
            for counter in range(1, most + 11):
                if counter == most:
                    await device.receipt(most - 1)
                await below.receive(envelope(counter))
            assert len(server.counters) == most
            above.taken(Taken(count=4))
            await server.until(lambda: len(server.counters) >= most + 4)
            assert server.counters == list(range(1, most + 5))


async def test_an_envelope_that_is_refused_is_not_taken_and_the_others_are(tmp_path: Path) -> None:
    device = Neighbour()
    async with opened(tmp_path, Space(pair_envelopes=2)) as post:
        with post.mailbox.hop(A, device) as below:
            for counter in (1, 2, 3):
                await below.receive(envelope(counter))
            await device.receipt(3)
        assert [number for receipt in device.receipts for number in receipt.refused] == [3]
        assert post.mailbox.statistics().refused == 1


async def test_what_a_neighbour_had_no_room_for_stays_and_is_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAILBOX_LOOK_S", 0.05)
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below, post.mailbox.hop(SERVER, server) as above:
            await below.receive(envelope(1))
            await below.receive(envelope(2))
            above.taken(Taken(count=2, refused=[1]))
            await server.has(1, 2, 1)
            assert post.mailbox.statistics().envelopes == 1


async def test_a_link_that_is_full_for_a_while_gets_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAILBOX_LOOK_S", 0.05)
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below, post.mailbox.hop(SERVER, server):
            server.full = device.full = True
            await below.receive(envelope(1))
            await post.written()
            server.full = device.full = False
            await server.has(1)
            await device.receipt(1)


async def test_an_envelope_that_comes_twice_is_kept_once_and_both_links_have_their_receipt(
    tmp_path: Path,
) -> None:
    first, second, server = Neighbour(), Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, first) as old, post.mailbox.hop(B, second) as new:
            await old.receive(envelope(1))
            await new.receive(envelope(1))
            await first.receipt(1)
            await second.receipt(1)
            await new.receive(envelope(1))
            await second.receipt(2)
        assert post.mailbox.statistics().envelopes == 1
        with post.mailbox.hop(SERVER, server):
            post.mailbox.look(SERVER)
            await server.has(1)


@pytest.mark.slow
async def test_what_has_expired_is_let_go_where_it_waits_and_on_arrival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAILBOX_LOOK_S", 0.05)
    monkeypatch.setattr(limits, "CLOCK_SKEW_S", 0)
    device = Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            await below.receive(envelope(1, life_s=-5))
            await below.receive(envelope(2, life_s=1))
            await below.receive(envelope(3))
            await device.receipt(3)
        with trio.fail_after(PATIENCE_S):
            while post.mailbox.statistics().expired < 2:
                await trio.sleep(0.02)
    async with opened(tmp_path) as post:
        assert post.mailbox.statistics().envelopes == 1


async def test_a_neighbour_that_gives_receipts_for_nothing_is_at_fault(tmp_path: Path) -> None:
    async with opened(tmp_path) as post:
        with post.mailbox.hop(SERVER, Neighbour()) as above, pytest.raises(PeerError):
            above.taken(Taken(count=1))


# The disk ----------------------------------------------------------------------------------------------


async def test_a_full_disk_refuses_what_is_new_and_loses_nothing_that_has_a_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, server = Neighbour(), Neighbour()
    full = False
    write = MailFile._write

    def limited(self: MailFile, new: object, gone: object) -> None:
        pages = 1 if full else 1_000_000  # SQLite raises it to the present size: nothing can be added
        self._database.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        write(self, new, gone)  # type: ignore[arg-type]

    monkeypatch.setattr(MailFile, "_write", limited)
    monkeypatch.setattr(mailbox, "_STORE_AGAIN_S", 0.01)
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            await below.receive(envelope(1))
            await device.receipt(1)
            full = True
            large = [envelope(counter) for counter in range(2, 40)]
            for each in large:
                await below.receive(msgspec.structs.replace(each, box=bytes(10_000)))
            await device.receipt(39)
            refused = {number for receipt in device.receipts for number in receipt.refused}
            assert refused and refused <= set(range(2, 40))
            full = False
            await below.receive(envelope(40))
            await device.receipt(40)
        kept = sorted(set(range(1, 41)) - refused)
        with post.mailbox.hop(SERVER, server):
            post.mailbox.look(SERVER)
            await server.has(*kept)


@pytest.mark.parametrize("damage", ["garbage", "torn", "foreign"])
async def test_a_damaged_file_is_set_aside_and_the_mailbox_begins_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "mailbox.db"
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device := Neighbour()) as below:
            for counter in range(1, 100):
                await below.receive(envelope(counter))
            await device.receipt(99)
    content = bytearray(path.read_bytes())
    match damage:
        case "garbage":
            path.write_bytes(b"garbage" * 1_000)
        case "torn":
            path.write_bytes(bytes(content[: len(content) // 2]))
        case _:
            path.unlink()
            foreign = sqlite3.connect(path)
            foreign.execute("CREATE TABLE envelope (something)")
            foreign.close()
    async with opened(tmp_path) as post:
        assert post.mailbox.statistics().envelopes == 0
        with post.mailbox.hop(A, device := Neighbour()) as below:
            await below.receive(envelope(1))
            await device.receipt(1)
    assert aside(path).exists(), "somebody may want to look into it"


async def test_a_file_that_is_damaged_while_it_is_used_costs_what_was_on_it_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailbox, "_STORE_AGAIN_S", 0.01)
    load = MailFile.load
    device, server = Neighbour(), Neighbour()
    async with opened(tmp_path) as post:
        with post.mailbox.hop(A, device) as below:
            await below.receive(envelope(1))
            await device.receipt(1)

            def corrupt(self: MailFile, numbers: object) -> None:
                monkeypatch.setattr(MailFile, "load", load)
                raise self._damaged("a page")

            monkeypatch.setattr(MailFile, "load", corrupt)
            with post.mailbox.hop(SERVER, server):
                post.mailbox.look(SERVER)
                with trio.fail_after(PATIENCE_S):
                    while post.mailbox.statistics().envelopes:
                        await trio.sleep(0.01)
            await below.receive(envelope(2))
            await device.receipt(2)
    async with opened(tmp_path) as post:
        with post.mailbox.hop(SERVER, server):
            post.mailbox.look(SERVER)
            await server.has(2)


async def test_two_programs_do_not_use_one_mailbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailfile, "_BUSY_S", 0.01)
    async with opened(tmp_path):
        with pytest.raises(Unavailable, match="in use"):
            await trio.to_thread.run_sync(MailFile, tmp_path / "mailbox.db")
