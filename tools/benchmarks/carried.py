"""A fleet whose devices all stand behind one gateway: the real programs, and a crowd of light devices."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import crowds
import sqlalchemy as sa
from crowds import Crowds, Identity
from fleet import API_PORT, GROUP, LINK_PORT, Fleet
from memory import Memory, memory_of
from network import Host
from processes import Processes, Started
from running import Run
from speakers import Setting

from p2pdist.cli.client import Client
from p2pdist.cli.profile import Target, read_ca, read_token
from p2pdist.cli.publishing import publish, read_publication, upload
from p2pdist.ids import GroupPath, SwarmName
from p2pdist.install.platform import detect_platform
from p2pdist.server.serverhome import ServerHome
from p2pdist.store.fleetstore import FleetStore
from p2pdist.store.tables import devices
from p2pdist.trust.certificates import FleetAuthority
from p2pdist.wire import api

_SITE = GroupPath(f"{GROUP}/site1")
_SWARM = SwarmName("stable.bench.swarm.p2pdist.internal")
_LIFE_S = 24 * 3600
_PACKAGE_BYTES = 4_096
_ROWS = 1_000


class _Loopback(Host):
    """An address of this machine."""

    def command(self, *command: str) -> list[str]:
        return list(command)


class _OneMachine:
    """What :class:`fleet.Fleet` needs of a network, without one."""

    def __init__(self, origin: Host) -> None:
        self.origin = origin
        self.sites: tuple[()] = ()


class Carried:
    """The fleet. A context manager that ends its programs.

    Args:
        directory: Where its files go.
        network: The first two parts of the loopback addresses that it uses.
        count: How many devices.
    """

    def __init__(self, directory: Path, network: str, count: int) -> None:
        self.count = count
        self.network = network
        self.directory = directory
        self.identities: list[Identity] = []
        self._gateway_host = _Loopback("", f"{network}.0.2")
        self._log = (directory / "log").open("w")
        self._processes = Processes(self._log)
        run = Run(
            network=_OneMachine(_Loopback("", f"{network}.0.1")),  # type: ignore[arg-type]
            package=directory / "package",
            directory=directory,
            processes=self._processes,
            finished=None,  # type: ignore[arg-type]
            go=lambda: None,
            deadline_s=60.0,
            settle_s=0.0,
            counted=lambda: None,
            seconds=lambda at: at,
        )
        self._fleet = Fleet(run)
        self._gateway: Started
        self._server: Started
        self._client: Client
        self._published = 0

    def __enter__(self) -> Carried:
        self._processes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.__exit__(kind, error, trace)
        self._log.close()

    @property
    def address(self) -> tuple[str, int]:
        """Where devices reach the gateway."""
        return self._gateway_host.address, LINK_PORT

    @property
    def authority(self) -> FleetAuthority:
        """The fleet's authority."""
        return self._home.authority

    # Before ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Found the fleet, start server and gateway, and enrol the devices in the store, all at once."""
        fleet = self._fleet
        fleet.found()
        for group, uses in (("/points", 1), (str(_SITE), 1)):
            fleet.operate("p2pdist", "group", "add", group)
            fleet.operate("p2pdist", "token", "add", group, "--uses", str(uses), "--to", fleet._token(group))
        node = fleet._enrol("gateway", self._gateway_host, "/points")
        fleet.node_ids["gateway-point"] = node
        host, port = self.address
        fleet.sign(
            "grant", node, "--scope", GROUP, "--address", f"{host}:{port}",
            "--duty", "seed", "--duty", "gateway",
        )  # fmt: skip
        origin = fleet.run.network.origin.address
        target = Target(
            server=f"https://{origin}:{API_PORT}",
            token=read_token(fleet.server / "operator.token"),
            ca_pem=read_ca(fleet.server / "ca.pem"),
        )
        self._client = Client(target)
        self.prepare_publication()()
        self._enrol_devices()
        self._gateway = fleet._start_node("point", "gateway", self._gateway_host)
        self._server = next(each for each in self._processes._started if each.role == "origin")
        fleet._until(lambda: self._online() == 1, "the gateway")

    def _online(self) -> int:
        listed = self._client.get("/devices", api.DeviceList).devices
        return sum(device.state == "online" for device in listed)

    def _enrol_devices(self) -> None:
        home, now = ServerHome(self._fleet.server), int(time.time())
        self.identities = crowds.make_identities(
            self._fleet.server / "authority", self.count, group=_SITE, swarms=[_SWARM], life_s=_LIFE_S
        )
        rows = [
            {
                "node": each.node,
                "name": each.node[:8],
                "platform": detect_platform(),
                "group_path": _SITE,
                "public": each.public,
                "machine": each.node,
                "enrolled": now,
                "metadata_versions": {},
                "swarms": [],
                "installed": {},
            }
            for each in self.identities
        ]
        store = FleetStore.open(f"sqlite:///{self._fleet.server / 'fleet.db'}")
        try:
            for first in range(0, len(rows), _ROWS):
                store.write_now(_insert, rows[first : first + _ROWS])
        finally:
            store.close()
        self._home = home

    @contextmanager
    def crowds(self, processes: int) -> Iterator[Crowds]:
        """The devices, not attached yet."""
        setting = Setting(
            server_public=self._home.key.public,
            versions=dict(self._versions),
            swarms=[_SWARM],
            certificate_expires=int(time.time()) + _LIFE_S,
        )
        with self.crowd("link", self.address, processes, setting) as opened:
            yield opened

    @contextmanager
    def crowd(
        self, speaker: str, address: tuple[str, int], processes: int, setting: Setting
    ) -> Iterator[Crowds]:
        """The devices with another language, for a peer."""
        with crowds.open_crowds(
            self.identities,
            processes=processes,
            speaker=speaker,
            setting=setting,
            ca_pem=self._home.authority.certificate_pem,
            address=address,
            hosts=self.network,
        ) as opened:
            yield opened

    # What an operator does ---------------------------------------------------------------------------

    def prepare_publication(self) -> Callable[[], object]:
        """Sign a new release and bring its content to the server; return what publishes it."""
        self._published += 1
        package = self.directory / f"package-{self._published}"
        package.write_bytes(secrets.token_bytes(_PACKAGE_BYTES))
        self._fleet.sign(
            "add", "stable", package, "--product", "package", "--version", str(self._published),
            "--to", "/package",
        )  # fmt: skip
        self._fleet.publish_locally()
        publication = read_publication(self._fleet.operator / "publication")
        for release in publication.releases():
            upload(self._client, publication, release, lambda moving, stored: None)
        self._versions = _versions_of(publication.metadata)
        return partial(publish, self._client, publication)

    def deploy(self) -> None:
        """Order the newest release onto every device."""
        body = api.NewDeployment(target=f"package@{self._published}", group=_SITE)
        self._client.post("/deployments", api.DeploymentInfo, body)

    # Measuring ---------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """Return the gateway's memory."""
        return memory_of(self._gateway.process.pid)

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that gateway and server have used."""
        return {"gateway": self._gateway.cpu_now(), "server": self._server.cpu_now()}

    def cpu_ms_each(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return the CPU milliseconds for each device since."""
        return {
            role: round(1000 * (used - before[role]) / self.count, 3) for role, used in self.cpu_s().items()
        }

    def idle_cpu_percent(self, seconds: float) -> dict[str, float]:
        """Wait, and return what share of a core each program used."""
        before, begun = self.cpu_s(), time.monotonic()
        time.sleep(seconds)
        passed = max(0.01, time.monotonic() - begun)
        return {role: round(100 * (used - before[role]) / passed, 1) for role, used in self.cpu_s().items()}


def _versions_of(metadata: Mapping[str, bytes]) -> dict[str, int]:
    """Return the newest version of each role among the files of a publication."""
    versions: dict[str, int] = {}
    for name in metadata:
        number, _, rest = name.partition(".")
        role = rest.removesuffix(".json") if number.isdigit() else name.removesuffix(".json")
        versions[role] = max(versions.get(role, 1), int(number) if number.isdigit() else 1)
    return versions


def _insert(connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
    connection.execute(devices.insert(), rows)
