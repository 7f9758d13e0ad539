"""A long line: passes frames between two devices, each after a delay; the program of a link.

    line.py DEVICE DEVICE DELAY_MS

The kernels that this runs on have no netem. The frames come with their offloads (``PACKET_VNET_HDR``), so
that unfinished checksums and unsegmented TCP pass as they are. It prints a line when it is ready, and ends
when it is killed or a device is gone. At most :data:`FRAMES_MAX` frames are on their way in each direction;
more are lost.
"""

from __future__ import annotations

import selectors
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

FRAMES_MAX = 4096
_FRAME_BYTES_MAX = 66_000
_BATCH_FRAMES = 64
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 15, 23
_SOCKET_BUFFER_BYTES = 4 * 1024 * 1024


@dataclass
class Direction:
    """Frames on their way from one device to the other, each with the time at which it is there."""

    source: socket.socket
    goal: socket.socket
    frames: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, arrives: float) -> None:
        """Take in what has come, but only so much that the other direction has its turn."""
        for _ in range(_BATCH_FRAMES):
            try:
                frame = self.source.recv(_FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            if len(self.frames) < FRAMES_MAX:
                self.frames.append((arrives, frame))

    def deliver(self, now: float) -> None:
        """Send what is there by now; a full device loses it, as devices do."""
        while self.frames and self.frames[0][0] <= now:
            _, frame = self.frames.popleft()
            try:
                self.goal.send(frame)
            except BlockingIOError:
                continue


def main() -> None:
    """Pass frames until killed."""
    left, right = (_open(device) for device in sys.argv[1:3])
    delay_s = float(sys.argv[3]) / 1000
    directions = [Direction(left, right), Direction(right, left)]
    selector = selectors.DefaultSelector()
    for direction in directions:
        selector.register(direction.source, selectors.EVENT_READ, direction)
    print("ready", flush=True)
    with suppress(OSError):  # a device is gone
        _pass_on(directions, selector, delay_s)


def _pass_on(directions: list[Direction], selector: selectors.BaseSelector, delay_s: float) -> None:
    while True:
        next_times = [direction.frames[0][0] for direction in directions if direction.frames]
        wait_s = max(0.0, min(next_times) - time.monotonic()) if next_times else None
        for key, _ in selector.select(wait_s):
            key.data.take(time.monotonic() + delay_s)
        for direction in directions:
            direction.deliver(time.monotonic())


def _open(device: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    for option in (_PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING):
        opened.setsockopt(_SOL_PACKET, option, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
    opened.bind((device, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


if __name__ == "__main__":
    main()
