"""Processes of a benchmark: started in hosts, measured, and ended by their ids."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from network import Host

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass
class Usage:
    """What one process used: CPU time with its children's, and the most memory it had resident."""

    cpu_s: float = 0.0
    rss_mib: float = 0.0


@dataclass
class Started:
    """A process in a host, in one of the roles whose use of the machine is reported."""

    role: str
    process: subprocess.Popen[str]
    usage: Usage = field(default_factory=Usage)

    def measure(self) -> None:
        """Read what it has used so far; leaves the last values when it is gone."""
        try:
            stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return
        self.usage.cpu_s = sum(int(stat[i]) for i in (11, 12, 13, 14)) / _TICKS_PER_S
        self.usage.rss_mib = max(self.usage.rss_mib, _kib(status, "VmHWM") / 1024)

    def cpu_now(self) -> float:
        """Return the CPU seconds that it has used."""
        self.measure()
        return self.usage.cpu_s

    def rss_now_mb(self) -> float:
        """Return the memory that it has resident, in megabytes (10^6 bytes)."""
        return _kib(Path(f"/proc/{self.process.pid}/status").read_text(), "VmRSS") * 1024 / 1e6


def _kib(status: str, name: str) -> int:
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


class Processes:
    """All processes of one system; a context manager that ends them."""

    def __init__(self, log: IO[str]) -> None:
        self._log = log
        self._started: list[Started] = []
        self._stack = ExitStack()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for started in self._started:
            started.measure()
            if started.process.poll() is None:
                started.process.terminate()
        for started in self._started:
            try:
                started.process.wait(5)
            except subprocess.TimeoutExpired:
                started.process.kill()
                started.process.wait()

    def start(
        self,
        role: str,
        host: Host,
        *command: str,
        log: IO[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Started:
        """Start a command in a host; its standard error goes to *log*, or to the log of all."""
        process = subprocess.Popen(
            host.command(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log or self._log,
            env=environment,
            text=True,
        )
        started = Started(role, process)
        self._started.append(started)
        return started

    def wait_all(
        self, done: Callable[[], bool], *, deadline_s: float, what: str, every_s: float = 0.02
    ) -> None:
        """Measure every process until *done*, which is asked every so often; raise when time is up."""
        begun = time.monotonic()
        measured = 0.0
        while not done():
            now = time.monotonic()
            if now - begun > deadline_s:
                raise SystemExit(f"{what} was not finished after {deadline_s:.0f} s")
            if now - measured > 0.5:
                measured = now
                for started in self._started:
                    started.measure()
            time.sleep(every_s)

    def usage(self) -> dict[str, dict[str, float]]:
        """Return, by role, how many there were, the CPU time of all, and the memory of the largest."""
        roles: dict[str, dict[str, float]] = {}
        for started in self._started:
            role = roles.setdefault(started.role, {"processes": 0, "cpu_seconds": 0.0, "rss_mib_max": 0.0})
            role["processes"] += 1
            role["cpu_seconds"] = round(role["cpu_seconds"] + started.usage.cpu_s, 2)
            role["rss_mib_max"] = round(max(role["rss_mib_max"], started.usage.rss_mib), 1)
        return roles


class FinishTimes:
    """When each device finished, by name, in seconds of the monotonic clock."""

    def __init__(self, expected: Sequence[str]) -> None:
        self._expected = frozenset(expected)
        self._lock = threading.Lock()
        self.times: dict[str, float] = {}

    def finished(self, name: str, at: float | None = None) -> None:
        """A device has everything, now or at a time that it told."""
        with self._lock:
            self.times.setdefault(name, time.monotonic() if at is None else at)

    def complete(self) -> bool:
        """Tell whether all have finished."""
        return self._expected <= self.times.keys()
