"""What a program tells the supervisor that started it: systemd, or whatever else speaks sd_notify(3).

A supervisor sees that a process has ended, not that it hangs. With a watchdog (``WatchdogSec=``,
sd_watchdog_enabled(3)) it expects signs of life, and ends a process that gives none. The kernel then
resets its connections, and whoever is at their other ends notices at once. The signs are given between the
steps of the program's own tasks: while its event loop stands still there are none, and when there are
thousands of steps to be done until a task has its turn again, it is alive all the same.
"""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import trio

from p2pdist.errors import UsageError
from p2pdist.logs import get_logger

_log = get_logger()

_SIGNS = 8  # in the time for one, so that one step may take seven eighths of it: it works, slowly


def notify_ready(status: str) -> None:
    """Tell the supervisor that the service does its work, and in *status* which, for people."""
    if not _notify("READY=1", f"STATUS={status}") and os.environ.get("NOTIFY_SOCKET"):
        _log.warning("supervisor.not_notified", socket=os.environ["NOTIFY_SOCKET"])


def notify_stopping() -> None:
    """Tell the supervisor that the service has begun to end."""
    _notify("STOPPING=1")


def watchdog_s() -> float | None:
    """Return within how many seconds the supervisor expects each sign of life; None if it expects none.

    Raises:
        UsageError: what it has put into the environment makes no sense.
    """
    text = os.environ.get("WATCHDOG_USEC", "")
    if not text or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,19}", text):
        raise UsageError(
            f"WATCHDOG_USEC is {text[:40]!r}", hint="it is a number of microseconds; systemd sets it"
        )
    return int(text) / 1_000_000


async def show_life() -> None:
    """Give signs of life as often as the supervisor expects them, until cancelled.

    Raises:
        UsageError: see :func:`watchdog_s`.
    """
    seconds = watchdog_s()
    if seconds is None:
        return
    steps = _Steps(seconds / _SIGNS)
    trio.lowlevel.add_instrument(steps)
    try:
        while True:
            await trio.sleep(seconds / _SIGNS)  # a step for when nobody else takes one
    finally:
        trio.lowlevel.remove_instrument(steps)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Have the supervisor wait so long for signs of life during the block: a step that is known to be long.

    Raises:
        UsageError: see :func:`watchdog_s`.
    """
    usual = watchdog_s()
    if usual is None or usual >= seconds:
        yield
        return
    _notify(f"WATCHDOG_USEC={round(seconds * 1_000_000)}")
    try:
        yield
    finally:
        _notify(f"WATCHDOG_USEC={round(usual * 1_000_000)}", "WATCHDOG=1")


class _Steps(trio.abc.Instrument):
    """Gives a sign of life before a task's next step, if one is due."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due = -math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on. Cheap: it comes before each step of all tasks."""
        now = trio.current_time()
        if now >= self._due:
            self._due = now + self._every_s
            _notify("WATCHDOG=1")


def _notify(*assignments: str) -> bool:
    """Send them in one datagram; return whether there is a supervisor, and it took them.

    Never waits and never raises: no service fails for want of a listener.
    """
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True
