"""Commands: reaching into a device. The session's bytes are for the device and this command line alone."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import trio
from cyclopts import Parameter

from p2pdist import limits
from p2pdist.cli.common import DEFAULT, Common
from p2pdist.cli.output import print_facts, say, show_json
from p2pdist.cli.visit import NO_PATH, Visitor
from p2pdist.cli.words import plain
from p2pdist.errors import Unavailable, UsageError, sole_error
from p2pdist.net.conversations import Conversation
from p2pdist.net.pulse import Pulse
from p2pdist.wire.services import Diagnosis, Echo, Logs

Device = Annotated[str, Parameter(name="DEVICE")]

_PING_BYTES = 56
_READ_BYTES = 64 * limits.KIB
_DIAGNOSIS_BYTES_MAX = 1 << 20


class PingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How long bytes take to a device and back, and over which path each went. Times are milliseconds.

    ``path`` is the one at the end.
    """

    device: str
    node: str
    path: str
    opened_ms: float
    round_trips_ms: list[float]
    paths: list[str]


def ping(device: Device, /, *, count: int = 5, common: Common = DEFAULT) -> None:
    """Measure the path to a device: bytes that it sends back, one a second, with the path of each.

    A session begins relayed; with more than one answer it moves to a direct or punched path if there is one.

    Parameters
    ----------
    device
        Its name, its id, or the beginning of its id.
    count
        How many times.
    """
    if not 1 <= count <= 10_000:
        raise UsageError(f"--count {count} makes no sense", hint="use 1 to 10000")
    answer = trio.run(_ping, common, device, count)
    if common.output == "json":
        show_json(answer)


async def _ping(common: Common, device: str, count: int) -> PingAnswer:
    begun = trio.current_time()
    visitor = Visitor(common.target())
    async with visitor.visit(device, Echo(), better_after_s=0.0 if count > 1 else None) as (
        info,
        stream,
        echo,
        _,
    ):
        opened_ms = (trio.current_time() - begun) * 1e3
        if common.output == "table":
            say(f"{info.name} ({info.node}), {stream.path}, opened in {opened_ms:.0f} ms")
        took: list[float] = []
        paths: list[str] = []
        async with _echoes(echo) as wait_come:
            for number in range(count):
                at = trio.current_time()
                await echo.send_all(number.to_bytes(_PING_BYTES, "big"))
                if not await wait_come((number + 1) * _PING_BYTES):
                    raise Unavailable(f"{info.name} has ended the session")
                took.append(round((trio.current_time() - at) * 1e3, 2))
                paths.append(stream.path or NO_PATH)
                if common.output == "table":
                    say(f"  {number + 1}: {took[-1]:.1f} ms, {paths[-1]}")
                if number + 1 < count:
                    await trio.sleep(max(0.0, 1.0 - took[-1] / 1e3))
        if common.output == "table":
            say(f"median {statistics.median(took):.1f} ms, {min(took):.1f} to {max(took):.1f} ms")
        return PingAnswer(
            device=info.name,
            node=info.node,
            path=stream.path or NO_PATH,
            opened_ms=round(opened_ms, 1),
            round_trips_ms=took,
            paths=paths,
        )


@asynccontextmanager
async def _echoes(echo: Conversation) -> AsyncIterator[Callable[[int], Awaitable[bool]]]:
    """Receive all the time, as signals come in between; give what waits for so many bytes in all."""
    came, ended, news = 0, False, Pulse()

    async def receive() -> None:
        nonlocal came, ended
        while data := await echo.receive_some(_READ_BYTES):
            came += len(data)
            news.fire()
        ended = True
        news.fire()

    async def wait_come(size_bytes: int) -> bool:
        while came < size_bytes and not ended:
            await news.wait()
        return came >= size_bytes

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            yield wait_come
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise sole_error(group) from None


def logs(
    device: Device,
    /,
    *,
    lines: Annotated[int, Parameter(name=["--lines", "-n"])] = 100,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"])] = False,
    common: Common = DEFAULT,
) -> None:
    """Show the last lines of a device's own log.

    Parameters
    ----------
    device
        Its name, its id, or the beginning of its id.
    lines
        How many; a device keeps 1,000.
    follow
        Go on with the lines that come, until interrupted.
    """
    if not 0 <= lines <= 100_000:
        raise UsageError(f"--lines {lines} makes no sense", hint="use 0 to 100000")
    trio.run(_logs, common, device, Logs(lines=lines, follow=follow))


async def _logs(common: Common, device: str, service: Logs) -> None:
    visitor = Visitor(common.target())
    async with visitor.visit(device, service, better_after_s=0.0 if service.follow else None) as visit:
        rest = b""
        async for data in visit.conversation:
            *whole, rest = (rest + bytes(data)).split(b"\n")
            for line in whole:
                sys.stdout.write(plain(line.decode(errors="replace")) + "\n")
            sys.stdout.flush()


def diagnose(device: Device, /, *, common: Common = DEFAULT) -> None:
    """Ask a device what it thinks of itself: its links, its certificate, its content.

    Parameters
    ----------
    device
        Its name, its id, or the beginning of its id.
    """
    facts = trio.run(_diagnose, common, device)
    if common.output == "json":
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
        return
    print_facts([(key.replace("_", " "), _fact(value)) for key, value in facts.items()])


async def _diagnose(common: Common, device: str) -> dict[str, Any]:
    async with Visitor(common.target()).visit(device, Diagnosis()) as (info, _, told, _):
        data = bytearray()
        async for part in told:
            data += part
            if len(data) > _DIAGNOSIS_BYTES_MAX:
                raise Unavailable(f"{info.name} says more than {_DIAGNOSIS_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(bytes(data), type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Unavailable(f"what {info.name} says is no diagnosis ({error})") from None


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_fact(each)}" for key, each in value.items()) or "-"
    if isinstance(value, list):
        return "\n".join(_fact(each) for each in value) or "-"
    return "-" if value is None else str(value)
