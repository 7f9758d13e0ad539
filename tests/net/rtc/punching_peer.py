"""One end of a punched path as a process: signalling on standard input and output, for the tests.

    punching_peer.py ROLE WORK HOSTS LIMIT_S [STUN…]

It writes ``ready`` and waits for a line, so that both can start together. It writes its description in
hex, reads the other one's, connects, writes ``open`` with the kinds of the pair and the seconds, and does
its work until it is killed.
"""

from __future__ import annotations

import sys

import trio

from p2pdist.net.endpoints import parse_endpoint
from p2pdist.net.rtc.island import open_island
from p2pdist.net.rtc.punch import open_punched
from p2pdist.net.rtc.report import PunchFailed
from p2pdist.net.rtc.stream import PunchedStream


async def ask(said: str) -> str:
    print(said, flush=True)
    return (await trio.to_thread.run_sync(sys.stdin.readline)).strip()


async def exchange(ours: bytes) -> bytes:
    return bytes.fromhex(await ask(ours.hex()))


async def echo(stream: PunchedStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def pour(stream: PunchedStream) -> None:
    while True:
        await stream.send_all(bytes(65_536))


async def idle(stream: PunchedStream) -> None:
    await trio.sleep_forever()


async def send(stream: PunchedStream) -> None:
    await stream.send_all(bytes(500_000))


async def count(stream: PunchedStream) -> None:
    received = 0
    async for data in stream:
        received += len(data)
    print("received", received, flush=True)


WORK = {"echo": echo, "pour": pour, "idle": idle, "send": send, "count": count}


async def main(role: str, work: str, hosts: str, limit_s: str, *stun_servers: str) -> None:
    await ask("ready")
    async with open_island() as island:
        try:
            stream = await open_punched(
                island,
                exchange,
                controlling=role == "controlling",
                hosts=hosts.split(","),
                limit_s=float(limit_s),
                stun_servers=[parse_endpoint(server) for server in stun_servers],
            )
        except PunchFailed as error:
            print("failed", error, flush=True)
            return
        async with stream:
            report = stream.report
            assert report.pair is not None
            seconds = sum(report.seconds.values())
            print("open", report.pair[0].kind, report.pair[1].kind, f"{seconds:.2f}", flush=True)
            await WORK[work](stream)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
