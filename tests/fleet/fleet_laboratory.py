"""A fleet of real programs in the laboratory of networks: each on a host of its own, behind real NAT.

The test itself stands on the admin server's host: :func:`standing_on` moves its main thread there, so that it
asks the HTTP API and enrols nodes over the laboratory's network. That takes root.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram
from fleet_programs import ServerOptions
from harness import Fleet, Node, running

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from laboratory.namespaces import why_not
from laboratory.network import Host, Laboratory

from p2pdist.node.config import AgentConfig, LinkTable, SwarmTable

needs_laboratory = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or why_not() is not None,
        reason="makes network namespaces, and enters one: needs root",
    ),
]

_CLONE_NEWNET = 0x4000_0000
_FIRST_PORT = 7_700  # nobody else is on these hosts


@contextmanager
def standing_on(host: Host) -> Iterator[None]:
    """Have this thread use the network of a host, and the threads that it starts."""
    with (
        Path("/proc/self/ns/net").open() as ours,
        Path(f"/proc/{host.namespace.pid}/ns/net").open() as theirs,
    ):
        _enter(theirs.fileno())
        try:
            yield
        finally:
            _enter(ours.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class _Addresses:
    """The admin server's address; nodes have those of their hosts."""

    def __init__(self, server: Host) -> None:
        self._server = server

    def host(self, number: int) -> str:
        return self._server.ipv4[0]


class _Form(Processes):
    """Every program is a process on the host that is next."""

    def __init__(self, log: LogBook, nursery: trio.Nursery) -> None:
        super().__init__(log)
        self._nursery = nursery
        self.on: Host | None = None

    def _node(self, module: str, who: str, config: AgentConfig) -> ProcessProgram:
        program = super()._node(module, who, config)
        if self.on is not None:
            program.within = self.on.command
        return program


class LaboratoryFleet(Fleet):
    """See the module. Nodes are added with the host that they stand on."""

    form: _Form

    def port(self, host: str) -> int:
        """The first port of ours: each host has one program that listens."""
        return _FIRST_PORT

    def next_host(self) -> str:
        """The address of the host that is next."""
        assert self.form.on is not None
        return self.form.on.ipv4[0]

    def dials_from(self, host: str) -> str | None:
        """The system's choice: the test dials from the admin server's host, nodes from theirs."""
        return None

    async def point_on(self, host: Host, **grant: object) -> Node:
        """Enrol and start a distribution point there."""
        self.form.on = host
        return await self.add_point(**grant)  # type: ignore[arg-type]  # passed on as it is

    async def device_on(self, host: Host) -> Node:
        """Enrol and start a device there; it may be taken elsewhere."""
        self.form.on = host
        return await self.add_device()

    def _agent_config(self, name: str, host: str) -> AgentConfig:
        config = super()._agent_config(name, host)
        return msgspec.structs.replace(
            config, link=LinkTable(), swarm=SwarmTable(host="0.0.0.0", port=_FIRST_PORT + 1)
        )


@asynccontextmanager
async def open_laboratory_fleet(
    directory: Path, log: LogBook, laboratory: Laboratory, *, options: ServerOptions | None = None
) -> AsyncIterator[LaboratoryFleet]:
    """Start the admin server in the laboratory; the caller adds points and devices, and publishes."""
    with standing_on(laboratory.server):
        async with trio.open_nursery() as nursery:
            form = _Form(log, nursery)
            addresses = _Addresses(laboratory.server)
            fleet = LaboratoryFleet(directory, form, addresses, log, options or ServerOptions())  # type: ignore[arg-type]  # all that is used of them
            fleet.form = form
            async with running(fleet):
                yield fleet
            nursery.cancel_scope.cancel()
