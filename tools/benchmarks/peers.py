"""What else holds thousands of mutually authenticated TLS connections: measured with the same certificates.

mosquitto  an MQTT broker (C, one thread) with one topic that every device has subscribed to
nginx      idle HTTPS connections kept alive (C, one worker); it has no way to notify them
trio       a bare TLS server in Python on trio's own streams: no protocol, no routing, no receipts
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carried import Carried
from memory import memory_of
from speakers import Setting

from p2pdist.ids import GroupPath
from p2pdist.trust.keys import IdentityKey

_PAYLOAD = bytes(91)  # as long as the product's frame
_PORT = 8883
_ROUNDS = 3

_MOSQUITTO = """
listener {port} {host}
cafile {folder}/ca.pem
certfile {folder}/peer.pem
keyfile {folder}/peer.key
require_certificate true
tls_version tlsv1.3
allow_anonymous true
max_connections -1
persistence false
user {user}
log_dest none
"""

_NGINX = """
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    keepalive_timeout 1h;
    keepalive_requests 1000000;
    server {{
        listen {host}:{port} ssl backlog=4096;
        ssl_protocols TLSv1.3;
        ssl_session_tickets off;
        ssl_certificate {folder}/peer.pem;
        ssl_certificate_key {folder}/peer.key;
        ssl_client_certificate {folder}/ca.pem;
        ssl_verify_client on;
        return 204;
    }}
}}
"""

Notify = Callable[[], None]


class Peer:
    """A running peer: its processes, and what makes it notify everybody (None if it cannot)."""

    def __init__(self, process: subprocess.Popen[bytes], speaker: str, notify: Notify | None) -> None:
        self.process = process
        self.speaker = speaker
        self.notify = notify

    def pids(self) -> list[int]:
        """Return the process and its children."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]


def measure_peer(name: str, options: argparse.Namespace, carried: Carried) -> dict[str, Any]:
    """Attach every device to a peer, and measure."""
    if name != "trio" and not shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        return {"skipped": f"{name} is not installed"}
    folder = carried.directory / name
    folder.mkdir()
    address = (f"{carried.network}.0.3", _PORT)
    _write_identity(carried, folder)
    with (
        PEERS[name](folder, address, options.connections) as peer,
        carried.crowd(peer.speaker, address, options.processes, Setting()) as crowds,
    ):
        time.sleep(1.0)
        before, begun = memory_of(*peer.pids()), time.monotonic()
        attached_at, failures = crowds.attach(options.at_once)
        time.sleep(min(5.0, options.settle))
        memory = memory_of(*peer.pids()).per(options.connections, before)
        result: dict[str, Any] = {
            "handshakes_per_second": round(options.connections / (attached_at - begun), 1),
            "attach_failures": failures,
            "bytes_per_connection": memory["rss"],
            "memory_per_connection": memory,
        }
        if peer.notify is not None:
            seconds: list[float] = []
            for _ in range(_ROUNDS):
                crowds.ask("listen", follow=False)
                begun = time.monotonic()
                peer.notify()
                heard, missing = crowds.heard("notification", 60.0)
                seconds += [at - begun for at in heard] + [float("inf")] * missing
            seconds.sort()
            for key, place in (("p50", len(seconds) // 2), ("p99", len(seconds) * 99 // 100), ("max", -1)):
                result[f"fanout_seconds_{key}"] = round(seconds[place], 3)
        return result


def _write_identity(carried: Carried, folder: Path) -> None:
    key, authority = IdentityKey.generate(), carried.authority
    certificate = authority.issue(
        key.public, group=GroupPath("/peers"), swarms=[], life_s=24 * 3600, now=datetime.now(UTC)
    )
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    (folder / "peer.pem").write_bytes(certificate)
    (folder / "peer.key").touch(mode=0o600)
    (folder / "peer.key").write_bytes(key.private_pem())


@contextmanager
def _running(
    command: list[str], address: tuple[str, int], speaker: str, notify: Notify | None = None
) -> Iterator[Peer]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 10.0
        while True:
            try:
                socket.create_connection(address, timeout=1.0).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start") from None
                time.sleep(0.05)
        yield Peer(process, speaker, notify)
    finally:
        process.terminate()
        try:
            process.wait(10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _mosquitto(folder: Path, address: tuple[str, int], count: int) -> Iterator[Peer]:
    host, port = address
    config = folder / "mosquitto.conf"
    user = os.environ.get("USER", "root")
    config.write_text(_MOSQUITTO.format(host=host, port=port, folder=folder, user=user))

    def notify() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(folder / "ca.pem")
        context.load_cert_chain(folder / "peer.pem", folder / "peer.key")
        with context.wrap_socket(socket.create_connection(address)) as publisher:
            publisher.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05bench")
            publisher.recv(4)
            topic = b"\x00\x08versions"
            publisher.sendall(b"\x30" + bytes([len(topic) + len(_PAYLOAD)]) + topic + _PAYLOAD + b"\xe0\x00")

    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "mosquitto"
    with _running([program, "-c", str(config)], address, "mqtt", notify) as peer:
        yield peer


@contextmanager
def _nginx(folder: Path, address: tuple[str, int], count: int) -> Iterator[Peer]:
    host, port = address
    config = folder / "nginx.conf"
    # With few connections to spare nginx closes idle ones.
    config.write_text(
        _NGINX.format(host=host, port=port, folder=folder, files=count + 200, connections=2 * count + 200)
    )
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "nginx"
    with _running([program, "-p", str(folder), "-c", str(config)], address, "http") as peer:
        yield peer


@contextmanager
def _trio(folder: Path, address: tuple[str, int], count: int) -> Iterator[Peer]:
    started: list[Peer] = []

    def notify() -> None:
        stdin = started[0].process.stdin
        assert stdin is not None
        stdin.write(b"notify\n")
        stdin.flush()

    program = str(Path(__file__).with_name("plain_server.py"))
    command = [sys.executable, program, str(folder), address[0], str(address[1])]
    with _running(command, address, "plain", notify) as peer:
        started.append(peer)
        yield peer


PEERS = {"mosquitto": _mosquitto, "nginx": _nginx, "trio": _trio}
