"""A directory with versions of an agent that are small programs of the shell, and a guard over them.

The guard's seconds are tenths of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from p2pdist.duties.deploy.guard import GUARD
from p2pdist.install.trial import Place

PATIENCE_S = 20.0
SLEEP = shutil.which("sleep") or "/bin/sleep"
STAY = f"trap 'exit 0' TERM; while :; do {SLEEP} 0.05; done"
"""What a version does that runs until it is told to end."""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < PATIENCE_S, what
        time.sleep(0.02)


class Guarded:
    """The place, and at most one guard.

    Attributes:
        old: The version that is in use at first.
        place: As the agent in the old version sees it, with the version that is to be the new one.
    """

    def __init__(self, directory: Path, *, old: str = STAY) -> None:
        self.root = directory / "place"
        (self.root / "versions" / "0").mkdir(parents=True)
        self.old = self.root / "versions" / "0" / "p2pdist-agent"
        self.started = directory / "started"
        self.started.touch()
        self._program(self.old, "old", old)
        self.link = self.root / "p2pdist-agent"
        self.link.symlink_to(self.old)
        self.place = Place(self.old, "1" * 64)
        self._directory = directory
        self._guard = directory / "guard"
        self._guard.write_text(GUARD)
        self._clock = directory / "clock" / "sleep"
        self._clock.parent.mkdir()
        self._clock.write_text(f'#!/bin/sh\nexec {SLEEP} "0.$1"\n')
        self._clock.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def bring(self, script: str, *, seconds: int = 60, trial: bool = True, number: int = 1) -> None:
        """Have a new version there, in use, and on trial."""
        artifact = self._directory / "artifact"
        self._program(artifact, "new", script)
        self.place.write_new(artifact)
        self.place.begin(number=number, seconds=seconds)
        if not trial:
            self.place.confirm()

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run the guard."""
        scratch = self._directory / "scratch"
        scratch.mkdir(exist_ok=True)
        path = f"{self._clock.parent}:{os.environ['PATH']}"
        self.process = subprocess.Popen(
            ["sh", str(self._guard), str(self.root), *arguments],
            env={**os.environ, "PATH": path, "TMPDIR": str(scratch), "WATCHDOG_PID": "1"},
        )
        return self.process

    def starts(self) -> list[str]:
        """Return which version was started with which arguments, in order."""
        return self.started.read_text().splitlines()

    def kill_all(self) -> None:
        """End the guard and what it runs at the same moment, as a supervisor's watchdog does."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for process in (self.process.pid, *map(int, children)):
            os.kill(process, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def end(self) -> int:
        """Ask it to end; return its exit code."""
        if self.process is None:
            return 0
        self.process.terminate()
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code

    def _program(self, path: Path, name: str, script: str) -> None:
        path.write_text(f'#!/bin/sh\necho {name} "$@" >>{self.started}\n{script}\n')
        path.chmod(0o755)
