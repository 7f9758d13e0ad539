"""Programs that are started as forks of a process that has imported them: most of a start is importing.

A program so started is a process of its own, with its own environment, files and signals, that runs all of
its ``main``; what it does not do once more is only what is the same each time. That the installed commands
start is what the tests of the programs, of the demonstration and of the laboratory show.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import trio

_ASKED_BYTES_MAX = 1 << 17
"""Of arguments and environment."""


class ForkedProcess:
    """A process that a fork server has started; like a :class:`trio.Process`. Made by :func:`open_forked`."""

    def __init__(self, pid: int, pidfd: int, stderr: int, ended: socket.socket) -> None:
        self.pid = pid
        self.stderr = trio.lowlevel.FdStream(stderr)
        self.returncode: int | None = None
        self._pidfd = pidfd
        self._ended = ended

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code, or the signal that ended it, negative."""
        while self.returncode is None:
            await trio.lowlevel.wait_readable(self._ended)
            if self.returncode is None:
                self.returncode = int(self._ended.recv(64))
                self._ended.close()
                os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServers:
    """A fork server for each module, started when it is first asked. One set for the tests of a process."""

    def __init__(self) -> None:
        self._servers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}

    def ask(self, module: str, asked: bytes, descriptors: Sequence[int]) -> None:
        """Send what to start, and the descriptors for the answers and for standard error."""
        if module not in self._servers:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                server = subprocess.Popen(
                    [sys.executable, "-P", __file__, module, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            self._servers[module] = server, ours
        socket.send_fds(self._servers[module][1], [asked], descriptors)

    def close(self) -> None:
        """End the servers."""
        for server, control in self._servers.values():
            control.close()
            server.wait()
        self._servers.clear()


FORK_SERVERS = ForkServers()


async def open_forked(
    module: str, arguments: Sequence[str | Path], environment: Mapping[str, str]
) -> ForkedProcess:
    """Start ``module.main()`` with these arguments; its standard error is a pipe, the others lead nowhere."""
    answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stderr, written = os.pipe()
    asked = json.dumps([[str(argument) for argument in arguments], dict(environment)]).encode()
    assert len(asked) <= _ASKED_BYTES_MAX
    try:
        FORK_SERVERS.ask(module, asked, [theirs.fileno(), written])
    finally:
        theirs.close()
        os.close(written)
    with trio.CancelScope(shield=True):  # from here on there is a process that somebody has to end
        await trio.lowlevel.wait_readable(answers)
    said, (pidfd,), _, _ = socket.recv_fds(answers, 64, 1)
    return ForkedProcess(int(said), pidfd, stderr, answers)


def _serve(control: socket.socket) -> tuple[list[str], dict[str, str], int] | None:
    """Fork for each request; return what it was in the fork, and None at the end.

    Only plain descriptors are kept: what is an object here would close itself in the fork, too.
    """
    answers: dict[int, tuple[int, int]] = {}
    with control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd in answers:
                    selector.unregister(key.fd)
                    _say_how_it_ended(key.fd, *answers.pop(key.fd))
                    continue
                asked, descriptors, _, _ = socket.recv_fds(control, _ASKED_BYTES_MAX, 2)
                if not asked:
                    return None
                answer, stderr = descriptors
                pid = os.fork()
                if pid == 0:
                    arguments, environment = json.loads(asked)
                    return arguments, environment, stderr
                os.close(stderr)
                pidfd = os.pidfd_open(pid)
                with socket.socket(fileno=os.dup(answer)) as channel:
                    socket.send_fds(channel, [str(pid).encode()], [pidfd])
                answers[pidfd] = pid, answer
                selector.register(pidfd, selectors.EVENT_READ)


def _say_how_it_ended(pidfd: int, pid: int, answer: int) -> None:
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):
        os.write(answer, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(answer)
    os.close(pidfd)


def _main() -> None:
    name, control = sys.argv[1:]
    module = importlib.import_module(name)
    gc.freeze()  # what is there already is looked through by no fork
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it ends with who started it
    asked = _serve(socket.socket(fileno=int(control)))
    if asked is None:
        return
    arguments, environment, stderr = asked
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor, place in ((nowhere, 0), (nowhere, 1), (stderr, 2)):
        os.dup2(descriptor, place)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    module.main()


if __name__ == "__main__":
    _main()
