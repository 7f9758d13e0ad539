"""A peer that breaks the protocol ends its own path: with a PeerError, and without costing us memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError
from p2pdist.net.rtc import path
from p2pdist.net.rtc.events import Order, Send
from p2pdist.net.rtc.stream import PunchedStream
from p2pdist.net.rtc.transports import DataChunk, ForwardTsnChunk, SackChunk

FRAME = limits.PUNCH_FRAME_BYTES


class HostilePath(path.Path):
    """Does what no path of ours does, when a message names it."""

    def handle(self, order: Order) -> None:
        if isinstance(order, Send) and order.message.startswith(b"!"):
            attack: Callable[[], Awaitable[None]] = getattr(self, "_" + order.message[1:].decode())
            self._attack = asyncio.ensure_future(attack())
        else:
            self._sctp._remote_max_message_size = 0
            super().handle(order)

    def _break(self, error: P2PDistError) -> None:
        """It takes the answers to what it does as they come."""
        if not isinstance(error, PeerError) or self._controlling is False:
            super()._break(error)

    async def _open_another_channel(self) -> None:
        await self._sctp._send(6, 50, bytes.fromhex("03000000000000000001000058"))

    async def _use_another_stream(self) -> None:
        await self._sctp._send(6, 53, b"content")

    async def _send_text(self) -> None:
        self._channel.send("content")

    async def _acknowledge_what_was_never_sent(self) -> None:
        chunk = SackChunk()
        chunk.cumulative_tsn = self._sctp._last_received_tsn or 0
        chunk.gaps = [(1, 65535)] * 200
        await self._sctp._send_chunk(chunk)

    async def _give_up_data(self) -> None:
        chunk = ForwardTsnChunk()
        chunk.cumulative_tsn = self._sctp._local_tsn + 1000
        await self._sctp._send_chunk(chunk)

    async def _send_half_a_chunk(self) -> None:
        chunk = SackChunk()
        chunk.__class__ = _Stump
        await self._sctp._send_chunk(chunk)

    async def _never_finish_a_message(self) -> None:
        for number in range(2 * limits.PUNCH_REASSEMBLY_CHUNKS_MAX):
            chunk = DataChunk(flags=2 if number == 0 else 0)
            chunk.tsn = self._sctp._local_tsn + number
            chunk.protocol = 53
            chunk.user_data = bytes(1000)
            await self._sctp._send_chunk(chunk)
            if number % 16 == 0:
                await asyncio.sleep(0.005)  # slower than the socket's buffer fills


class _Stump(SackChunk):
    def __bytes__(self) -> bytes:
        return bytes([self.type, 0, 0, 6, 1, 2, 0, 0])


@pytest.fixture
async def streams(open_pair: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr(path, "Path", HostilePath)
    async with open_pair() as pair:
        yield pair.left, pair.right


def say(stream: PunchedStream, *messages: bytes) -> None:
    """Send messages on the channel, past all rules."""
    assert stream._stay is not None
    for message in messages:
        stream._stay.order(Send(message))


async def read_all(stream: PunchedStream) -> None:
    async for _ in stream:
        pass
    raise AssertionError("the path ended as it should not: in order")


async def assert_ends_with_the_peers_fault(stream: PunchedStream, text: str) -> None:
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as broken:
        await read_all(stream)
    assert isinstance(broken.value.__cause__, PeerError)
    assert text in str(broken.value.__cause__)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([b"\x00" + bytes(FRAME)] * (limits.PUNCH_WINDOW_BYTES // FRAME + 1), "credit"),
        ([b"\x00k"] * (limits.PUNCH_WINDOW_BYTES // limits.PUNCH_FRAME_COST_MIN + 1), "credit"),
        ([b"\x00" + bytes(FRAME + 1)], "none that we know"),
        ([b"\x00"], "none that we know"),
        ([b"\x07abc"], "kind 7"),
        ([b"\x01\x00\x00\x00"], "none that we know"),
        ([b"\x01\x7f\xff\xff\xff"], "was not sent"),
        ([b"\x02", b"\x00late"], "after the end"),
        ([bytes(3 * limits.PUNCH_WINDOW_BYTES)], "credit"),
    ],
)
async def test_a_message_against_the_rules_ends_the_path(
    streams: Any, messages: list[bytes], text: str
) -> None:
    left, right = streams
    say(left, *messages)
    with trio.fail_after(5):
        await right._stay.ended.wait()
    await assert_ends_with_the_peers_fault(right, text)
    assert right.statistics().received_bytes <= limits.PUNCH_WINDOW_BYTES


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        ("open_another_channel", "stream 6"),
        ("use_another_stream", "stream 6"),
        ("send_text", "protocol 51"),
        ("acknowledge_what_was_never_sent", "never sent"),
        ("give_up_data", "gave up"),
        ("send_half_a_chunk", "makes no sense"),
        ("never_finish_a_message", "unfinished"),
    ],
)
async def test_an_attack_below_the_messages_ends_the_path(streams: Any, attack: str, text: str) -> None:
    left, right = streams
    say(left, b"!" + attack.encode())
    await assert_ends_with_the_peers_fault(right, text)


async def test_one_hostile_peer_does_not_hurt_its_neighbours(
    open_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "Path", HostilePath)
    async with open_pair() as pair, open_pair() as other:
        say(pair.left, b"!send_half_a_chunk")
        await assert_ends_with_the_peers_fault(pair.right, "makes no sense")
        await other.left.send_all(b"hello")
        assert await other.right.receive_some() == b"hello"
