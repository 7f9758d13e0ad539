"""A BitTorrent tracker (BEP 3, BEP 23) for one torrent, for the stock clients of the benchmark."""

from __future__ import annotations

import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import libtorrent as lt

_peers: dict[tuple[str, int], float] = {}
_FORGET_S = 300.0


class Announce(BaseHTTPRequestHandler):
    """Remembers who announced, and answers with everybody else."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        me = (self.client_address[0], int(query["port"][0]))
        _peers[me] = time.monotonic()
        alive = [peer for peer, seen in _peers.items() if time.monotonic() - seen < _FORGET_S and peer != me]
        packed = b"".join(socket.inet_aton(host) + port.to_bytes(2, "big") for host, port in alive)
        answer: dict[bytes, Any] = {b"interval": 30, b"min interval": 5, b"peers": packed}
        body = lt.bencode(answer)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Announce).serve_forever()
