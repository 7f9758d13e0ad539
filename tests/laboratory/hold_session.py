"""Holds a session with a device open, as the operator's command line does; runs on a host of a laboratory.

Sends numbers and compares what comes back, byte by byte. Prints a line of JSON for each path that the session
moves to, ``{"path": kind}``. When standard input has ended, and no less than the bytes that it was told are
sent, it finishes the session and prints ``{"sent": bytes, "intact": bool}``.
"""

from __future__ import annotations

import json
import sys

import trio

from p2pdist.cli.profile import find_target
from p2pdist.cli.visit import Visitor
from p2pdist.wire.services import Echo

INTERVAL_S = 0.01
NUMBER_BYTES = 8
AT_ONCE = 128


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


async def main(device: str, bytes_min: int) -> None:
    sent = came = 0
    intact = True
    finishing = trio.Event()
    async with Visitor(find_target(server=None, token_file=None, ca=None)).visit(
        device, Echo(), better_after_s=0.0
    ) as (_, stream, echo, _):

        async def follow_path() -> None:
            now = None
            while True:
                if stream.path != now and stream.path is not None:
                    now = stream.path
                    say(path=now)
                await trio.sleep(INTERVAL_S)

        async def send() -> None:
            nonlocal sent
            while not finishing.is_set() or sent < bytes_min:
                numbers = range(sent // NUMBER_BYTES, sent // NUMBER_BYTES + AT_ONCE)
                await echo.send_all(b"".join(number.to_bytes(NUMBER_BYTES, "big") for number in numbers))
                sent += AT_ONCE * NUMBER_BYTES
                await trio.sleep(INTERVAL_S)
            await echo.send_eof()

        async def wait_finish() -> None:
            await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
            finishing.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_path)
            nursery.start_soon(send)
            nursery.start_soon(wait_finish)
            rest = b""
            async for data in echo:
                rest += data
                whole = len(rest) - len(rest) % NUMBER_BYTES
                for start in range(0, whole, NUMBER_BYTES):
                    number = int.from_bytes(rest[start : start + NUMBER_BYTES], "big")
                    intact &= number == (came + start) // NUMBER_BYTES
                came += whole
                rest = rest[whole:]
            nursery.cancel_scope.cancel()
    say(sent=sent, intact=intact and came == sent and not rest)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
