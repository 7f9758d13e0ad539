"""A fleet of real programs in the laboratory of networks: each on a host of its own, behind real NAT.

The test itself stands on the admin server's host: the sockets that it opens are made in that host's network
namespace, so that it asks the HTTP API and enrols nodes over the laboratory's network. That takes root.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram, ServerProcess
from fleet_programs import ServerOptions
from harness import Fleet, Node, running

sys.path.append(str(Path(__file__).parents[2] / "tools"))

from laboratory.namespaces import why_not
from laboratory.network import Host, Laboratory, Place

from p2pdist.cli.profile import Target
from p2pdist.cli.visit import Visitor
from p2pdist.node.config import AgentConfig, LinkTable, SwarmTable

__all__ = [
    "Host",
    "Laboratory",
    "LaboratoryFleet",
    "Place",
    "VisitorThere",
    "needs_laboratory",
    "open_laboratory_fleet",
]

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
    """Have this thread make its sockets on a host, for as long as the block runs. Not across a checkpoint:
    a thread that is started meanwhile would stay there.
    """
    with (
        Path("/proc/thread-self/ns/net").open() as ours,
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


class _SocketsOf(trio.abc.SocketFactory):
    """Makes trio's sockets on a host."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> trio.socket.SocketType:
        with standing_on(self._host):
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))


class VisitorThere(Visitor):
    """An operator's command line on a host: it asks the API in a thread."""

    def __init__(self, host: Host, target: Target) -> None:
        super().__init__(target)
        self._host = host

    def _ask(self, *arguments: Any) -> Any:
        with standing_on(self._host):
            return super()._ask(*arguments)


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
    server_host: Host

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
    async with trio.open_nursery() as nursery:
        form = _Form(log, nursery)
        addresses = _Addresses(laboratory.server)
        with standing_on(laboratory.server):
            fleet = LaboratoryFleet(directory, form, addresses, log, options or ServerOptions())  # type: ignore[arg-type]  # all that is used of them
        fleet.form = form
        fleet.server_host = laboratory.server
        assert isinstance(fleet.server, ServerProcess)
        fleet.server.within = laboratory.server.command
        before = trio.socket.set_custom_socket_factory(_SocketsOf(laboratory.server))
        try:
            async with running(fleet):
                yield fleet
        finally:
            trio.socket.set_custom_socket_factory(before)
        nursery.cancel_scope.cancel()
