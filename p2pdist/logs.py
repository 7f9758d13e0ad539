"""Logging: structlog to standard error, for a person or as JSON lines for a machine.

A program calls :func:`configure_logging` once; every module asks :func:`get_logger` for its logger and
logs what happened with keywords: ``log.info("artifact finished", target=target, seconds=3.2)``.
Until then warnings and errors are shown. Only this module imports structlog. A value under a name that
means a secret never reaches the output, and output that cannot be written never stops a program.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Generator, Mapping
from types import ModuleType
from typing import Any, Final, cast

from p2pdist import limits
from p2pdist.errors import UsageError
from p2pdist.omitted import omitted

# 6 MB: for coloured tracebacks, for asynchronous loggers, and for loggers that are sent to another process.
_PICKLE = ModuleType("pickle")
_PICKLE.PicklingError = Exception  # type: ignore[attr-defined]
with omitted({"rich": None, "asyncio": ModuleType("asyncio"), "pickle": _PICKLE}):
    import structlog

Logger = structlog.typing.FilteringBoundLogger

LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

REDACTED = "[redacted]"

_SECRET = re.compile(
    r"(^|[_-])(tokens?|secrets?|passwords?|passphrases?|credentials?|authorization|cookies?"
    r"|private_(key|pem)|key_pem|signing_key|database(_url)?)$",
    re.IGNORECASE,
)
_URL_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+@")
_DEPTH_MAX = 6


def configure_logging(program: str, level: str = "info", json: bool = False) -> None:
    """Send this process's log to standard error.

    Args:
        program: Bound to every line as ``program``.
        level: The least serious level that is written; one of :data:`LEVELS`.
        json: One JSON object a line instead of text for people.

    Raises:
        UsageError: there is no such level.
    """
    if level not in LEVELS:
        raise UsageError(f"{level!r} is not a log level", hint=f"use one of {', '.join(LEVELS)}")
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(program=program)
    _configure(LEVELS[level], json=json)


def get_logger(room: str = "", **bound: Any) -> Logger:
    """Return a logger; *room* and the other keywords stand on each of its lines."""
    return cast(Logger, structlog.get_logger(**({"room": room} if room else {}), **bound))


def redact(value: Any, *, depth: int = 0) -> Any:
    """Return *value* without what stands under secret names, and without passwords in URLs."""
    if depth > _DEPTH_MAX:
        return "…"
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _SECRET.search(str(key)) else redact(inner, depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(inner, depth=depth + 1) for inner in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return _URL_PASSWORD.sub(rf"\1:{REDACTED}@", value) if isinstance(value, str) else value


class LogTail:
    """The last lines of this process's log, in bounded memory, for whoever asks for them."""

    def __init__(self, lines_max: int, line_chars_max: int) -> None:
        self._lines: deque[str] = deque(maxlen=lines_max)
        self._line_chars_max = line_chars_max
        self._listeners: set[Callable[[str], object]] = set()

    def put(self, line: str) -> None:
        """Take in a line, and hand it to the listeners. Of one that is very long, the beginning counts."""
        line = line[: self._line_chars_max]
        self._lines.append(line)
        for listener in tuple(self._listeners):
            listener(line)

    def last(self, count: int) -> list[str]:
        """Return the last *count* lines, or as many as are kept."""
        return list(self._lines)[-count:] if count else []

    @contextlib.contextmanager
    def listening(self, listener: Callable[[str], object]) -> Generator[None, None, None]:
        """Call *listener* with each line while the block runs. It does not block, and does not log."""
        self._listeners.add(listener)
        try:
            yield
        finally:
            self._listeners.discard(listener)


TAIL: Final = LogTail(limits.LOG_TAIL_LINES, limits.LOG_TAIL_LINE_CHARS)
"""That of this process: what it writes to standard error."""


class _StandardError:
    """Writes lines to whatever standard error is at that moment."""

    def msg(self, line: str) -> None:
        TAIL.put(line)
        # A full disk or a reader that has gone must not end a node that works.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    log = debug = info = warning = warn = error = critical = fatal = exception = failure = msg


def _redact_event(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return cast(structlog.typing.EventDict, redact(event))


def _configure(threshold: int, *, json: bool) -> None:
    render: list[structlog.typing.Processor]
    if json:
        render = [
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False, default=str),
        ]
    else:
        render = [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr is not None and sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
                pad_event_to=0,
            ),
        ]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )


_configure(logging.WARNING, json=False)
