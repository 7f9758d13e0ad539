"""One Ethernet segment out of namespaces: a point that polls, and hosts with real daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from laboratory.namespaces import PATH, Namespace, Namespaces

from p2pdist.wire.discovery import Sighting

_POLL = Path(__file__).with_name("poll_program.py")
_POLL_S_MAX = 60


class Segment:
    """A bridge with a point at 10.9.0.1 and hosts from 10.9.0.2 on; a context manager.

    Args:
        hosts: How many there are besides the point.
        bits: The length of the network's prefix.
    """

    def __init__(self, hosts: int, *, bits: int = 24) -> None:
        self._namespaces = Namespaces()
        self._count = hosts
        self._bits = bits
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.point: Namespace
        self.hosts: list[Namespace]

    def __enter__(self) -> Segment:
        self._namespaces.__enter__()
        switch = self._namespaces.create("switch")
        switch.ip("link add bridge type bridge", "link set bridge up")
        self.point, *self.hosts = (self._plug(switch, number) for number in range(1, self._count + 2))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self._daemons:
            daemon.kill()  # nobody here keeps anything
        for daemon in self._daemons:
            daemon.wait()
        self._namespaces.__exit__(kind, error, trace)

    def _plug(self, switch: Namespace, number: int) -> Namespace:
        host = self._namespaces.create(f"host {number}")
        switch.ip(
            f"link add port{number} type veth peer name eth0 address {mac(number)} netns {host.pid}",
            f"link set port{number} master bridge up",
        )
        host.ip(
            "link set eth0 up",
            f"addr add {address(number)}/{self._bits} broadcast + dev eth0",
            "route add default dev eth0",  # multicast goes somewhere
        )
        return host

    def start(self, host: Namespace, script: str, log: Path) -> None:
        """Run a daemon by a shell script in *host*, with a /run and an /etc/avahi/services of its own."""
        prepare = "mount -t tmpfs none /run && mkdir -p /run/avahi-daemon /run/samba && "
        command = host.command("unshare", "--mount", "sh", "-ec", prepare + script)
        with log.open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "PATH": PATH},
                )
            )

    def poll(self, method: str, **arguments: Any) -> list[Sighting]:
        """Run a method at the point, in a process of its own, and return what it found."""
        program = [sys.executable, str(_POLL), method, json.dumps(arguments)]
        done = subprocess.run(
            self.point.command(*program), capture_output=True, timeout=_POLL_S_MAX, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return msgspec.json.decode(done.stdout, type=list[Sighting])


def address(number: int) -> str:
    return f"10.9.0.{number}"


def mac(number: int) -> str:
    return f"00:1b:21:00:00:{number:02x}"
