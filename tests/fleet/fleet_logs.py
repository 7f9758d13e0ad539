"""What nodes log, kept for tests to look at: waited for, and shown when a test fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

LINES_MAX = 20_000


class LogBook:
    """Log lines, oldest first. Each has ``event`` and, if a node of the fleet wrote it, ``who``."""

    def __init__(self) -> None:
        self.lines: deque[Mapping[str, Any]] = deque(maxlen=LINES_MAX)

    def find(self, event: str, *, who: str | None = None, **fields: Any) -> list[Mapping[str, Any]]:
        """Return the lines of an event, of one node if *who* is given, in which *fields* stand."""
        return [
            line
            for line in self.lines
            if line["event"] == event
            and (who is None or line.get("who") == who)
            and all(line.get(name) == value for name, value in fields.items())
        ]

    def tail(self, count: int = 60) -> str:
        """Return the newest lines, for people."""
        return "\n".join(map(_text, list(self.lines)[-count:]))


def record_into(book: LogBook) -> None:
    """Let this process's log go into *book* instead of standard error."""

    def keep(_logger: object, method: str, event: structlog.typing.EventDict) -> Any:
        book.lines.append(dict(event, level=method, at=time.monotonic()))
        raise structlog.DropEvent

    structlog.contextvars.clear_contextvars()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        cache_logger_on_first_use=False,
    )


def _text(line: Mapping[str, Any]) -> str:
    others = " ".join(f"{k}={v}" for k, v in line.items() if k not in ("event", "who", "level", "at"))
    return f"{line['at'] % 1_000:7.3f} {line.get('who', '-')}: {line['event']} {others}"
