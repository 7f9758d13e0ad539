"""The server's side of a measurement: answers from where it is asked to. Plain sockets, no code of the
product.

    python -m laboratory.responder CONTROL ADDRESS ADDRESS [ADDRESS ADDRESS]

Addresses come in pairs, one pair a family. At each of them, datagrams to the two UDP ports are answered
with the endpoint that they came from, and once more, late or from another of the four endpoints, if they
ask for it. The first of a pair also takes TCP connections, and tells each where it came from. CONTROL is a
Unix socket, so that a probe can order a datagram or a connection to itself whatever its network lets
through. Prints a line when all is open.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

UDP_PORTS = (3478, 3479)
TCP_PORTS = (443, 8443)
DIAL_S = 1.0


def main() -> None:
    """Serve until killed."""
    control, *addresses = sys.argv[1:]
    for pair in zip(addresses[::2], addresses[1::2], strict=True):
        _serve_pair(pair)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(control)
    listener.listen(64)
    print("ready", flush=True)
    _serve(listener, lambda connection, _: _obey(connection))


def open_socket(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Return a socket bound to an address, which others may share."""
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.bind((address, port))
    return opened


def _serve_pair(pair: Sequence[str]) -> None:
    sockets = [[open_socket(address, port, socket.SOCK_DGRAM) for port in UDP_PORTS] for address in pair]
    for at_address in sockets:
        for at_port in at_address:
            threading.Thread(target=_answer, args=(at_port, sockets), daemon=True).start()
    for port in TCP_PORTS:
        listener = open_socket(pair[0], port, socket.SOCK_STREAM)
        listener.listen(64)
        threading.Thread(target=_serve, args=(listener, _tell), daemon=True).start()


def _answer(ours: socket.socket, sockets: Sequence[Sequence[socket.socket]]) -> None:
    """Answer datagrams ``{"id", "from": [address, port] or null, "after": seconds}``; counts from 0."""
    while True:
        data, peer = ours.recvfrom(2048)
        try:
            asked = json.loads(data)
        except ValueError:
            continue
        _send(ours, {"id": asked["id"], "seen": peer[:2], "first": True}, peer)
        if asked["from"] is not None:
            address, port = asked["from"]
            again = {"id": asked["id"], "seen": peer[:2], "first": False}
            other = sockets[address][port]
            threading.Timer(asked["after"], _send, (other, again, peer)).start()


def _send(ours: socket.socket, answer: dict[str, Any], peer: Any) -> None:
    ours.sendto(json.dumps(answer).encode(), peer)


def _serve(listener: socket.socket, handle: Callable[[socket.socket, Any], None]) -> None:
    while True:
        connection, peer = listener.accept()
        threading.Thread(target=handle, args=(connection, peer), daemon=True).start()


def _tell(connection: socket.socket, peer: Any) -> None:
    with connection:
        connection.sendall(json.dumps(peer[:2]).encode() + b"\n")
        connection.settimeout(60)
        try:
            connection.recv(1)
        except OSError:
            return


def _obey(connection: socket.socket) -> None:
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            order = json.loads(line)
            done = _datagram(order) if order["kind"] == "datagram" else _dial(order)
            lines.write(json.dumps(done) + "\n")
            lines.flush()


def _datagram(order: dict[str, Any]) -> bool:
    try:
        with open_socket(order["source"], 0, socket.SOCK_DGRAM) as ours:
            ours.sendto(b"{}", tuple(order["to"]))
    except OSError:
        return False
    return True


def _dial(order: dict[str, Any]) -> bool:
    with open_socket(order["source"], 0, socket.SOCK_STREAM) as ours:
        ours.settimeout(DIAL_S)
        try:
            ours.connect(tuple(order["to"]))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
