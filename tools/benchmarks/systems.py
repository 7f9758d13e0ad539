"""The four systems that tools/bench wan compares, each from its start to its last device.

A system is a function that starts its processes, waits until they are ready, calls ``go`` (which reads
the counters and the clock), and returns when every device has the package.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import libtorrent as lt
import msgspec
from network import Host, Network
from processes import FinishTimes, Processes, Started

from p2pdist.ids import FleetName, GroupPath, SwarmName
from p2pdist.swarm.session import Artifact, Source, SwarmSettings
from p2pdist.swarm.torrents import MadeTorrent, make_torrent
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.trust.keys import IdentityKey
from p2pdist.wire.frames import Role

HERE = Path(__file__).parent
SWARM = SwarmName("bench.bench.swarm.p2pdist.internal")
HTTP_PORT = 80
SWARM_PORT = 6881
TRACKER_PORT = 6969


@dataclass
class Run:
    """What a system has to work with."""

    network: Network
    package: Path
    directory: Path
    processes: Processes
    finished: FinishTimes
    go: Callable[[], None]
    deadline_s: float

    def devices(self) -> Iterator[tuple[str, Host]]:
        """Yield every device's name and host."""
        return named_devices(self.network)

    def output(self, name: str) -> Path:
        """Return where a device's copy goes."""
        return self.directory / name / self.package.name

    def wait(self) -> None:
        """Wait until every device has finished."""
        self.processes.wait_all(self.finished.complete, deadline_s=self.deadline_s, what="the last device")


def named_devices(network: Network) -> Iterator[tuple[str, Host]]:
    """Yield every device's name and host."""
    for site in network.sites:
        for index, host in enumerate(site.devices, 1):
            yield f"site{site.number}-device{index}", host


# HTTP ---------------------------------------------------------------------------------------------


def plain_http(run: Run) -> None:
    """(a) Every device downloads from nginx at the origin."""
    _nginx(run, "origin", run.network.origin, _serving(run.package.parent))
    _download(run, lambda _: run.network.origin)


def site_cache(run: Run) -> None:
    """(b) Every device downloads from an nginx at its site that caches, in slices, what it fetches."""
    _nginx(run, "origin", run.network.origin, _serving(run.package.parent))
    for site in run.network.sites:
        _nginx(run, "cache", site.point, _caching(run.network.origin, run.directory / f"cache{site.number}"))
    caches = {f"site{site.number}": site.point for site in run.network.sites}
    _download(run, lambda name: caches[name.partition("-")[0]])


def _download(run: Run, server: Callable[[str], Host]) -> None:
    run.go()
    curls: dict[str, Started] = {}
    for name, host in run.devices():
        run.output(name).parent.mkdir()
        url = f"http://{server(name).address}/{run.package.name}"
        curls[name] = run.processes.start(
            "device", host, "curl", "--silent", "--show-error", "--fail", "-o", str(run.output(name)), url
        )

    def done() -> bool:
        for name, curl in curls.items():
            code = curl.process.poll()
            if code is not None and name not in run.finished.times:
                if code:
                    raise SystemExit(f"curl on {name} ended with {code}")
                run.finished.finished(name)
        return run.finished.complete()

    run.processes.wait_all(done, deadline_s=run.deadline_s, what="the last device")


def _serving(directory: Path) -> str:
    return f"server {{ listen {HTTP_PORT}; root {directory}; }}"


def _caching(origin: Host, directory: Path) -> str:
    return f"""
    proxy_cache_path {directory} keys_zone=packages:1m max_size=20g use_temp_path=off;
    server {{
        listen {HTTP_PORT};
        location / {{
            slice 1m;
            proxy_pass http://{origin.address};
            proxy_http_version 1.1;
            proxy_cache packages;
            proxy_cache_key $uri$slice_range;
            proxy_set_header Range $slice_range;
            proxy_cache_valid 200 206 1h;
            proxy_cache_lock on;
            proxy_cache_lock_timeout 1h;
            proxy_cache_lock_age 1h;
        }}
    }}"""


def _nginx(run: Run, role: str, host: Host, servers: str) -> None:
    directory = run.directory / f"nginx-{host.namespace}"
    directory.mkdir()
    configuration = directory / "nginx.conf"
    configuration.write_text(f"""
daemon off; master_process off; pid {directory}/pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    {servers}
}}
""")
    run.processes.start(role, host, "nginx", "-p", str(directory), "-c", str(configuration))
    _wait_listening(run, host, HTTP_PORT)


def _wait_listening(run: Run, host: Host, port: int) -> None:
    wanted = f"{port:04X} 00000000:0000 0A"

    def listening() -> bool:
        table = subprocess.run(
            host.command("cat", "/proc/net/tcp"), capture_output=True, text=True, check=True
        ).stdout
        return wanted in table

    run.processes.wait_all(listening, deadline_s=10, what=f"port {port}")


# Stock BitTorrent ---------------------------------------------------------------------------------


