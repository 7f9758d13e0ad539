"""Watches from where content comes to a host, on the wire, without a word of the product.

    python -m matrix.watch DEVICE ADDRESS...

Prints ``ready``; and when its standard input ends, a JSON object: for each address from which full packets
have come, when each did, in Unix seconds. Short packets are not content.
"""

from __future__ import annotations

import ipaddress
import json
import selectors
import socket
import sys
import time

FULL_BYTES = 1_000
_ETH_P_ALL = 3
_SOCKET_BUFFER_BYTES = 4 * 1024 * 1024
_PACKET_BYTES_MAX = 66_000
_BATCH = 256


def main() -> None:
    """Watch until the input ends."""
    device, *addresses = sys.argv[1:]
    wanted = {ipaddress.ip_address(address).packed: address for address in addresses}
    came: dict[str, list[float]] = {}
    with (
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as packets,
        selectors.DefaultSelector() as waiting,
    ):
        packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BUFFER_BYTES)
        packets.bind((device, _ETH_P_ALL))
        packets.setblocking(False)
        waiting.register(packets, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        while all(key.fileobj is packets for key, _ in waiting.select()):
            _take(packets, wanted, came)
    print(json.dumps(came), flush=True)


def _take(packets: socket.socket, wanted: dict[bytes, str], came: dict[str, list[float]]) -> None:
    for _ in range(_BATCH):
        try:
            packet, link = packets.recvfrom(_PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        source = wanted.get(packet[12:16] if packet[:1] < b"\x60" else packet[8:24])
        if source is not None and link[2] == socket.PACKET_HOST and len(packet) >= FULL_BYTES:
            came.setdefault(source, []).append(time.time())


if __name__ == "__main__":
    main()
