"""The fleet's programs as what they are: processes, which can be killed at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import msgspec
import trio
from fleet_addresses import free_port
from fleet_forks import ForkedProcess, open_forked
from fleet_logs import LogBook
from fleet_programs import DEVICES, POINTS, Program, ServerOptions, ServerProgram
from fleet_signing import Publication
from harness import Fleet

from p2pdist.cli.profile import Target
from p2pdist.ids import GroupPath, InfoHash, NodeId, TargetPath
from p2pdist.node.config import AgentConfig, SeedConfig
from p2pdist.server.initialise import add_api_token
from p2pdist.server.serverhome import ServerHome
from p2pdist.store.fleetstore import FleetStore
from p2pdist.trust.keys import SealedKeyFile
from p2pdist.wire import api
from p2pdist.wire.api import ApiRole

_READY_S = 60.0
_STOP_S = 20.0
_PASSPHRASE = b"a passphrase of the tests"
_ONLINE_SEED = b"online".ljust(32, b".")  # the workshop's key of this name


class ProcessProgram:
    """A program in a process of its own. Its log lines go into the test's book."""

    def __init__(self, nursery: trio.Nursery, who: str, module: str, config: Path, log: LogBook) -> None:
        self._nursery = nursery
        self._who = who
        self._module = module
        self._config = config
        self._log = log
        self._process: trio.Process | ForkedProcess | None = None
        self._gone = trio.Event()
        self._error = ""

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None

    @property
    def error(self) -> str:
        """What it wrote last, if it ended by itself with an error."""
        return self._error

    @property
    def memory_bytes(self) -> int:
        """Its resident memory."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1_024

    async def start(self) -> None:
        """Start the process, and wait until it says that it is ready (sd_notify), or has ended."""
        assert self._process is None, f"{self._who} runs already"
        self._log.lines.append({"event": "test.started", "who": self._who, "at": trio.current_time()})
        with (
            TemporaryDirectory(prefix="p2pdist-test-") as directory,
            trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        ):
            address = f"{directory}/notify"
            await notified.bind(address)
            self._gone, self._error = trio.Event(), ""
            self._process = await self._open({**os.environ, "NOTIFY_SOCKET": address})
            self._nursery.start_soon(self._follow, self._process, self._gone)
            with trio.fail_after(_READY_S):
                async with trio.open_nursery() as nursery:

                    async def ready() -> None:
                        while b"READY=1" not in await notified.recv(4_096):
                            pass
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(ready)
                    await self._gone.wait()
                    nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            self._process.terminate()
            with trio.move_on_after(_STOP_S):
                await self._gone.wait()
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None:
            self._process.kill()
            await self._gone.wait()

    def freeze(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _open(self, environment: Mapping[str, str]) -> trio.Process | ForkedProcess:
        return await open_forked(self._module, ("run", "--config", self._config), environment)

    async def _follow(self, process: trio.Process | ForkedProcess, gone: trio.Event) -> None:
        """Keep what it logs until it ends."""
        last, pending = b"", b""
        try:
            assert process.stderr is not None
            async for data in process.stderr:
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    last = line or last
                    self._keep(line)
            await process.wait()
            if process.returncode not in (0, -9):
                self._error = last.decode(errors="replace") or f"exit code {process.returncode}"
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            self._process = None
            gone.set()

    def _keep(self, line: bytes) -> None:
        with suppress(ValueError):
            fields = json.loads(line)
            self._log.lines.append({**fields, "who": self._who, "at": trio.current_time()})
            return
        if line:
            self._log.lines.append({"event": line.decode(errors="replace"), "who": self._who, "at": 0.0})


class ServerProcess(ProcessProgram):
    """``p2pdist-server``, asked through its HTTP API."""

    def __init__(
        self,
        nursery: trio.Nursery,
        home: ServerHome,
        store_url: str,
        host: str,
        port: int,
        options: ServerOptions,
        log: LogBook,
    ) -> None:
        super().__init__(nursery, "server", "p2pdist.server.main", home.root / "server.toml", log)
        self.options = options
        self._home = home
        self._host = host
        self._port = port
        self._api_port = free_port(host)
        self._store_url = store_url
        (home.root / "passphrase").touch(mode=0o600)
        (home.root / "passphrase").write_bytes(_PASSPHRASE)
        SealedKeyFile._seal("online", _ONLINE_SEED, _PASSPHRASE, "interactive").save(home.root / "online.key")
        store = FleetStore.open(store_url)
        self._token = add_api_token(store, "test", "admin", datetime.now(UTC))
        store.close()

    def target(self, role: ApiRole = "admin") -> Target:
        """Return what a command line needs to know, with a token of its own."""
        store = FleetStore.open(self._store_url)
        token = add_api_token(store, f"test-{secrets.token_hex(4)}", role, datetime.now(UTC))
        store.close()
        return Target(
            server=f"https://{self._host}:{self._api_port}",
            token=token,
            ca_pem=self._home.authority.certificate_pem.decode(),
        )

    async def start(self) -> None:
        """Write the configuration, and start."""
        self._config.write_text(_toml(self._tables()))
        await super().start()

    async def publish(self, publication: Publication) -> None:
        """Upload content, then publish."""
        for info_hash, data in publication.content.items():
            await self.upload(info_hash, data)
        body = api.NewPublication(
            metadata=dict(publication.metadata),
            torrents={str(name): data for name, data in publication.torrents.items()},
        )
        await self._ask("POST", "/publications", body)

    async def upload(self, info_hash: InfoHash, data: bytes) -> None:
        """Upload an artifact's content, unless all of it is there."""
        sha256 = hashlib.sha256(data).hexdigest()
        await self._ask(
            "PUT", f"/artifacts/{info_hash}?offset=0&length={len(data)}&sha256={sha256}", content=data
        )

    async def add_group(self, group: GroupPath) -> None:
        """Make a group."""
        await self._ask("POST", "/groups", api.NewGroup(path=group))

    async def make_token(self, group: GroupPath, *, uses: int = 1, life_s: int = 3_600) -> str:
        """Make an enrolment token."""
        made = await self._ask("POST", "/tokens", api.NewToken(group=group, uses=uses, life_s=life_s))
        token: str = made["token"]
        return token

    async def deploy(self, target: TargetPath, group: GroupPath) -> str:
        """Order a release onto a group."""
        made = await self._ask("POST", "/deployments", api.NewDeployment(target=target, group=group))
        deployment: str = made["id"]
        return deployment

    async def stop_deployment(self, deployment: str) -> None:
        """Withdraw an order."""
        await self._ask("DELETE", f"/deployments/{deployment}")

    async def retry_deployment(self, deployment: str, nodes: Sequence[NodeId]) -> None:
        """Ask for another try on devices on which a deployment failed."""
        await self._ask(
            "POST", f"/deployments/{deployment}/retry", api.RetryDeployment(devices=[str(n) for n in nodes])
        )

    async def revoke(self, node: NodeId, reason: str) -> None:
        """Take a device out of the fleet."""
        await self._ask("POST", f"/devices/{node}/revoke", api.RevokeDevice(reason=reason))

    async def states(self) -> dict[str, str]:
        """Return how the server sees each node, by name."""
        answer = await self._ask("GET", "/devices")
        return {device["name"]: device["state"] for device in answer["devices"]}

    async def online(self) -> set[str]:
        """Return the names of the nodes that the server can reach."""
        return {name for name, state in (await self.states()).items() if state == "online"}

    async def _ask(
        self, method: str, path: str, body: msgspec.Struct | None = None, *, content: bytes | None = None
    ) -> Any:
        trust = ssl.create_default_context(cadata=self._home.authority.certificate_pem.decode())
        async with httpx.AsyncClient(
            base_url=f"https://{self._host}:{self._api_port}/api/v1",
            headers={"authorization": f"Bearer {self._token}"},
            verify=trust,
            timeout=30.0,
            trust_env=False,
        ) as client:
            sent = msgspec.json.encode(body) if body is not None else content
            answer = await client.request(method, path, content=sent)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def _tables(self) -> Mapping[str, Any]:
        options = self.options
        return {
            "server": {"data": self._home.root},
            "link": {
                "addresses": [f"{self._host}:{self._port}"],
                "host": self._host,
                "port": self._port,
            },
            "api": {"host": self._host, "port": self._api_port},
            "origin": {"host": self._host, "port": 0, "up_bytes_per_s": options.origin_up_bytes_per_s},
            "online": {
                "key": self._home.root / "online.key",
                "passphrase_file": self._home.root / "passphrase",
                "timestamp_life_s": options.timestamp_life_s,
            },
            "certificates": {"life_s": options.certificate_life_s},
            "log": {"json": True},
            "rates": [
                {"group": DEVICES, "site_down": options.device_down_bytes_per_s},
                {"group": POINTS, "site_up": options.point_up_bytes_per_s},
            ],
        }


