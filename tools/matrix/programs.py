"""Commands and programs on hosts, and their logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from laboratory.network import Host

_BIN = Path(sys.executable).parent
_TOOLS = Path(__file__).parents[1]
_END_S = 10.0
_LOOK_EVERY_S = 0.05


class MatrixError(Exception):
    """The matrix cannot go on. The text says why."""


@dataclass(frozen=True, slots=True)
class Log:
    """What one program writes to its standard error: a JSON object a line."""

    path: Path

    def mark(self) -> int:
        """Return where it ends now."""
        return self.path.stat().st_size

    def events(self, name: str, mark: int = 0) -> Iterator[tuple[float, Mapping[str, Any]]]:
        """Yield what was logged under a name since it ended at *mark*, with the time in Unix seconds."""
        with self.path.open("rb") as file:
            file.seek(mark)
            lines = file.read().decode(errors="replace").split("\n")[:-1]
        for line in lines:
            if f'"{name}"' in line:
                values = json.loads(line)
                if values.get("event") == name:
                    yield datetime.fromisoformat(values["timestamp"]).timestamp(), values

    def tail(self) -> str:
        """Return its last lines."""
        return "\n".join(self.path.read_text(errors="replace").splitlines()[-12:])


class Programs:
    """Everything that was started, in one directory; a context manager that ends it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[tuple[str, subprocess.Popen[str]]] = []
        self._stack = ExitStack()
        home = directory / "operator"
        self.environment = {
            "PATH": f"{_BIN}:{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(_TOOLS),
            "P2PDIST_PROFILE": str(home / "profile.toml"),
            "P2PDIST_SIGN_REPOSITORY": str(home / "signing"),
        }

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, process in self._running:
            process.terminate()
        deadline = time.monotonic() + _END_S
        for _, process in self._running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        self._stack.close()

    def run(self, host: Host, *words: str | Path, patience_s: float = 120.0) -> str:
        """Run a command on a host to its end, and return what it printed.

        Raises:
            MatrixError: it failed, or took too long.
        """
        try:
            done = subprocess.run(
                self._command(host, *words),
                capture_output=True,
                text=True,
                check=False,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                timeout=patience_s,
            )
        except subprocess.TimeoutExpired:
            raise MatrixError(f"{_shown(words)} on {host.name} did not end in {patience_s:g} s") from None
        if done.returncode:
            said = (done.stderr + done.stdout).strip()[-800:]
            raise MatrixError(f"{_shown(words)} on {host.name} ended with {done.returncode}: {said}")
        return done.stdout

    def start(
        self, name: str, host: Host, *words: str | Path, environment: Mapping[str, str] | None = None
    ) -> Log:
        """Start a program that runs until the end; its log is ``NAME.log``."""
        log = self.directory / f"{name}.log"
        output = self._stack.enter_context(log.open("a"))
        self._popen(
            name,
            self._command(host, *words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**self.environment, **(environment or {})},
        )
        return Log(log)

    def open(self, name: str, host: Host, *words: str | Path) -> subprocess.Popen[str]:
        """Start a program that is spoken with by lines."""
        return self._popen(
            name,
            self._command(host, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=1,
            env=self.environment,
        )

    def kill(self, name: str) -> None:
        """End a program without a word; it may be started again."""
        (running,) = [each for each in self._running if each[0] == name]
        self._running.remove(running)
        _, process = running
        process.kill()
        process.wait()

    @contextmanager
    def speaking(self, host: Host, *words: str | Path) -> Iterator[tuple[IO[str], IO[str]]]:
        """Run a program that ends when its input does; the block has its input and its output."""
        command = self._command(host, *words)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.environment
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                yield process.stdin, process.stdout
            finally:
                process.stdin.close()

    def check(self) -> None:
        """Raise MatrixError if a program has ended by itself."""
        for name, process in self._running:
            if process.poll() is not None:
                log = Log(self.directory / f"{name}.log")
                said = log.tail() if log.path.exists() else ""
                raise MatrixError(f"{name} has ended with {process.returncode}\n{said}")

    def until(
        self,
        done: Callable[[], object],
        what: str,
        *,
        patience_s: float,
        every_s: float = _LOOK_EVERY_S,
    ) -> None:
        """Wait until *done*, which is asked every so often.

        Raises:
            MatrixError: time is up, or a program has ended by itself.
        """
        deadline = time.monotonic() + patience_s
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise MatrixError(f"{what}: not within {patience_s:g} s; the logs are in {self.directory}")
            time.sleep(every_s)

    def _popen(self, name: str, command: list[str], **options: Any) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            command, text=True, start_new_session=True, **options
        )
        self._running.append((name, process))
        return process

    @staticmethod
    def _command(host: Host, *words: str | Path) -> list[str]:
        program, *rest = map(str, words)
        return host.command(str(_BIN / program), *rest)


class Console:
    """The admin server's API, asked from beside it. Any thread may ask."""

    def __init__(self, programs: Programs, host: Host, url: str, *, token: Path, ca: Path) -> None:
        words = ("python", "-m", "matrix.console", url, token, ca)
        self._process = programs.open("console", host, *words)
        self._lock = threading.Lock()

    def get(self, path: str, /, **query: str) -> Any:
        """Ask for something. Raises MatrixError with what the server says against it."""
        return self._ask("GET", path, query, None)

    def post(self, path: str, /, **body: Any) -> Any:
        """Do something; raises as :meth:`get`."""
        return self._ask("POST", path, {}, body)

    def _ask(self, method: str, path: str, query: Mapping[str, str], body: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        question = json.dumps({"method": method, "path": path, "query": query, "body": body})
        with self._lock:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"{method} {path}: the console has ended"}
        if isinstance(answer, dict) and set(answer) == {"error"}:
            raise MatrixError(answer["error"])
        return answer


def _shown(words: tuple[str | Path, ...]) -> str:
    return " ".join(str(word) for word in words)
