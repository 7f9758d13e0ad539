"""Programs as their service units run them: started, watched by the deadline of the unit, started again.

:class:`SupervisedProgram` does what systemd does with ``Type=notify`` and ``WatchdogSec=``.
"""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from fleet_processes import Processes, ProcessProgram
from fleet_programs import Program

from p2pdist.node.config import SeedConfig

UNITS = Path(__file__).parents[2] / "seeds" / "systemd"

_WITH_PID = 'WATCHDOG_PID=$$ exec "$@"'  # which is known only once the process is there


def service_of(name: str) -> Mapping[str, str]:
    """Return what stands under ``[Service]`` in a unit of ours."""
    parser = configparser.ConfigParser(interpolation=None, strict=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # its names have capitals
    parser.read_string((UNITS / f"{name}.service").read_text())
    return parser["Service"]


class SupervisedProgram(ProcessProgram):
    """A program that has to show life within the time that its unit says, and is killed otherwise.

    Attributes:
        unit: What stands under ``[Service]``.
        hung: How often it was killed for want of a sign of life.
    """

    unit: Mapping[str, str]
    hung = 0

    async def start(self) -> None:
        """Start it, and wait until it says that it is ready; it has to."""
        await self._nursery.start(self._supervise)

    async def _supervise(self, task_status: trio.TaskStatus[None]) -> None:
        with (
            TemporaryDirectory(prefix="p2pdist-test-") as directory,
            trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        ):
            await notified.bind(f"{directory}/notify")
            while await self._run_once(notified, task_status):
                self.hung += 1
                await trio.sleep(float(self.unit["RestartSec"]))

    async def _run_once(self, notified: trio.socket.SocketType, task_status: trio.TaskStatus[None]) -> bool:
        """Run it to its end; return whether it was killed for want of a sign of life."""
        self._gone, self._error = trio.Event(), ""
        watchdog_s = float(self.unit["WatchdogSec"])
        code = f"from {self._module} import main; main()"
        self._process = process = await trio.lowlevel.open_process(
            ["sh", "-c", _WITH_PID, "sh", sys.executable, "-c", code, "run", "--config", self._config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={
                **os.environ,
                "NOTIFY_SOCKET": str(notified.getsockname()),
                "WATCHDOG_USEC": str(round(watchdog_s * 1_000_000)),
            },
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, process, self._gone)
            hung = False

            async def watch() -> None:
                nonlocal hung
                while b"READY=1" not in await notified.recv(4_096):
                    pass
                if not self.hung:
                    task_status.started()
                while not hung:
                    with trio.move_on_after(watchdog_s) as silence:
                        while b"WATCHDOG=1" not in await notified.recv(4_096):
                            pass
                    hung = silence.cancelled_caught
                process.kill()

            nursery.start_soon(watch)
            await self._gone.wait()
            nursery.cancel_scope.cancel()
        return hung


class SupervisedPoints(Processes):
    """Every program is a process; the distribution points are watched as their unit says."""

    def point(self, who: str, config: SeedConfig) -> Program:
        """A distribution point."""
        plain = super().point(who, config)
        assert isinstance(plain, ProcessProgram)
        supervised = SupervisedProgram(self._nursery, who, plain._module, plain._config, self._log)
        supervised.unit = service_of("p2pdist-seed")
        return supervised
