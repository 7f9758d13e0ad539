"""Punches holes to many peers at once with plain sockets; runs on a host of a laboratory.

Reads two lines of JSON. The first, ``{"me": name, "late_s": seconds, "servers": [address, ...], "paths":
[name, ...]}``: it opens a socket for each path and address family and prints ``{path: [[address, port],
...]}``, its own and outside endpoints. The second is the same of the peers: it calls all of them for some
seconds, wherever it hears one from, and prints ``{path: bool}``, whether a datagram came that answers one
of its own. Datagrams carry the path's and the caller's name, because a peer's private address is somebody
else's here.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from typing import Any

INTERVAL_S = 0.1
CALLING_S = 2.5
ASKING_S = 0.5
ASKS = 3


class Path:
    """One path: its sockets, where to call, and what was heard."""

    def __init__(self, name: str, me: str, servers: list[str]) -> None:
        self.name = name
        self.me = me
        self.heard = False
        self.answered = False
        self.targets: set[tuple[socket.socket, tuple[str, int]]] = set()
        self.sockets = {}
        self.endpoints: list[list[Any]] = []
        for server in servers:
            family = socket.AF_INET6 if ":" in server else socket.AF_INET
            ours = socket.socket(family, socket.SOCK_DGRAM)
            ours.bind(("::" if ":" in server else "0.0.0.0", 0))
            self.sockets[family] = ours
            self.endpoints.append(own(server, ours))
            self.endpoints += outside(server, ours)
            ours.setblocking(False)

    def aim(self, endpoints: list[list[Any]]) -> None:
        """Call these too."""
        for address, port in endpoints:
            ours = self.sockets.get(socket.AF_INET6 if ":" in address else socket.AF_INET)
            if ours is not None:
                self.targets.add((ours, (address, port)))

    def call(self) -> None:
        """Send to every target; say whether the peer was heard."""
        hello = json.dumps([self.name, self.me, self.heard]).encode()
        for ours, target in self.targets:
            try:
                ours.sendto(hello, target)
            except OSError:
                continue

    def receive(self, ours: socket.socket) -> None:
        """Take one datagram, and call its sender from now on."""
        try:
            data, sender = ours.recvfrom(2048)
            name, caller, heard = json.loads(data)
        except (OSError, ValueError):
            return
        if name == self.name and caller != self.me:
            self.heard = True
            self.answered |= heard
            self.targets.add((ours, sender[:2]))


def own(server: str, ours: socket.socket) -> list[Any]:
    """Return a socket's own endpoint."""
    with socket.socket(ours.family, socket.SOCK_DGRAM) as asking:
        asking.connect((server, 9))
        return [asking.getsockname()[0], ours.getsockname()[1]]


silent: set[str] = set()
"""Servers that gave no answer: to ask for each path would take long."""


def outside(server: str, ours: socket.socket) -> list[list[Any]]:
    """Return a socket's endpoint as the responder sees it, if it does."""
    if server in silent:
        return []
    ours.settimeout(ASKING_S)
    for _ in range(ASKS):
        ours.sendto(json.dumps({"id": 0, "from": None, "after": 0}).encode(), (server, 3478))
        try:
            return [json.loads(ours.recv(2048))["seen"]]
        except OSError:
            continue
    silent.add(server)
    return []


def main() -> None:
    """Run the two steps."""
    plan = json.loads(sys.stdin.readline())
    paths = {name: Path(name, plan["me"], plan["servers"]) for name in plan["paths"]}
    print(json.dumps({name: path.endpoints for name, path in paths.items()}), flush=True)
    selector = selectors.DefaultSelector()
    for name, endpoints in json.loads(sys.stdin.readline()).items():
        paths[name].aim(endpoints)
        for ours in paths[name].sockets.values():
            selector.register(ours, selectors.EVENT_READ, paths[name])
    time.sleep(plan["late_s"])
    end = time.monotonic() + CALLING_S - plan["late_s"]
    while (now := time.monotonic()) < end:
        for path in paths.values():
            path.call()
        while (left := now + INTERVAL_S - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.receive(key.fileobj)
    print(json.dumps({name: path.answered for name, path in paths.items()}), flush=True)


if __name__ == "__main__":
    main()