class Processes:
    """Every program is a process."""

    def __init__(self, log: LogBook) -> None:
        self._log = log
        self._nursery: trio.Nursery

    def __call__(self, nursery: trio.Nursery) -> Processes:
        """Take the nursery in which the processes are followed."""
        self._nursery = nursery
        return self

    def server(
        self, home: ServerHome, store_url: str, host: str, port: int, options: ServerOptions
    ) -> ServerProgram:
        """The admin server."""
        return ServerProcess(self._nursery, home, store_url, host, port, options, self._log)

    def point(self, who: str, config: SeedConfig) -> Program:
        """A distribution point."""
        return self._node("p2pdist.seed.main", who, config)

    def device(self, who: str, config: AgentConfig) -> Program:
        """A device."""
        return self._node("p2pdist.agent.main", who, config)

    def _node(self, module: str, who: str, config: AgentConfig) -> ProcessProgram:
        path = config.node.data.parent / "config.toml"
        tables = msgspec.to_builtins(config, enc_hook=str)
        path.write_text(_toml({**tables, "log": {"json": True}}))
        return ProcessProgram(self._nursery, who, module, path, self._log)


async def reaching_server(fleet: Fleet) -> ServerProcess:
    """Return the admin server of a fleet of processes, once it can reach every device."""
    server = fleet.server
    assert isinstance(server, ServerProcess)

    async def reached() -> bool:
        return {device.name for device in fleet.devices} <= await server.online()

    await fleet.until(reached, "the server can reach every device")
    return server


def _toml(tables: Mapping[str, Any]) -> str:
    lines = []
    for name, table in tables.items():
        for one in table if isinstance(table, list | tuple) else [table]:
            lines.append(f"[[{name}]]" if isinstance(table, list | tuple) else f"[{name}]")
            lines += [f"{key} = {_value(value)}" for key, value in one.items() if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)
