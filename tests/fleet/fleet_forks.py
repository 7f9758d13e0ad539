"""Programs that are started as forks of a process that has imported them: most of a start is importing.

A program so started is a process of its own, with its own environment, files and signals, that runs all of
its ``main``; what it does not do once more is only what is the same each time. That the installed commands
start is what the tests of the programs, of the demonstration and of the laboratory show.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path

import trio

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["p2pdist.server.main", "p2pdist.server.running", "p2pdist.seed.seed", "p2pdist.agent.agent"]
)


class ForkedProcess:
    """A process that was forked; like a :class:`trio.Process`. Made by :func:`open_forked`."""

    def __init__(self, process: ForkServerProcess, stderr: int) -> None:
        self.stderr = trio.lowlevel.FdStream(stderr)
        self._process = process

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the signal that ended it, negative; None while it runs."""
        return self._process.exitcode

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        while (code := self.returncode) is None:
            await trio.lowlevel.wait_readable(self._process.sentinel)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


async def open_forked(
    module: str, arguments: Sequence[str | Path], environment: Mapping[str, str]
) -> ForkedProcess:
    """Start ``module.main()`` with these arguments; its standard error is a pipe, the others lead nowhere."""
    stderr, written = os.pipe()

    def start() -> ForkServerProcess:
        called = (module, [str(word) for word in arguments], dict(environment), _Passed(written))
        process = _FORKS.Process(target=_run, args=called)
        process.start()
        return process

    try:
        process = await trio.to_thread.run_sync(start)
    except BaseException:
        os.close(stderr)
        raise
    finally:
        os.close(written)
    return ForkedProcess(process, stderr)


class _Passed:
    """A descriptor for a process that is started; pickled only then."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[object, ...]:
        return _received, (DupFd(self.descriptor),)


def _received(duplicate: DupFd) -> int:  # type: ignore[valid-type]  # a function that makes one
    return duplicate.detach()


def _run(module: str, arguments: list[str], environment: dict[str, str], stderr: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor, place in ((nowhere, 0), (nowhere, 1), (stderr, 2)):
        os.dup2(descriptor, place)
    os.close(nowhere)
    os.close(stderr)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    importlib.import_module(module).main()
