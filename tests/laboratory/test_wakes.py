"""Wakes and magic packets on a real segment: to everybody on it, over both families, from another machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from laboratory.network import Host, Laboratory, Place

pytestmark = pytest.mark.network

MAC = "02:00:5e:10:00:07"

SENDS = f"""
from p2pdist.net.magic import send_magic
from p2pdist.net.wakes import open_wake_sender, segments
from p2pdist.wire.wakes import DATAGRAM_BYTES
near = segments()
with open_wake_sender() as sender:
    send_magic(sender, ["{MAC}"], near)
    sender.to_segments((b"p2w1TAG-TAG-" + bytes(100))[:DATAGRAM_BYTES], 7604, near)
    print(sender.sent)
"""

WAKES = """
import trio
from p2pdist.net.wakes import open_wake_socket
async def main():
    with open_wake_socket("*", 7604, b"p2w1TAG-TAG-") as wakes:
        print("ready", flush=True)
        with trio.move_on_after(5):
            for _ in range(2):
                await wakes.receive()
        print(wakes.read, flush=True)
trio.run(main)
"""

FRAMES = f"""
import socket, time
pattern = b"\\xff" * 6 + bytes.fromhex("{MAC.replace(":", "")}") * 16
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) as wire:
    wire.settimeout(5)
    print("ready", flush=True)
    seen = set()
    while len(seen) < 2:
        try:
            frame = wire.recv(2048)
        except TimeoutError:
            break
        if pattern in frame:
            seen.add(frame[12:14].hex() + " to " + frame[:6].hex())
    print(sorted(seen), flush=True)
"""


@pytest.fixture(scope="module")
def segment() -> Iterator[Place]:
    with Laboratory() as laboratory:
        yield laboratory.add("port-restricted", hosts=2)


def watched(host: Host, script: str, sender: Host) -> str:
    """Run *script* on a host; once it is ready, send from another one, and return what it says then."""
    with subprocess.Popen(
        host.command(sys.executable, "-c", script), stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "ready\n"
        assert int(sender.run(sys.executable, "-c", SENDS)) >= 4, "two packets over each family"
        return watching.stdout.readline().strip()


def test_a_wake_for_the_segment_arrives_at_the_others_on_it_over_both_families(segment: Place) -> None:
    sender, device = segment.hosts
    assert watched(device, WAKES, sender) == "2"


def test_a_magic_packet_is_seen_on_the_wire_as_broadcast_and_as_multicast(segment: Place) -> None:
    sender, device = segment.hosts
    said = watched(device, FRAMES, sender)
    assert "0800 to ffffffffffff" in said and "86dd to 333300000001" in said
