"""The four systems that tools/bench wan compares, each from its start to its last device.

A system is a function that starts its processes, waits until they are ready, calls ``go`` (which reads
the counters and the clock), and returns when every device has the package.
"""

from __future__ import annotations

import subprocess
import sys
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path

import libtorrent as lt
from fleet import p2pdist
from network import Host
from processes import Started
from running import Run

HERE = Path(__file__).parent
HTTP_PORT = 80
SWARM_PORT = 6881
TRACKER_PORT = 6969


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


SYSTEMS: Mapping[str, Callable[[Run], None]] = {
    "http": plain_http,
    "cache": site_cache,
    "bittorrent": stock_bittorrent,
    "p2pdist": p2pdist,
}
