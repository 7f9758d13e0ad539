"""Which node of the demonstration has which address, directory and configuration file.

Every node listens on, and dials from, a loopback address of its own, so that its site can be read from
its address: the admin server is ``127.N.0.1``, the distribution point of site k ``127.N.k.1``, its
devices ``127.N.k.11`` and so on. N is the first number from 77 on that is free on this machine.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FLEET = "demo"
CHANNEL = "stable"
DEVICES_GROUP = "/branches"
POINTS_GROUP = "/infrastructure"

API_PORT = 7600
LINK_PORT = 7601
SWARM_PORT = 7602

_NETWORKS = range(77, 120)


class DemoError(Exception):
    """The demonstration cannot go on. The text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A distribution point or a device."""

    name: str
    role: Literal["point", "device"]
    site: int
    host: str
    home: Path
    """Its directory: ``data/``, ``root/`` (what is installed), its configuration."""

    @property
    def program(self) -> str:
        return "p2pdist-seed" if self.role == "point" else "p2pdist-agent"

    @property
    def group(self) -> str:
        return POINTS_GROUP if self.role == "point" else site_group(self.site)

    @property
    def config(self) -> Path:
        return self.home / f"{self.program.removeprefix('p2pdist-')}.toml"

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def root(self) -> Path:
        return self.home / "root"

    def write_config(self) -> None:
        """Write its configuration file, and make its directories."""
        self.root.mkdir(parents=True)
        tables: dict[str, dict[str, object]] = {
            "node": {"data": str(self.data), "name": self.name},
            "link": {"local_host": self.host},
            "swarm": {"host": self.host, "port": SWARM_PORT},
            "install": {"root": str(self.root)},
            "log": {"level": "info", "json": True},
        }
        if self.role == "point":
            tables["point"] = {"host": self.host, "port": LINK_PORT}
        self.config.write_text(_toml(tables))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole fleet."""

    directory: Path
    network: int
    points: tuple[Node, ...]
    devices: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.points + self.devices

    @property
    def server_host(self) -> str:
        return f"127.{self.network}.0.1"

    @property
    def server(self) -> Path:
        return self.directory / "server"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def api(self) -> str:
        return f"https://{self.server_host}:{API_PORT}"

    @property
    def link(self) -> str:
        return f"{self.server_host}:{LINK_PORT}"


def site_group(site: int) -> str:
    """The administration group of a site's devices."""
    return f"{DEVICES_GROUP}/site-{site}"


def make_plan(directory: Path, *, network: int, sites: int, devices: int) -> Plan:
    """Lay out a fleet below *directory*, on a network that :func:`claimed_network` has given."""

    def node(role: Literal["point", "device"], site: int, number: int) -> Node:
        name = f"site{site}-point" if role == "point" else f"site{site}-pc{number}"
        last = 1 if role == "point" else 10 + number
        host = f"127.{network}.{site}.{last}"
        return Node(name=name, role=role, site=site, host=host, home=directory / name)

    return Plan(
        directory=directory,
        network=network,
        points=tuple(node("point", site, 0) for site in range(1, sites + 1)),
        devices=tuple(
            node("device", site, number) for site in range(1, sites + 1) for number in range(1, devices + 1)
        ),
    )


@contextmanager
def claimed_network() -> Iterator[int]:
    """Give N of the first free loopback network 127.N, which no other demonstration takes meanwhile.

    The claim is an abstract Unix socket: the kernel drops it when the process dies, however it dies. One
    that was left running with ``--keep`` has no process that claims, but its ports are taken.

    Raises:
        DemoError: this machine has none that is free.
    """
    for network in _NETWORKS:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(f"\0p2pdist-demo-{network}")
                _try_ports(f"127.{network}.0.1")
            except OSError:
                continue
            yield network
            return
    raise DemoError(
        f"port {API_PORT}, {LINK_PORT} or {SWARM_PORT} is taken on all loopback addresses that were tried;"
        " end a demonstration that was left running with --keep"
    )


def _try_ports(host: str) -> None:
    """Raises OSError if a port of the admin server is taken."""
    for port in (API_PORT, LINK_PORT, SWARM_PORT):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))


def _toml(tables: dict[str, dict[str, object]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)
