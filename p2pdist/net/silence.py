"""How long a neighbour may be silent, at two paces. Pure: the driver says what time it is.

While nobody waits for the neighbour, it is asked for a sign of life now and then, and given up after
most of a minute: quiet on the endpoint. While somebody waits and nothing comes, or where the neighbour
says that it has few who ask it, it is asked within seconds, twice, and then given up. Twice, because a
process that was stopped itself looks at the clock before it finds the answer that lay waiting. Any byte
from the neighbour is a sign of life. On a slow line a question queues behind what was sent before; as
long as that moves, the answer is not late.

Times are monotonic seconds.
"""

from __future__ import annotations

import math
from typing import Final, Literal

from p2pdist import limits

_QUESTIONS: Final = 2  # without a sign of life, before who is waited for is given up


class Silence:
    """The silence of one neighbour.

    Args:
        keepalive_s: After how much silence it is asked while nobody waits for it.
        now: When the link began.
    """

    __slots__ = (
        "_arrived_by",
        "_asked_at",
        "_awaited_since",
        "_heard_at",
        "_keepalive_s",
        "_pace_s",
        "_questions",
    )

    def __init__(self, *, keepalive_s: float, now: float) -> None:
        self._keepalive_s = keepalive_s
        self._pace_s = math.inf
        self._heard_at = now
        self._asked_at = -math.inf
        self._questions = 0  # asked while somebody waited, since it was heard
        self._awaited_since = math.inf
        self._arrived_by = now

    def lasts_s(self, now: float) -> float:
        """Return how long nothing has been heard."""
        return now - self._heard_at

    def heard(self, now: float) -> None:
        """Something came from the neighbour."""
        self._heard_at = now
        self._questions = 0

    @property
    def asked(self) -> bool:
        """Whether somebody waits for the answer to a question."""
        return self._questions > 0

    def arriving(self, now: float) -> None:
        """What was sent before is still arriving: the question has not."""
        self._arrived_by = now

    def paced(self, seconds: float) -> None:
        """The neighbour has few who ask it: ask after so many seconds, and give it up within seconds."""
        self._pace_s = max(seconds, limits.LINK_AWAITED_S)

    def awaited(self, now: float) -> None:
        """Somebody waits for the neighbour from now on."""
        self._awaited_since = min(self._awaited_since, now)

    def not_awaited(self) -> None:
        """Nobody waits for it any more. What it was asked still counts if somebody does again."""
        self._awaited_since = math.inf

    def next_look(self) -> float:
        """Return when :meth:`look` has something to say next."""
        idle = max(self._heard_at, self._asked_at) + self._keepalive_s
        return min(idle, self._heard_at + limits.LINK_DEAD_AFTER_S, self._urgent_at())

    def look(self, now: float) -> Literal["fine", "ask", "gone"]:
        """Say what to do; after ``ask``, the neighbour counts as asked."""
        urgent = now >= self._urgent_at()
        if now >= self._heard_at + limits.LINK_DEAD_AFTER_S or (urgent and self._questions >= _QUESTIONS):
            return "gone"
        if now < self.next_look():
            return "fine"
        self._asked_at = now
        self._questions += urgent
        return "ask"

    def _urgent_at(self) -> float:
        if self._awaited_since == self._pace_s == math.inf:
            return math.inf
        if self._questions:
            return max(self._asked_at, self._arrived_by) + limits.LINK_ANSWER_S
        awaited = max(self._awaited_since, self._heard_at) + limits.LINK_AWAITED_S
        return min(awaited, self._heard_at + self._pace_s)
