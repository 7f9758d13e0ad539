"""Which node of the demonstration has which machine, directory and configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from demo_fleet.network import Machine, Network, Site

FLEET = "demo"
CHANNEL = "stable"
DEVICES_GROUP = "/branches"
POINTS_GROUP = "/infrastructure"

API_PORT = 7600
LINK_PORT = 7601
SWARM_PORT = 7602


class DemoError(Exception):
    """The demonstration cannot go on. The text says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A distribution point or a device."""

    name: str
    role: Literal["point", "device"]
    site: int
    kind: str
    """What stands between its site and the admin server; empty is nothing."""
    dialled: bool
    """Whether it may dial nobody, if it is a point, or only its point."""
    machine: Machine
    home: Path
    """Its directory: ``data/``, ``root/`` (what is installed), its configuration."""

    @property
    def host(self) -> str:
        return self.machine.host

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

    def write_config(self, mirrors_ca: Path | None = None) -> None:
        """Write its configuration file, and make its directories.

        Args:
            mirrors_ca: The web authority by which a point knows mirrors; else it is the system's.
        """
        self.root.mkdir(parents=True)
        tables: dict[str, dict[str, object]] = {
            "node": {"data": str(self.data), "name": self.name},
            "install": {"root": str(self.root)},
            "log": {"level": "info", "json": True},
        }
        if self.machine.shared:
            tables["link"] = {"local_host": self.host}
            tables["swarm"] = {"host": self.host, "port": SWARM_PORT}
            if self.role == "point":
                tables["point"] = {"host": self.host, "port": LINK_PORT}
        if self.role == "point" and self.dialled:
            tables["point"] = {"dialled": True}
        if self.role == "point" and mirrors_ca is not None:
            tables["mirrors"] = {"ca_file": str(mirrors_ca)}
        self.config.write_text(toml(tables))


@dataclass(frozen=True, slots=True, kw_only=True)
class Newcomer:
    """A machine that has no agent yet."""

    name: str
    site: int
    kind: str
    """What stands between its site and the admin server."""
    machine: Machine

    @property
    def group(self) -> str:
        """Where it belongs once it has one."""
        return site_group(self.site)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole fleet, and the machines that are to join it."""

    directory: Path
    network: Network
    points: tuple[Node, ...]
    devices: tuple[Node, ...]
    newcomers: tuple[Newcomer, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.points + self.devices

    @property
    def server_host(self) -> str:
        return self.network.server.host

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


def make_plan(directory: Path, network: Network) -> Plan:
    """Lay out a fleet below *directory*, on the machines of a network."""

    def node(role: Literal["point", "device"], site: Site, machine: Machine, name: str) -> Node:
        name = f"site{site.number}-{name}"
        return Node(
            name=name,
            role=role,
            site=site.number,
            kind=site.kind,
            dialled=site.gateway_dialled,
            machine=machine,
            home=directory / name,
        )

    return Plan(
        directory=directory,
        network=network,
        points=tuple(node("point", site, site.point, "point") for site in network.sites),
        devices=tuple(
            node("device", site, machine, f"pc{number}")
            for site in network.sites
            for number, machine in enumerate(site.devices, 1)
        ),
        newcomers=tuple(
            Newcomer(name=f"site{site.number}-new{number}", site=site.number, kind=site.kind, machine=machine)
            for site in network.sites
            for number, machine in enumerate(site.bare, 1)
        ),
    )


def toml(tables: dict[str, dict[str, object]]) -> str:
    lines = []
    for table, values in tables.items():
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)
