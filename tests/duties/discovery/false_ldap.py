"""A directory that misbehaves, byte by byte (RFC 4511, section 5.1, the little of BER that it takes)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

_PAGED = b"1.2.840.113556.1.4.319"
BIND, SEARCH = 0x60, 0x63

Search = Callable[[trio.SocketStream, int], Awaitable[None]]


def ber(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 128 else b"\x84" + len(body).to_bytes(4, "big")
    return bytes([tag]) + length + body


def message(number: int, operation: bytes, controls: bytes = b"") -> bytes:
    return ber(0x30, ber(2, number.to_bytes(4, "big")), operation, controls)


def entry(number: int, place: int, *, size: int = 0) -> bytes:
    """A computer, the *place*-th; with a description of *size* bytes."""
    values = {
        b"cn": b"pc%d" % place,
        b"entryUUID": b"00000000-0000-4000-8000-%012d" % place,
        b"operatingSystem": b"x" * size,
    }
    attributes = [ber(0x30, ber(4, name), ber(0x31, ber(4, value))) for name, value in values.items()]
    name = b"cn=pc%d,ou=berlin,dc=acme" % place
    return message(number, ber(0x64, ber(4, name), ber(0x30, *attributes)))


def done(number: int, *, code: int = 0, cookie: bytes | None = None) -> bytes:
    control = b""
    if cookie is not None:
        value = ber(0x30, ber(2, b"\0"), ber(4, cookie))
        control = ber(0xA0, ber(0x30, ber(4, _PAGED), ber(4, value)))
    return message(number, ber(0x65, ber(0x0A, bytes([code])), ber(4), ber(4)), control)


@asynccontextmanager
async def false_directory(search: Search) -> AsyncIterator[int]:
    """Serve on loopback, let everybody in, and answer each search with *search*; yield the port."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            while request := await stream.receive_some(65_536):
                number, operation = _request(request)
                if operation == BIND:
                    answer = ber(0x61, ber(0x0A, b"\0"), ber(4), ber(4))
                    await stream.send_all(message(number, answer))
                elif operation == SEARCH:
                    await search(stream, number)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # who asked has had enough
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def _request(data: bytes) -> tuple[int, int]:
    start = 2 if data[1] < 128 else 2 + (data[1] & 0x7F)
    length = data[start + 1]
    number = int.from_bytes(data[start + 2 : start + 2 + length], "big")
    return number, data[start + 2 + length]
