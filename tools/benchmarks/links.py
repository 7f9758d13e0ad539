"""What one process pays for many idle links: memory, handshakes, and a frame to everybody.

An acceptor in a process of its own takes as many links as it is told, with real certificates over
loopback, from this process. Its resident memory is read before, when all links stand, and after each of
them has fetched an answer, because what a burst leaves behind counts too. The diallers share the
machine, so handshakes and fan-out are those of both ends together; the CPU time is the acceptor's own.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from p2pdist import limits
from p2pdist.ids import GroupPath, SwarmName, parse_fleet
from p2pdist.net.link import Link, OpenLinks, RequestHandler, open_link, serve_links
from p2pdist.net.tls import TlsIdentity
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import MetadataVersions
from p2pdist.wire.requests import Bundle, BundleRequest

_DIALS_AT_ONCE = 32
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Run what the command line asks for."""
    options = parse()
    if options.acceptor:
        trio.run(accept, options.answer_kib)
        return
    result = trio.run(measure, options)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:32} {value}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    description, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="tools/bench links", description=description, epilog=rest)
    parser.add_argument("--links", type=int, default=500, help="how many links (default %(default)s)")
    parser.add_argument(
        "--answer-kib", type=int, default=64, help="size of the answer each fetches (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--acceptor", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Dial, measure the acceptor, and return the figures."""
    acceptor_identity, device_identity = identities()
    command = [sys.executable, __file__, "--acceptor", "--answer-kib", str(options.answer_kib)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        tell(process, acceptor_identity)
        port = (await hear(process))["port"]
        return await dial_and_measure(options, process, port, parse_identity(device_identity))
    finally:
        process.kill()
        process.wait()


async def dial_and_measure(
    options: argparse.Namespace, process: subprocess.Popen[str], port: int, identity: TlsIdentity
) -> dict[str, Any]:
    devices = Devices(port, identity, options.links)
    own_before = resident_bytes()
    async with trio.open_nursery() as nursery:
        before = await ask(process, "usage")
        started = time.monotonic()
        await devices.start(nursery)
        dialled_s = time.monotonic() - started
        await trio.sleep(1)
        idle = await ask(process, "usage")
        own_idle = resident_bytes()
        await devices.fetch_all()
        await trio.sleep(limits.LINK_WATCH_S + 1)
        used = await ask(process, "usage")
        devices.expect_frames()
        sent_at = time.monotonic()
        await ask(process, "notify")
        delays = sorted(at - sent_at for at in await devices.frames_at())
        after = await ask(process, "usage")
        nursery.cancel_scope.cancel()
    count = options.links
    return {
        "links": count,
        "bytes_per_idle_link": round((idle["rss"] - before["rss"]) / count),
        "bytes_per_used_link": round((used["rss"] - before["rss"]) / count),
        "bytes_per_dialled_link": round((own_idle - own_before) / count),
        "answer_bytes": options.answer_kib * 1024,
        "handshakes_per_second": round(count / dialled_s, 1),
        "acceptor_cpu_ms_per_handshake": round(1000 * (idle["cpu"] - before["cpu"]) / count, 2),
        "acceptor_cpu_ms_per_notification": round(1000 * (after["cpu"] - used["cpu"]) / count, 3),
        "fanout_seconds_p50": round(delays[len(delays) // 2], 4),
        "fanout_seconds_p99": round(delays[len(delays) * 99 // 100], 4),
    }


class Devices:
    """The diallers of all links."""

    def __init__(self, port: int, identity: TlsIdentity, count: int) -> None:
        self._port = port
        self._identity = identity
        self._count = count
        self._links: list[Link] = []
        self._frames_at: list[float] = []
        self._all_up = trio.Event()
        self._all_heard = trio.Event()
        self._slots = trio.Semaphore(_DIALS_AT_ONCE)

    async def start(self, nursery: trio.Nursery) -> None:
        """Open every link; they stay open in *nursery*."""
        for _ in range(self._count):
            nursery.start_soon(self._device)
        await self._all_up.wait()

    async def fetch_all(self) -> None:
        """Ask once on every link."""

        async def fetch(link: Link) -> None:
            async with self._slots:
                await link.request("/bundle", BundleRequest(have={}), Bundle)

        async with trio.open_nursery() as nursery:
            for link in self._links:
                nursery.start_soon(fetch, link)

    def expect_frames(self) -> None:
        """Forget the frames so far."""
        self._frames_at.clear()

    async def frames_at(self) -> list[float]:
        """Return when each link got its frame."""
        await self._all_heard.wait()
        return self._frames_at

    async def _device(self) -> None:
        await self._slots.acquire()
        async with open_link("127.0.0.1", self._port, identity=self._identity, expect=None) as link:
            self._slots.release()
            self._links.append(link)
            if len(self._links) == self._count:
                self._all_up.set()
            async for _ in link.frames():
                self._frames_at.append(time.monotonic())
                if len(self._frames_at) == self._count:
                    self._all_heard.set()


# The acceptor ------------------------------------------------------------------------------------------


async def accept(answer_kib: int) -> None:
    """Serve links, and do what the lines on standard input say."""
    identity = parse_identity(json.loads(sys.stdin.readline()))
    links = OpenLinks()
    answer = Bundle(files={"1.root.json": bytes(answer_kib * 1024)})

    async def bundle(link: Link, request: BundleRequest) -> Bundle:
        return answer

    async def have(link: Link) -> None:
        async for _ in link.frames():
            pass

    async def serve(*, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        await serve_links(
            host="127.0.0.1",
            port=0,
            identity=lambda: identity,
            requests={"/bundle": RequestHandler(BundleRequest, bundle)},
            on_link=have,
            revoked=lambda node: False,
            open_links=links,
            task_status=task_status,
        )

    async with trio.open_nursery() as nursery:
        _, port = await nursery.start(serve)
        print(json.dumps({"port": port}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if line.strip() == "notify":
                for link in links:
                    link.send_nowait(MetadataVersions(versions={"timestamp": 1}))
            gc.collect()
            print(json.dumps({"rss": resident_bytes(), "cpu": time.process_time()}), flush=True)
        nursery.cancel_scope.cancel()


# Between the two ---------------------------------------------------------------------------------------


def identities() -> tuple[dict[str, str], dict[str, str]]:
    """Make a fleet, and return the identities of an acceptor and of the devices."""
    now = datetime.now(UTC)
    authority = FleetAuthority.create(parse_fleet("bench"), now)

    def make() -> dict[str, str]:
        key = IdentityKey.generate()
        certificate = authority.issue(
            key.public,
            group=GroupPath("/emea/berlin"),
            swarms=[SwarmName("stable.bench.swarm.p2pdist.internal")],
            life_s=86_400,
            now=now,
        )
        parts = {
            "certificate_pem": certificate,
            "key_pem": key.private_pem(),
            "ca_pem": authority.certificate_pem,
        }
        return {name: base64.b64encode(value).decode() for name, value in parts.items()}

    return make(), make()


def parse_identity(parts: dict[str, str]) -> TlsIdentity:
    """Read what :func:`identities` made."""
    return TlsIdentity(**{name: base64.b64decode(value) for name, value in parts.items()})


def resident_bytes() -> int:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def tell(process: subprocess.Popen[str], message: Any) -> None:
    """Send one line to the acceptor."""
    assert process.stdin is not None
    process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    process.stdin.flush()


async def hear(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Receive one line from the acceptor."""
    assert process.stdout is not None
    answer: dict[str, Any] = json.loads(await trio.to_thread.run_sync(process.stdout.readline))
    return answer


async def ask(process: subprocess.Popen[str], command: str) -> dict[str, Any]:
    """Tell, and hear what it has used so far."""
    tell(process, command)
    return await hear(process)


if __name__ == "__main__":
    main()
