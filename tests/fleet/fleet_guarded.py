"""Devices whose agent runs under its guard, which can start another version; the rest runs in this process.

A version is a small program that runs the agent of this checkout, and says that it is another one. The
guard's seconds are tenths of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import trio
from fleet_logs import LogBook
from fleet_processes import Processes, ProcessProgram
from fleet_programs import Program
from harness import Tasks

from p2pdist.duties.deploy.guard import GUARD
from p2pdist.node.config import AgentConfig

FIRST = "1.0.0"
_VERSION = """\
#!{python}
import sys
import p2pdist
p2pdist.__version__ = "{version}"
{before}
from p2pdist.agent.main import main
main()
"""


def version(number: str, before: str = "") -> bytes:
    """Return a version of the agent; *before* is what Python does first."""
    return _VERSION.format(python=sys.executable, version=number, before=before).encode()


class GuardedProgram(ProcessProgram):
    """A guard, with the first version of the agent.

    Attributes:
        place: Where the versions stand.
    """

    place: Path

    @property
    def versions(self) -> list[Path]:
        """The files of the versions that are there."""
        return sorted(self.place.glob("versions/*/p2pdist-agent"))

    @property
    def on_trial(self) -> bool:
        """Whether a new version is."""
        return (self.place / "trial").exists()

    def seconds_are(self, seconds: str) -> None:
        """Say how long a second of the guard takes."""
        clock = self.place.parent / "clock" / "sleep"
        clock.parent.mkdir(exist_ok=True)
        fresh = clock.with_name("fresh")
        fresh.write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} {seconds}\n")
        fresh.chmod(0o755)
        fresh.replace(clock)

    def agents(self) -> list[int]:
        """Return the processes that the guard has started."""
        if self._process is None:
            return []
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill_agent(self) -> None:
        """End what the guard has started, and not the guard."""
        for pid in self.agents():
            os.kill(pid, signal.SIGKILL)

    async def _open(self, environment: Mapping[str, str]) -> trio.Process:
        directory = self.place.parent
        return await trio.lowlevel.open_process(
            ["/bin/sh", directory / "guard", self.place, "run", "--config", self._config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**environment, "PATH": f"{directory}/clock:{environment['PATH']}"},
        )

    async def kill(self) -> None:
        """SIGKILL for both, and wait."""
        self.kill_agent()
        await super().kill()


class GuardedDevices(Tasks):
    """The agents of devices are processes under guards; every other program is a task of this process."""

    def __init__(self, nursery: trio.Nursery, log: LogBook) -> None:
        super().__init__(nursery)
        self._processes = Processes(log)(nursery)

    def device(self, who: str, config: AgentConfig) -> Program:
        """A device."""
        plain = self._processes.device(who, config)
        assert isinstance(plain, ProcessProgram)
        directory = config.node.data.parent
        place = directory / "place"
        first = place / "versions" / "first" / "p2pdist-agent"
        first.parent.mkdir(parents=True)
        first.write_bytes(version(FIRST))
        first.chmod(0o755)
        (place / "p2pdist-agent").symlink_to(first)
        guard = directory / "guard"
        guard.write_text(GUARD)
        program = GuardedProgram(plain._nursery, who, plain._module, plain._config, plain._log)
        program.place = place
        program.seconds_are("0.1")
        return program
