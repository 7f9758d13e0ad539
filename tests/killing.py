"""For programs that are really killed when a test says so: a child for each request, and its end."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection


class Countdown:
    """Counts what is done, and ends this process with SIGKILL right before the operation of a number."""

    def __init__(self, kill_at: int) -> None:
        """*kill_at* counts from 1; 0 is never."""
        self.count = 0
        self._kill_at = kill_at

    def watch(self, events: Collection[str]) -> None:
        """Count these events of Python's audit hooks from now on."""

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event in events:
                self.count += 1
                if self.count == self._kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)


def in_child(work: Callable[[int], None]) -> tuple[bytes, int]:
    """Fork a child for some work; return what it wrote to the descriptor that it was given, and how it ended:
    its exit code, or the number of a signal below zero.
    """
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.close(readable)
        code = 1
        try:
            work(writable)
            code = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read()
    _, status = os.wait()
    return said, os.waitstatus_to_exitcode(status)
