"""When to send which device a wake: at once, again after growing pauses until it comes, and not all at once.

A woken device links, which costs whoever carries it some milliseconds: so many are woken in a second, and
the others wait their turn; nobody polls. A device that does not come is given up after minutes; it looks by
itself now and then. Pure; times are monotonic seconds.

Shape: carry out what :meth:`Waking.poll_command` gives until it gives None, after every event and when
:meth:`Waking.next_deadline` has passed (:meth:`Waking.handle_tick`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from p2pdist import limits
from p2pdist.core.buckets import Bucket
from p2pdist.core.deadlines import Deadlines
from p2pdist.errors import Unavailable
from p2pdist.ids import NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class SendWake:
    """Send *node* its wake; *attempt* counts from 1."""

    node: NodeId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """*node* has not come, whatever was sent."""

    node: NodeId


Command: TypeAlias = SendWake | GiveUp


class Waking:
    """See the module.

    Args:
        now: The time.
        pauses_s: After the first attempt, after the second, and so on; after the last it is given up.
        per_s: How many wakes are sent in a second in the long run, and twice as many at once.
    """

    def __init__(
        self,
        now: float,
        *,
        pauses_s: Sequence[float] = limits.WAKE_PAUSES_S,
        per_s: float = limits.WAKES_PER_S,
    ) -> None:
        self._pauses_s = tuple(pauses_s)
        self._bucket = Bucket(per_s=per_s, burst=2 * per_s, now=now)
        self._wait_s = 1 / per_s
        self._attempts: dict[NodeId, int] = {}
        self._due: Deadlines[NodeId] = Deadlines()
        self._row: deque[NodeId] = deque()
        self._waits_until: float | None = None
        self._commands: deque[Command] = deque()

    @property
    def nodes(self) -> frozenset[NodeId]:
        """Who is being woken."""
        return frozenset(self._attempts)

    def handle_wanted(self, node: NodeId, now: float) -> None:
        """A device is to come: wake it from the beginning, also if that is under way.

        Raises:
            Unavailable: too many are being woken.
        """
        if node not in self._attempts and len(self._attempts) >= limits.WAKING_MAX:
            raise Unavailable(
                f"{len(self._attempts)} devices are being woken", hint="it looks by itself now and then"
            )
        self._attempts[node] = 0
        self._due.set(node, now)
        self.handle_tick(now)

    def handle_answered(self, node: NodeId) -> None:
        """A device has come, by itself or because it was woken; or nothing is wanted of it any more."""
        self._attempts.pop(node, None)
        self._due.set(node, None)

    def handle_tick(self, now: float) -> None:
        """Time has passed."""
        self._row.extend(self._due.take(now))
        self._waits_until = None
        while self._row:
            node = self._row[0]
            if node not in self._attempts:
                self._row.popleft()
            elif self._attempts[node] == len(self._pauses_s):
                self._row.popleft()
                del self._attempts[node]
                self._commands.append(GiveUp(node=node))
            elif self._bucket.take(now):
                self._row.popleft()
                self._send(node, now)
            else:
                self._waits_until = now + self._wait_s
                return

    def poll_command(self) -> Command | None:
        """Return what is to be done next."""
        return self._commands.popleft() if self._commands else None

    def next_deadline(self) -> float | None:
        """Return when :meth:`handle_tick` is due; None for never."""
        times = [at for at in (self._waits_until, self._due.first()) if at is not None]
        return min(times, default=None)

    def _send(self, node: NodeId, now: float) -> None:
        attempt = self._attempts[node] = self._attempts[node] + 1
        self._commands.append(SendWake(node=node, attempt=attempt))
        self._due.set(node, now + self._pauses_s[attempt - 1])
