"""A byte stream over a link is a trio stream like any other: trio's own contract, over both ends."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

from p2pdist.net.bytestream import ByteStream
from p2pdist.net.link import Link, OfferedStream, StreamHandler
from p2pdist.net.memory import open_memory_links
from p2pdist.wire.requests import TorrentRequest

pytestmark = pytest.mark.slow  # many examples, a stream for each

OPENING = TorrentRequest(info_hash="0" * 64)
CLOGGED_BYTES = 4 * 1024 * 1024


class Pairs:
    """Makes pairs of stream ends over one link. The pair before is not used any more then."""

    def __init__(self) -> None:
        self._offer, self._offered = trio.open_memory_channel[ByteStream](1)
        self._over = trio.Event()
        self._nursery: trio.Nursery | None = None

    async def _serve(self, link: Link, opening: TorrentRequest, offered: OfferedStream) -> None:
        over = self._over
        self._offer.send_nowait(offered.accept())
        await over.wait()

    @property
    def table(self) -> dict[str, StreamHandler]:
        return {"/session": StreamHandler(TorrentRequest, self._serve)}

    async def check(self, link: Link) -> None:
        """Check that both ends of streams that *link* opens keep trio's contract."""

        async def hold(*, over: trio.Event, task_status: trio.TaskStatus[ByteStream]) -> None:
            async with link.open_stream("/session", OPENING) as stream:
                task_status.started(stream)
                await over.wait()

        async with trio.open_nursery() as nursery:

            async def make() -> tuple[ByteStream, ByteStream]:
                self._over.set()
                self._over = over = trio.Event()

                async def held(*, task_status: trio.TaskStatus[ByteStream]) -> None:
                    await hold(over=over, task_status=task_status)

                ours: ByteStream = await nursery.start(held)
                return ours, await self._offered.receive()

            async def make_clogged() -> tuple[ByteStream, ByteStream]:
                ours, theirs = await make()
                for stream in (ours, theirs):
                    with trio.CancelScope() as scope:
                        async with trio.open_nursery() as clogging:
                            clogging.start_soon(stream.send_all, bytes(CLOGGED_BYTES))
                            await trio.testing.wait_all_tasks_blocked(0.02)
                            scope.cancel()
                return ours, theirs

            await trio.testing.check_half_closeable_stream(make, make_clogged)
            self._over.set()


@pytest.mark.parametrize("acceptor_opens", [False, True])
async def test_it_keeps_the_contract_over_memory(
    acceptor_opens: bool, device_certificate: Any, server_certificate: Any
) -> None:
    pairs = Pairs()
    async with open_memory_links(
        dialler=device_certificate,
        acceptor=server_certificate,
        streams=pairs.table,
        dialler_streams=pairs.table,
    ) as (dialler, acceptor):
        await pairs.check(acceptor if acceptor_opens else dialler)


@pytest.mark.slow  # a second each: megabytes to clog every stream
@pytest.mark.parametrize("acceptor_opens", [False, True])
async def test_it_keeps_the_contract_over_tls(acceptor_opens: bool, both_ways: Any) -> None:
    pairs = Pairs()
    async with both_ways(acceptor_asks=acceptor_opens, streams=pairs.table) as (opener, _, _):
        await pairs.check(opener)
