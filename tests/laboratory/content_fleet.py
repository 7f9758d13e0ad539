"""A fleet whose programs run in a laboratory: a cloud gateway beside the admin server, devices behind NATs.

Everything is enrolled, signed and published on loopback first, with the admin server as a task of the test.
Then the real programs start in their namespaces, on the same directories. The gateway is slow on purpose, so
that it shows what comes from elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "fleet"), str(TESTS / "trust")]

from fleet_addresses import AddressRange  # noqa: E402, the paths above lead to it
from fleet_logs import LogBook  # noqa: E402
from fleet_processes import ServerProcess, _toml  # noqa: E402
from fleet_programs import POINTS, ServerOptions  # noqa: E402
from fleet_signing import SignedRelease  # noqa: E402
from harness import GROUP, Fleet, Tasks  # noqa: E402
from laboratory.network import Host, Laboratory  # noqa: E402

from p2pdist.node.config import AgentConfig, PointTable, SeedConfig, SwarmTable  # noqa: E402
from p2pdist.node.enrol import enrol  # noqa: E402

LINK_PORT, API_PORT, POINT_PORT, SWARM_PORT, SERVER_SWARM_PORT = 7600, 7680, 7601, 7602, 7603
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Device:
    """A device, its host, and what it logs."""

    name: str
    node: str
    host: Host
    config: AgentConfig

    def log(self) -> list[dict[str, Any]]:
        """Return its log lines so far."""
        return _log_of(self.config.node.data.parent)


class LabFleet:
    """A fleet in a laboratory. Made by :func:`open_lab_fleet`."""

    def __init__(self, stack: ExitStack, laboratory: Laboratory, directory: Path) -> None:
        self._stack = stack
        self._laboratory = laboratory
        self.directory = directory
        self.devices: list[Device] = []
        self.gateway: Device
        self.release: SignedRelease
        self._store_url = ""
        self._target: dict[str, str] = {}

    def start(self, device: Device) -> subprocess.Popen[bytes]:
        """Start a device's program."""
        return self._start(device.host, "p2pdist.agent.main", device.config.node.data.parent)

    def until_installed(self, *devices: Device, patience_s: float = 40.0) -> None:
        """Wait until devices have installed the release."""
        for device in devices:
            place = device.config.install.root / "opt/app.bin"
            self.until(
                lambda place=place: place.exists() and place.read_bytes() == self.release.content,
                f"{device.name} installs",
                patience_s,
            )

    def until(self, condition: Callable[[], Any], what: str, patience_s: float = 20.0) -> Any:
        """Wait until something holds; fail with the ends of all logs."""
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(_LOOK_EVERY_S)
        logs = "\n".join(
            f"{each.name}: {line}" for each in (self.gateway, *self.devices) for line in each.log()[-15:]
        )
        raise AssertionError(f"{what}: not within {patience_s:g} s\n{logs}")

    def explain(self, device: Device) -> dict[str, dict[str, Any]]:
        """Return what ``p2pdist explain DEVICE RELEASE --output json`` says of each source, by its name."""
        command = self._laboratory.server.command(
            *_program("p2pdist.cli.main"), "explain", device.name, self.release.target, "--output", "json"
        )
        printed = subprocess.run(
            command, env={**os.environ, **self._target}, capture_output=True, text=True, check=False
        )
        assert printed.returncode == 0, printed.stderr
        return {source["name"]: source for source in json.loads(printed.stdout)["sources"]}

    def until_explained(self, device: Device, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the sources of a device are as they should be, and return them."""
        found: dict[str, Any] = {}

        def holds() -> bool:
            found.clear()
            found.update(self.explain(device))
            return condition(found)

        try:
            self.until(holds, f"the sources of {device.name}", 30.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(found, indent=1)}") from None
        return found

    # Making it -------------------------------------------------------------------------------------

    async def found(self, hosts: Sequence[Host], *, size: int, gateway_bytes_per_s: int) -> None:
        """Enrol everybody, and publish and order a release. Nothing of it runs afterwards."""
        outside = self._laboratory.server.ipv4[0]
        options = ServerOptions(point_up_bytes_per_s=gateway_bytes_per_s)
        with AddressRange() as addresses:
            async with trio.open_nursery() as nursery:
                fleet = Fleet(self.directory, Tasks(nursery), addresses, LogBook(), options)
                await fleet.server.start()
                for group in (GROUP, POINTS):
                    await fleet.server.add_group(group)
                self.gateway = await self._enrol(fleet, "gateway", self._laboratory.server, gateway=True)
                address = f"{outside}:{POINT_PORT}"
                fleet.signing.grant(self.gateway.node, [address], scope="/emea", duties=["seed", "gateway"])
                for number, host in enumerate(hosts):
                    self.devices.append(await self._enrol(fleet, f"device{number}", host, gateway=False))
                self.release = await fleet.release(size=size)
                await fleet.server.stop()
                self._configure_server(nursery, fleet, outside, options)
                fleet.store.close()
                nursery.cancel_scope.cancel()

    def start_server_and_gateway(self) -> None:
        """Start what stands in the cloud."""
        server = self._laboratory.server
        self._start(server, "p2pdist.server.main", self.directory / "server")
        self._start(server, "p2pdist.seed.main", self.gateway.config.node.data.parent)
        self.until(
            lambda: any(line["event"] == "link.up" for line in self.gateway.log()),
            "the gateway is linked",
            60.0,
        )

    async def _enrol(self, fleet: Fleet, name: str, host: Host, *, gateway: bool) -> Device:
        base = fleet._agent_config(name, "")
        swarm = SwarmTable(port=SWARM_PORT)
        config: AgentConfig = msgspec.structs.replace(base, swarm=swarm)
        if gateway:
            point = PointTable(port=POINT_PORT)
            config = SeedConfig(node=base.node, install=base.install, swarm=swarm, point=point)
        token = await fleet.server.make_token(POINTS if gateway else GROUP)
        data = config.node.data
        home = await enrol(data, fleet.bundle, token, name=name, machine=f"machine {name}", local_host=None)
        inside = msgspec.structs.replace(
            fleet.bundle, addresses=(f"{self._laboratory.server.ipv4[0]}:{LINK_PORT}",)
        )
        (data / "enrolment.json").unlink()
        inside.save(data / "enrolment.json")
        tables = msgspec.to_builtins(config, enc_hook=str)
        (data.parent / "config.toml").write_text(_toml({**tables, "log": {"json": True}}))
        return Device(name, home.node, host, config)

    def _configure_server(
        self, nursery: trio.Nursery, fleet: Fleet, outside: str, options: ServerOptions
    ) -> None:
        home = fleet.server_home
        self._store_url = f"sqlite:///{home.root / 'fleet.db'}"
        server = ServerProcess(nursery, home, self._store_url, "127.0.0.1", LINK_PORT, options, LogBook())
        server._host, server._api_port = outside, API_PORT
        target = server.target()
        (home.root / "ca.pem").write_text(target.ca_pem)
        (home.root / "api-token").touch(mode=0o600)
        (home.root / "api-token").write_text(target.token)
        self._target = {
            "P2PDIST_SERVER": target.server,
            "P2PDIST_TOKEN_FILE": str(home.root / "api-token"),
            "P2PDIST_CA": str(home.root / "ca.pem"),
        }
        tables: dict[str, Any] = dict(server._tables())
        tables["origin"] = {"host": outside, "port": SERVER_SWARM_PORT}
        rates = {"group": POINTS, "wan_up": options.point_up_bytes_per_s}
        tables["rates"] = [rates] if options.point_up_bytes_per_s else []
        (home.root / "config.toml").write_text(_toml(tables))

    def _start(self, host: Host, module: str, directory: Path) -> subprocess.Popen[bytes]:
        log = self._stack.enter_context((directory / "log").open("ab"))
        process = subprocess.Popen(
            host.command(*_program(module), "run", "--config", str(directory / "config.toml")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process


@contextmanager
def open_lab_fleet(
    laboratory: Laboratory,
    directory: Path,
    hosts: Sequence[Host],
    *,
    size: int = 3_000_000,
    gateway_bytes_per_s: int = 0,
) -> Iterator[LabFleet]:
    """Found a fleet with a device on each of *hosts*; admin server and gateway run, devices do not yet."""
    with ExitStack() as stack:
        fleet = LabFleet(stack, laboratory, directory)
        trio.run(lambda: fleet.found(hosts, size=size, gateway_bytes_per_s=gateway_bytes_per_s))
        fleet.start_server_and_gateway()
        yield fleet


def _program(module: str) -> list[str]:
    return [sys.executable, "-c", f"from {module} import main; main()"]


def _log_of(directory: Path) -> list[dict[str, Any]]:
    lines = []
    path = directory / "log"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append({"event": line})
    return lines
