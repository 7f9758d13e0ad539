"""Network namespaces that live as long as their builder, and no longer.

Each namespace is held by a *keeper*, a ``cat`` on a pipe whose other end only the builder has: when the
builder is gone, by whatever signal, the keepers end and the kernel takes their namespaces, links and rules.
Programs that run in a namespace would hold it too, so a *warden* in a session of its own, on such a pipe as
well, then ends every process whose network is one of the builder's. Leaving in order is the same, and waits
for the warden.

Nothing has a name in the file system. Whoever may not make namespaces on this machine makes them in a user
namespace of their own, which the first keeper holds.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))
"""Where commands are looked for: a plain user's PATH often has no place for ip and nft."""

_TOOLS = ("ip", "tc", "nft", "conntrack", "nsenter", "unshare", "cat", "sh")
_WARDEN = Path(__file__).with_name("warden.py")
_WARDEN_S_MAX = 20.0


class LaboratoryError(Exception):
    """A network cannot be built here; says what failed, and what to do where that is known."""


def run(*command: str, text_in: str = "") -> str:
    """Run a command and return what it printed; raise LaboratoryError with what it said when it fails."""
    environment = {**os.environ, "PATH": PATH}
    done = subprocess.run(
        command, input=text_in, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LaboratoryError(f"{' '.join(command)}: {said}")
    return done.stdout


@functools.cache
def why_not() -> str | None:
    """Say why this machine and user cannot have a laboratory, or None when they can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (packages: iproute2 nftables conntrack util-linux)"
    try:
        run("unshare", *_user_namespace(), "--net", "nft", "list", "ruleset")
    except LaboratoryError as error:
        return f"neither root nor user namespaces with nftables here ({error})"
    return None


@functools.cache
def _user_namespace() -> tuple[str, ...]:
    """What unshare needs besides, to make a network namespace: nothing for one who may."""
    try:
        run("unshare", "--net", "true")
    except LaboratoryError:
        return ("--user", "--map-root-user")
    return ()


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace. Its processes see its devices, addresses, routes and rules, and share all
    else."""

    name: str
    pid: int
    """Its keeper."""
    _enter: tuple[str, ...]

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs *command* in here, as this user (without root: as root in
        here)."""
        return [*self._enter, f"--target={self.pid}", "--net", "--", *command]

    def run(self, *command: str, text_in: str = "") -> str:
        """Run *command* in here, and return what it printed; LaboratoryError says what it said."""
        return run(*self.command(*command), text_in=text_in)

    def ip(self, *lines: str) -> None:
        """Give ``ip`` these lines, one command each, without the word ip."""
        self.run("ip", "-batch", "-", text_in="\n".join(lines) + "\n")

    def rules(self, ruleset: str) -> None:
        """Give nftables this, which it takes as a whole or not at all."""
        self.run("nft", "-f", "-", text_in=ruleset)

    def settings(self, values: Mapping[str, int | str]) -> None:
        """Set kernel parameters by their paths below ``/proc/sys/net``."""
        words = [word for path, value in values.items() for word in (f"/proc/sys/net/{path}", str(value))]
        self.run("sh", "-ec", 'while [ $# != 0 ]; do echo "$2" >"$1"; shift 2; done', "sh", *words)


class Namespaces:
    """The namespaces of one builder; a context manager."""

    def __init__(self) -> None:
        self._programs: list[subprocess.Popen[str]] = []
        """The keepers, the first of which may hold the user namespace, and others."""
        self._lifeline: tuple[int, int] | None = None
        self._warden: subprocess.Popen[str] | None = None
        self._outlived = False

    def __enter__(self) -> Namespaces:
        reason = why_not()
        if reason is not None:
            raise LaboratoryError(reason)
        self._lifeline = os.pipe()
        self._warden = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_WARDEN)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # it may outlive whoever reads what this program says
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._warden is not None and self._lifeline is not None
        for end in self._lifeline:
            os.close(end)
        if self._outlived:
            _writing(self._warden).close()
            return
        self._warden.communicate(timeout=_WARDEN_S_MAX)
        for program in self._programs:
            program.wait()
            _reading(program).close()

    def outlive(self, label: str) -> int:
        """Let everything live on after the builder, until somebody ends the process whose id this returns.

        Args:
            label: A word for its command line, by which it is known.
        """
        assert self._warden is not None and self._lifeline is not None
        heir = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import signal; signal.pause()", label],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(self._lifeline[1], _writing(self._warden).fileno()),
            start_new_session=True,
        )
        self._outlived = True
        return heir.pid

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start a program that prints ``ready`` and then serves until this ends; wait for that line."""
        assert self._lifeline is not None
        program = subprocess.Popen(
            command,
            stdin=self._lifeline[0],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": PATH},
            start_new_session=True,
        )
        self._programs.append(program)
        if _reading(program).readline() != "ready\n":
            raise LaboratoryError(f"{' '.join(command)} failed; its message stands above")
        return program

    def create(self, name: str) -> Namespace:
        """Make a namespace, with its loopback device up."""
        assert self._warden is not None
        enter: tuple[str, ...] = ("nsenter",)
        make: tuple[str, ...] = ("unshare", *_user_namespace(), "--net")
        if _user_namespace():
            if self._programs:
                first = f"--target={self._programs[0].pid}"
                user = ("nsenter", first, "--user", "--preserve-credentials", "--")
                make = (*user, "unshare", "--net")
            enter = ("nsenter", "--user", "--preserve-credentials")
        keeper = self.start([*make, "sh", "-c", "echo ready; exec cat >/dev/null 2>&1"])
        inode = os.stat(f"/proc/{keeper.pid}/ns/net").st_ino  # noqa: PTH116, a path would be followed too
        _writing(self._warden).write(f"{inode}\n")
        namespace = Namespace(name, keeper.pid, enter)
        namespace.ip("link set lo up")
        return namespace


def _reading(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def _writing(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdin is not None
    return process.stdin
