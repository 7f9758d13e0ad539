"""When a device that rests between its tasks has a link, and when it has none.

It comes when it is woken, and by itself now and then; with a link and nothing to do for a while it goes to
rest. One that reaches nobody rests again after some minutes, whatever it still has to do. A machine that was
woken from its sleep for the task alone is sent back when the task is done; one that had not been resting when
the wake came is in use, and stays awake. Pure; times are monotonic seconds.

Shape: carry out what :meth:`Resting.poll_command` gives until it gives None, after every event and when
:meth:`Resting.next_deadline` has passed (:meth:`Resting.handle_look`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias

from p2pdist import limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """Dial; *woken* says whether somebody else wants it."""

    woken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Say goodbye and end the link; with *sleep* also send the machine back to sleep."""

    sleep: bool


Command: TypeAlias = Rise | Rest


class Resting:
    """See the module. A device that begins is up.

    Args:
        now: The time.
        after_s: How long it has a link and nothing to do before it rests.
        look_every_s: How long it rests at most.
    """

    def __init__(self, now: float, *, after_s: float, look_every_s: float) -> None:
        self._after_s = after_s
        self._look_every_s = look_every_s
        self._resting = False
        self._look_at = 0.0
        self._idle_since: float | None = None
        self._alone_since: float | None = now
        self._from_sleep = False
        self._commands: deque[Command] = deque()

    @property
    def resting(self) -> bool:
        """Whether it rests now."""
        return self._resting

    def handle_woken(self, now: float, *, from_sleep: bool) -> None:
        """A wake has come; *from_sleep* as in :class:`~p2pdist.wire.wakes.Wake`."""
        if self._resting:
            self._from_sleep = from_sleep
            self._rise(now, woken=True)
        else:
            self._idle_since = None  # what it came for may be on its way over the link

    def handle_look(self, now: float, *, linked: bool, busy: bool) -> None:
        """Look at how it is.

        Args:
            now: The time.
            linked: Whether it has a link.
            busy: Whether it has something to do, or waits for an answer.
        """
        if self._resting:
            if now >= self._look_at:
                self._rise(now, woken=False)
            return
        self._idle_since = _since(self._idle_since, now) if linked and not busy else None
        self._alone_since = _since(self._alone_since, now) if not linked else None
        idle_s = now - _since(self._idle_since, now)
        alone_s = now - _since(self._alone_since, now)
        if idle_s >= self._after_s or alone_s >= limits.REST_AWAKE_S_MAX:
            self._resting = True
            self._look_at = now + self._look_every_s
            self._commands.append(Rest(sleep=self._from_sleep))
            self._from_sleep = False

    def poll_command(self) -> Command | None:
        """Return what is to be done next."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self, now: float) -> float:
        """Return when :meth:`handle_look` is due."""
        return self._look_at if self._resting else now + limits.REST_CHECK_S

    def _rise(self, now: float, *, woken: bool) -> None:
        self._resting = False
        self._idle_since, self._alone_since = None, now
        self._commands.append(Rise(woken=woken))


def _since(since: float | None, now: float) -> float:
    return since if since is not None else now