def stock_bittorrent(run: Run) -> None:
    """(c) aria2 on every device, with a tracker, peer exchange, local discovery, and a web seed."""
    origin = run.network.origin
    _nginx(run, "origin", origin, _serving(run.package.parent))
    run.processes.start("tracker", origin, sys.executable, str(HERE / "tracker.py"), str(TRACKER_PORT))
    _wait_listening(run, origin, TRACKER_PORT)
    torrent = run.directory / "package.torrent"
    torrent.write_bytes(_stock_torrent(run.package, origin))
    hook = run.directory / "hook"
    hook.write_text('#!/bin/sh\n: >"$(dirname "$3")/finished"\n')
    hook.chmod(0o755)
    run.go()
    for name, host in run.devices():
        directory = run.output(name).parent
        directory.mkdir()
        run.processes.start(
            "device",
            host,
            "aria2c",
            "--quiet",
            "--no-conf",
            f"--dir={directory}",
            "--enable-dht=false",
            "--bt-enable-lpd=true",
            "--seed-ratio=0.0",
            "--file-allocation=none",
            f"--listen-port={SWARM_PORT}",
            f"--on-bt-download-complete={hook}",
            str(torrent),
        )

    def done() -> bool:
        for name, _ in run.devices():
            if name not in run.finished.times and (run.output(name).parent / "finished").exists():
                run.finished.finished(name)
        return run.finished.complete()

    run.processes.wait_all(done, deadline_s=run.deadline_s, what="the last device")


def _stock_torrent(package: Path, origin: Host) -> bytes:
    made = lt.create_torrent(
        [lt.create_file_entry(package.name, package.stat().st_size)], 256 * 1024, lt.create_torrent.v1_only
    )
    made.add_tracker(f"http://{origin.address}:{TRACKER_PORT}/announce")
    made.add_url_seed(f"http://{origin.address}/{urllib.parse.quote(package.name)}")
    lt.set_piece_hashes(made, str(package.parent))
    return lt.bencode(made.generate())


# p2pdist ------------------------------------------------------------------------------------------


@dataclass
class Node:
    """A node of the swarm: its host and identity, and its process once it runs."""

    name: str
    role: Role
    host: Host
    key: IdentityKey
    started: Started | None = None

    def source(self, *, wan: bool) -> Source:
        """Return what others know it by."""
        return Source(node=self.key.node, role=self.role, host=self.host.address, port=SWARM_PORT, wan=wan)


def p2pdist(run: Run) -> None:
    """(d) The origin, a distribution point per site, and the devices, as p2pdist's swarm."""
    torrent = make_torrent(run.package, swarm=SWARM)
    authority = FleetAuthority.create(FleetName("bench"), datetime.now(UTC) - timedelta(minutes=1))
    origin = Node("origin", "origin", run.network.origin, IdentityKey.generate())
    points = [
        Node(f"site{site.number}-point", "point", site.point, IdentityKey.generate())
        for site in run.network.sites
    ]
    devices = {name: Node(name, "device", host, IdentityKey.generate()) for name, host in run.devices()}
    everybody = [origin, *points, *devices.values()]
    for node in everybody:
        start_node(run, node, torrent, authority, _sources(node, origin, points, devices), everybody)
    for node in everybody:
        assert node.started is not None and node.started.process.stdout is not None
        if node.started.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{node.name} did not start")
    run.go()
    for node in reversed(everybody):
        _tell(node, "go")
        threading.Thread(target=_listen, args=(node, run), daemon=True).start()
    run.wait()


def start_node(
    run: Run,
    node: Node,
    torrent: MadeTorrent,
    authority: FleetAuthority,
    sources: list[Source],
    everybody: list[Node],
) -> None:
    """Start a node's process in its host. The only place that knows which program it is."""
    settings = SwarmSettings(
        role=node.role,
        node=node.key.node,
        host=node.host.address,
        port=SWARM_PORT,
        ca_pem=authority.certificate_pem,
        certificate_pem=authority.issue(
            node.key.public, group=GroupPath("/"), swarms=[SWARM], life_s=86_400, now=datetime.now(UTC)
        ),
        key_pem=node.key.private_pem(),
    )
    sealed = node.role == "origin"
    path = run.package if sealed else run.output(node.name)
    path.parent.mkdir(exist_ok=True)
    artifact = Artifact(
        info_hash=torrent.info_hash,
        torrent=torrent.torrent,
        path=path,
        swarm=SWARM,
        length=torrent.length,
        sealed=sealed,
    )
    plan: Mapping[str, Any] = {
        "settings": msgspec.to_builtins(settings),
        "artifact": msgspec.to_builtins(artifact, enc_hook=os.fspath),
        "sources": msgspec.to_builtins(sources),
        "others": [other.key.node for other in everybody],
    }
    node.started = run.processes.start(
        node.role, node.host, sys.executable, str(HERE / "node.py"), pipes=True
    )
    _tell(node, json.dumps(plan))


def _sources(node: Node, origin: Node, points: list[Node], devices: Mapping[str, Node]) -> list[Source]:
    """A point fetches from the origin and the other points, a device within its site."""
    if node.role == "origin":
        return []
    if node.role == "point":
        return [other.source(wan=True) for other in (origin, *points) if other is not node]
    site = node.name.partition("-")[0]
    near = [*points, *devices.values()]
    return [
        other.source(wan=False)
        for other in near
        if other is not node and other.name.partition("-")[0] == site
    ]


def _tell(node: Node, line: str) -> None:
    assert node.started is not None and node.started.process.stdin is not None
    node.started.process.stdin.write(line + "\n")
    node.started.process.stdin.flush()


def _listen(node: Node, run: Run) -> None:
    assert node.started is not None and node.started.process.stdout is not None
    for line in node.started.process.stdout:
        word, _, rest = line.strip().partition(" ")
        if word == "finished":
            run.finished.finished(node.name, float(rest))


SYSTEMS: Mapping[str, Callable[[Run], None]] = {
    "http": plain_http,
    "cache": site_cache,
    "bittorrent": stock_bittorrent,
    "p2pdist": p2pdist,
}
