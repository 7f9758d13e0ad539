"""TLS connections as streams: what trio's users rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from p2pdist.net.secure import SecureStream
from p2pdist.net.tls import client_context, server_context


@asynccontextmanager
async def secure_pair(fleet: Any) -> AsyncIterator[tuple[SecureStream, SecureStream]]:
    """Connect two ends over loopback, past the handshake."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        listener.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 65_536)
        host, port = listener.socket.getsockname()
        dialled = await trio.open_tcp_stream(host, port)
        dialled.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, 65_536)
        accepted = await listener.accept()
    left = SecureStream(dialled, client_context(fleet.identity()), server_side=False)
    right = SecureStream(accepted, server_context(fleet.identity()), server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(left.do_handshake)
        nursery.start_soon(right.do_handshake)
    try:
        yield left, right
    finally:
        left.sever()
        right.sever()


async def test_bytes_arrive_in_order_however_many(fleet: Any) -> None:
    sent = bytes(range(256)) * 20_000
    async with secure_pair(fleet) as (left, right), trio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, sent)
        received = b""
        while len(received) < len(sent):
            received += await right.receive_some()
        assert received == sent


async def test_both_directions_flow_at_once(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right), trio.open_nursery() as nursery:

        async def drain(stream: SecureStream) -> None:
            received = 0
            while received < 3_000_000:
                received += len(await stream.receive_some(10_000))

        for stream in (left, right):
            nursery.start_soon(stream.send_all, bytes(3_000_000))
            nursery.start_soon(drain, stream)


async def test_what_a_cancelled_send_left_goes_out_before_the_next(fleet: Any) -> None:
    sent = bytes(range(256)) * 8_000
    async with secure_pair(fleet) as (left, right):
        with trio.move_on_after(0.05) as scope:
            await left.send_all(sent)
        assert scope.cancelled_caught, "it fitted into the sockets' buffers"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, b"the next")
            received = b""
            while not received.endswith(b"the next"):
                received += await right.receive_some()
        assert received == sent + b"the next"


async def test_what_is_sent_at_once_arrives(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right):
        assert left.send_nowait(b"at once")
        assert await right.receive_some() == b"at once"


async def test_what_could_not_be_sent_at_once_goes_out_before_the_next(fleet: Any) -> None:
    sent = bytes(range(256)) * 40_000
    async with secure_pair(fleet) as (left, right):
        assert not left.send_nowait(sent), "it fitted into the sockets' buffers"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.send_all, b"the next")
            received = b""
            while not received.endswith(b"the next"):
                received += await right.receive_some()
        assert received == sent + b"the next"


async def test_sending_at_once_on_a_closed_connection_says_so(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, _):
        left.sever()
        with pytest.raises(trio.ClosedResourceError):
            left.send_nowait(b"late")


async def test_connections_read_side_by_side_do_not_mix(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right), secure_pair(fleet) as (other_left, other_right):
        received: dict[str, bytes] = {}

        async def read(name: str, stream: SecureStream) -> None:
            received[name] = await stream.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "one", right)
            nursery.start_soon(read, "other", other_right)
            await trio.testing.wait_all_tasks_blocked()
            left.send_nowait(b"a" * 100)
            other_left.send_nowait(b"b" * 100)
        assert received == {"one": b"a" * 100, "other": b"b" * 100}


async def test_a_cancelled_receive_loses_nothing(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right):
        with trio.move_on_after(0):
            await right.receive_some()
        with trio.move_on_after(0.01):
            await right.receive_some()
        await left.send_all(b"still here")
        assert await right.receive_some() == b"still here"


async def test_the_end_of_the_other_side_is_the_end(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right):
        await left.send_all(b"last words")
        await left.aclose()
        await left.aclose()
        assert await right.receive_some() == b"last words"
        assert await right.receive_some() == b""


async def test_severing_wakes_who_receives_and_who_sends(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, _), trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await left.receive_some()

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await left.send_all(bytes(30_000_000))

        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.02)
        left.sever()
        left.sever()


async def test_a_stream_that_was_closed_says_so(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, _):
        await left.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await left.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError):
            await left.receive_some()


async def test_a_connection_that_was_reset_is_over(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right):
        await left.send_all(b"unread, so that closing resets the connection")
        await trio.testing.wait_all_tasks_blocked(0.02)
        right.sever()
        with suppress(trio.BrokenResourceError):
            assert await left.receive_some() == b"", "some systems report a reset as an end"

        async def send_on() -> None:
            while True:
                await left.send_all(bytes(1_000))

        with pytest.raises(trio.BrokenResourceError):
            await send_on()


async def test_the_peers_are_known_by_their_addresses(fleet: Any) -> None:
    async with secure_pair(fleet) as (left, right):
        assert left.addresses() == ("127.0.0.1", "127.0.0.1")
        assert left.certificate()
        assert right.certificate()
        assert left.protocol() == right.protocol() == "p2pdist/1"


async def test_it_tells_what_the_other_machine_has_taken_and_what_is_on_its_way(fleet: Any) -> None:
    sent = bytes(1_000_000)
    async with secure_pair(fleet) as (left, right), trio.open_nursery() as nursery:
        assert not left.send_nowait(sent), "nobody reads"
        before, under_way = left.progress()
        assert before + under_way >= len(sent)
        nursery.start_soon(left.send_all, b"")
        received = 0
        while received < len(sent):
            received += len(await right.receive_some())
        with trio.fail_after(5):
            while left.progress()[1]:
                await trio.sleep(0.01)
        assert left.progress()[0] >= len(sent) > before
