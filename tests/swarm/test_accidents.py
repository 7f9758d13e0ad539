"""What a process survives that is killed, or runs out of disk, in the middle of a fetch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from swarm_fleet import SWARM, Node, artifact, authority, content, made

from p2pdist.swarm.session import Swarm
from p2pdist.swarm.torrents import MadeTorrent

SIZE = 2_000_003
SCRIPT = Path(__file__).with_name("fetching_process.py")


def plan(
    torrent: MadeTorrent, origin: Node, seeding: Swarm, device: Node, path: Path, **more: object
) -> dict[str, object]:
    return {
        "node": device.node,
        "host": device.host,
        "ca": device.ca_pem.decode(),
        "certificate": device.certificate_pem.decode(),
        "key": device.key.private_pem().decode(),
        "info_hash": torrent.info_hash,
        "torrent": torrent.torrent.hex(),
        "path": str(path),
        "swarm": SWARM,
        "length": torrent.length,
        "source": origin.node,
        "source_host": origin.host,
        "source_port": seeding.port,
        **more,
    }


class Fetching:
    """The process, and the lines that it writes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._waiting = b""

    async def wait_line(self, start: str) -> str:
        """Return the next line that starts so; fail when the process ends before."""
        assert self.process.stdout is not None
        with trio.fail_after(60):
            while True:
                line, newline, rest = self._waiting.partition(b"\n")
                if newline:
                    self._waiting = rest
                    if line.decode().startswith(start):
                        return line.decode()
                    continue
                data = await self.process.stdout.receive_some()
                assert data, f"the process ended without {start!r}"
                self._waiting += data


@asynccontextmanager
async def fetching(description: dict[str, object], *wrapper: str) -> AsyncIterator[Fetching]:
    process: Any = await trio.lowlevel.open_process(
        [*wrapper, sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    async with process.stdin, process.stdout:
        await process.stdin.send_all(json.dumps(description).encode())
        await process.stdin.aclose()
        try:
            yield Fetching(process)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.mark.slow
async def test_a_process_killed_in_the_middle_goes_on_where_it_was_and_ends_with_the_right_content(
    tmp_path: Path,
) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    path = tmp_path / "fetched"
    async with origin.open() as seeding:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        async with fetching(plan(torrent, origin, seeding, device, path, rate=250_000)) as first:
            with trio.fail_after(30):
                while not path.exists() or path.stat().st_blocks * 512 < 200_000:
                    await trio.sleep(0.05)
            first.process.kill()
            await first.process.wait()
        held = path.stat().st_blocks * 512
        assert path.read_bytes() != data
        async with fetching(plan(torrent, origin, seeding, device, path)) as second:
            finished = await second.wait_line("finished")
        assert 0 < int(finished.split()[1]) < SIZE - held / 2
        assert path.read_bytes() == data


@pytest.mark.slow
async def test_a_fetch_rests_while_the_file_cannot_grow_and_goes_on_when_it_can(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    path = tmp_path / "fetched"
    async with origin.open() as seeding:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        description = plan(torrent, origin, seeding, device, path, file_bytes_max=600_000)
        async with fetching(description) as process:
            assert "fetched" in await process.wait_line("failed")
            await process.wait_line("finished")
        assert path.read_bytes() == data


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts a small file system")
async def test_a_fetch_rests_while_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    data = content(SIZE)
    torrent = made(tmp_path, data)
    fleet = authority()
    origin, device = Node(fleet, "origin", "127.0.0.1"), Node(fleet, "device", "127.0.0.2")
    disk = tmp_path / "disk"
    disk.mkdir()
    fill = f'mount -t tmpfs -o size=4m tmpfs "{disk}" && head -c 3000000 /dev/zero >"{disk}/ballast"'
    wrapper = ("unshare", "--mount", "sh", "-c", f'{fill} && exec "$@"', "sh")
    async with origin.open() as seeding:
        await seeding.add(artifact(torrent, tmp_path / "original", sealed=True))
        async with fetching(plan(torrent, origin, seeding, device, disk / "fetched"), *wrapper) as process:
            assert "No space left" in await process.wait_line("failed")
            inside = Path(f"/proc/{process.process.pid}/root{disk}")
            (inside / "ballast").unlink()
            await process.wait_line("finished")
            assert (inside / "fetched").read_bytes() == data
