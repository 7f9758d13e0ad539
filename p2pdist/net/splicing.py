"""Two byte streams made one, as a gateway does with the streams of its two neighbours."""

from __future__ import annotations

from typing import Final

import trio

from p2pdist import limits

_PORTION_BYTES: Final = 64 * limits.KIB  # held of each direction
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError)


async def splice(left: trio.abc.HalfCloseableStream, right: trio.abc.HalfCloseableStream) -> None:
    """Pass on what comes from either stream to the other, until both have said everything.

    The end of one direction is passed on, and the other goes on. At most 64 KiB of each direction are
    held here, and nothing is read that the other side has no room for. The streams are the caller's to
    close, also when this is cancelled: what is under way then is lost.

    Raises:
        BrokenResourceError, ClosedResourceError: a stream broke. When one cannot be read any more both
            directions end at once; when one only takes nothing more, what it still says is passed on
            first.
    """
    failures: list[Exception] = []

    async def pass_on(source: trio.abc.ReceiveStream, sink: trio.abc.HalfCloseableStream) -> None:
        while True:
            try:
                data = await source.receive_some(_PORTION_BYTES)
            except _GONE as error:
                failures.append(error)
                nursery.cancel_scope.cancel()
                return
            try:
                if data:
                    await sink.send_all(data)
                    continue
                await sink.send_eof()
            except _GONE as error:
                if data:  # an end that nobody wants to hear is no loss
                    failures.append(error)
            return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pass_on, left, right)
        nursery.start_soon(pass_on, right, left)
    if failures:
        raise failures[0]
