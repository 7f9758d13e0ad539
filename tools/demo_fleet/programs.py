"""Starting, watching and ending the fleet's processes.

Each runs in a session of its own, with its output in a log file, so that a Ctrl-C reaches this program
alone, which then ends the others by their ids, and so that ``--keep`` can leave them behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from demo_fleet.network import Machine
from demo_fleet.plan import DemoError

_BIN = Path(sys.executable).parent
_END_S = 10.0
_POLL_S = 0.1

_END_SCRIPT = """#!/bin/sh
# Ends the demonstration that was left running, and removes its files.
directory={directory}
for pid in {pids}; do
    [ -r "/proc/$pid/cmdline" ] || continue
    # Only what is still the same program: ids are used again.
    if tr '\\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$directory"; then kill "$pid"; fi
done
sleep 2
rm -rf "$directory"
"""

Say = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Running:
    """A process that runs until it is ended."""

    name: str
    process: trio.Process
    log: Path
    log_offset: int
    expected_to_end: bool = False

    def new_log(self) -> str:
        """What it has logged since it was started."""
        with self.log.open("rb") as file:
            file.seek(self.log_offset)
            return file.read().decode("utf-8", "replace")


class Programs:
    """The fleet's processes. Made by :func:`open_programs`.

    Args:
        logs: The directory of the log files.
        operator: Where commands run that are not told where.
        nursery: Watches the processes: one that ends by itself ends the demonstration.
        home: ``HOME`` of every process, so that nobody's profile is read or written.
        say: Told of each command of the operator, as the user could type it.
    """

    def __init__(self, logs: Path, operator: Machine, nursery: trio.Nursery, home: Path, say: Say) -> None:
        self._logs = logs
        self._operator = operator
        self._nursery = nursery
        self.say = say
        self.running: dict[str, Running] = {}
        self.environment = {
            "PATH": f"{_BIN}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}",
            "HOME": str(home),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "PYTHONUNBUFFERED": "1",
            "P2PDIST_PROFILE": str(home / "profile.toml"),
        }

    async def run(
        self,
        *arguments: str | Path,
        at: Machine | None = None,
        aloud: bool = False,
        patience_s: float = 120.0,
    ) -> str:
        """Run a command to its end, by default the operator's, and return its standard output.

        Raises:
            DemoError: it failed, or took too long.
        """
        words = [str(argument) for argument in arguments]
        if aloud:
            self.say(" ".join(words))
        with trio.move_on_after(patience_s) as scope:
            done = await trio.run_process(
                _command(at or self._operator, words),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                env=self.environment,
                start_new_session=True,
            )
        if scope.cancelled_caught:
            raise DemoError(f"{' '.join(words)} did not end in {patience_s:.0f} s")
        if done.returncode != 0:
            output = (done.stderr + done.stdout).decode("utf-8", "replace").strip()
            raise DemoError(f"{' '.join(words)} ended with {done.returncode}:\n{_tail(output)}")
        return done.stdout.decode()

    async def start(
        self, name: str, at: Machine, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> Running:
        """Start a program that runs until it is ended; its output goes to ``NAME.log``."""
        words = [str(argument) for argument in arguments]
        log = self._logs / f"{name}.log"
        with log.open("ab") as output:
            process = await trio.lowlevel.open_process(
                _command(at, words),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**self.environment, **(environment or {})},
                start_new_session=True,
            )
            running = Running(name=name, process=process, log=log, log_offset=output.tell())
        self.running[name] = running
        self._nursery.start_soon(self._watch, running)
        return running

    async def wait_logged(self, running: Running, text: str, *, patience_s: float = 60.0) -> None:
        """Wait until a program has logged *text* since it was started."""
        with trio.move_on_after(patience_s):
            while text not in running.new_log():
                await trio.sleep(_POLL_S)
            return
        raise DemoError(f"{running.name} was not ready after {patience_s:.0f} s:\n{_tail(running.new_log())}")

    async def end(self, name: str) -> None:
        """End one program, and wait for it."""
        running = self.running.pop(name)
        running.expected_to_end = True
        with trio.move_on_after(_END_S):
            running.process.send_signal(signal.SIGTERM)
            await running.process.wait()
            return
        running.process.kill()
        await running.process.wait()

    async def end_all(self) -> None:
        """End every program."""
        async with trio.open_nursery() as nursery:
            for name in list(self.running):
                nursery.start_soon(self.end, name)

    def leave(self, directory: Path, others: Sequence[int]) -> Path:
        """Leave every program running, and write a script that ends them and removes *directory*.

        Args:
            others: The ids of further processes to end, which name *directory* on their command lines.
        """
        for running in self.running.values():
            running.expected_to_end = True
        pids = [*(running.process.pid for running in self.running.values()), *others]
        script = directory / "end"
        script.write_text(_END_SCRIPT.format(directory=directory, pids=" ".join(map(str, pids))))
        script.chmod(0o755)
        return script

    async def _watch(self, running: Running) -> None:
        code = await running.process.wait()
        if not running.expected_to_end:
            raise DemoError(f"{running.name} ended with {code}:\n{_tail(running.new_log())}")


@asynccontextmanager
async def open_programs(logs: Path, operator: Machine, home: Path, say: Say) -> AsyncIterator[Programs]:
    """Open the fleet's processes. Leaving the block ends them, however it is left, unless they were left."""
    logs.mkdir(parents=True, exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    async with trio.open_nursery() as nursery:
        programs = Programs(logs, operator, nursery, home, say)
        try:
            yield programs
        finally:
            if not all(running.expected_to_end for running in programs.running.values()):
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 2 * _END_S):
                    await programs.end_all()
            nursery.cancel_scope.cancel()


def _command(machine: Machine, words: Sequence[str]) -> list[str]:
    return [*machine.enter, str(_BIN / words[0]), *words[1:]]


def _tail(text: str) -> str:
    return "\n".join(_readable(line) for line in text.splitlines()[-12:])


def _readable(line: str) -> str:
    """A JSON log line as words."""
    try:
        values = json.loads(line)
    except ValueError:
        return f"    {line}"
    if not isinstance(values, dict):
        return f"    {line}"
    return "    " + " ".join(f"{k}={v}" for k, v in values.items() if k not in ("timestamp", "program"))
