"""Many byte streams in one: the connections through a tunnel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing

from p2pdist import limits
from p2pdist.errors import P2PDistError, PeerError, TrustError, Unavailable
from p2pdist.net.multiplex import Multiplex, open_multiplex
from p2pdist.net.streaming import OfferedStream, Served

PATH = "/connection"


class Opening(msgspec.Struct, frozen=True):
    """What a stream is for."""

    wanted: str = "echo"


async def serve(opening: Opening, offered: OfferedStream) -> None:
    if opening.wanted == "nothing":
        raise TrustError("not for you")
    stream = offered.accept()
    if opening.wanted == "silence":
        await trio.sleep_forever()
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


@asynccontextmanager
async def joined() -> AsyncIterator[tuple[Multiplex, trio.CancelScope]]:
    """Give the end that opens, and what ends the other one."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def answer(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            served = {PATH: Served(Opening, serve)}
            async with open_multiplex(theirs, dialler=False, peer="the operator", served=served) as many:
                task_status.started(scope)
                await many.wait_ended()

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(answer)
        async with open_multiplex(ours, dialler=True, peer="the device") as many:
            yield many, scope
        nursery.cancel_scope.cancel()


async def echoed(many: Multiplex, data: bytes) -> bytes:
    came = bytearray()
    async with many.open_stream(PATH, Opening()) as stream, trio.open_nursery() as nursery:

        async def receive() -> None:
            async for part in stream:
                came.extend(part)

        nursery.start_soon(receive)
        await stream.send_all(data)
        await stream.send_eof()
    return bytes(came)


async def test_streams_carry_their_own_bytes_side_by_side(autojump_clock: object) -> None:
    data = {number: bytes([number]) * 300_000 for number in range(8)}
    came = {}

    async def one(number: int) -> None:
        came[number] = await echoed(many, data[number])

    async with joined() as (many, _), trio.open_nursery() as nursery:
        for number in data:
            nursery.start_soon(one, number)
    assert came == data


async def test_one_that_nobody_reads_holds_up_none_of_the_others(autojump_clock: object) -> None:
    async with joined() as (many, _), many.open_stream(PATH, Opening(wanted="silence")) as deaf:
        with trio.move_on_after(1):
            await deaf.send_all(bytes(4 * limits.TUNNEL_WINDOW_BYTES))
        assert await echoed(many, b"x" * 500_000) == b"x" * 500_000


async def test_a_refusal_says_why_and_others_go_on(autojump_clock: object) -> None:
    async with joined() as (many, _):
        with pytest.raises(TrustError, match="not for you"):
            async with many.open_stream(PATH, Opening(wanted="nothing")):
                pass
        assert await echoed(many, b"hello") == b"hello"


async def test_there_are_only_so_many_and_one_that_ends_makes_room(autojump_clock: object) -> None:
    async with joined() as (many, _):
        async with AsyncExitStack() as stack:
            for _ in range(limits.TUNNEL_CONNECTIONS_MAX):
                await stack.enter_async_context(many.open_stream(PATH, Opening()))
            with pytest.raises(Unavailable, match="are open already"):
                async with many.open_stream(PATH, Opening()):
                    pass
        assert await echoed(many, b"hello") == b"hello"


async def test_the_end_of_the_other_side_ends_every_stream(autojump_clock: object) -> None:
    async with joined() as (many, other):
        async with many.open_stream(PATH, Opening(wanted="silence")) as stream:
            other.cancel()
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        assert isinstance(await many.wait_ended(), Unavailable)
        with pytest.raises(Unavailable):
            async with many.open_stream(PATH, Opening()):
                pass


async def test_a_stream_on_a_path_that_is_not_served_is_given_up(autojump_clock: object) -> None:
    async with joined() as (many, _):
        with pytest.raises(P2PDistError):
            async with many.open_stream("/elsewhere", Opening()):
                pass
        assert await echoed(many, b"hello") == b"hello"


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH\r\n" * 10, bytes(100), b"\xff" * 100])
async def test_who_does_not_speak_it_is_told_so_and_ends_nothing_else(
    autojump_clock: object, said: bytes
) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with open_multiplex(ours, dialler=True, peer="the device") as many:
        await theirs.send_all(said)
        assert isinstance(await many.wait_ended(), PeerError)
