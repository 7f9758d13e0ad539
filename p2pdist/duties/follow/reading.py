"""Reads files of a vendor's repository over HTTP, each within its bounds of size and time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import trio

from p2pdist import limits
from p2pdist.core.mirrors import MirrorFailed
from p2pdist.duties.mirrors.http import MirrorClient
from p2pdist.errors import PeerError, Unavailable
from p2pdist.wire.following import Offer


class Found(NamedTuple):
    """What a repository offers. ``date`` is when that was signed, Unix seconds; 0: it does not say.

    ``left_out`` is what is wanted and cannot be offered, with the reason.
    """

    offers: list[Offer]
    date: int
    left_out: dict[str, str]


async def read_file(client: MirrorClient, url: str, *, bytes_max: int, plain: bool) -> bytes:
    """Read a small file as a whole.

    Raises:
        Unavailable: it does not come, or not in time.
        PeerError: it is larger than *bytes_max*.
    """
    data = bytearray()
    with in_time(url):
        async with client.ask_all(url, plain=plain) as answer:
            while piece := await answer.receive():
                data += piece
                if len(data) > bytes_max:
                    raise PeerError(f"{url} has more than {bytes_max} bytes")
    return bytes(data)


@contextmanager
def in_time(url: str) -> Iterator[None]:
    """Give a file its time, and name it in what goes wrong.

    Raises:
        Unavailable: it does not come, or not in time.
    """
    try:
        with trio.fail_after(limits.FOLLOW_FILE_S_MAX):
            yield
    except trio.TooSlowError:
        raise Unavailable(f"{url} has not come in {limits.FOLLOW_FILE_S_MAX:.0f} s") from None
    except MirrorFailed as error:
        raise MirrorFailed(
            f"{url} cannot be read: {error.what}", fault=error.fault, retry_after_s=error.retry_after_s
        ) from None
