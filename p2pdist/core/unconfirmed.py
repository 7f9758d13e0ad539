"""Reports and refusals that the admin server has not confirmed: remembered, and repeated until it has.

A report of a deployment replaces an older one of the same deployment; nothing else makes a report go
away but its confirmation. Refusals are capped: beyond the cap new ones are dropped, because whoever
makes us refuse could otherwise fill our disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from p2pdist import limits
from p2pdist.wire import codec
from p2pdist.wire.messages import Refusal, Report

_REPEAT_FIRST_S = 15.0
_REPEAT_MAX_S = 600.0
_BATCH = 64  # messages at once; a link's queue holds more
_BATCH_GAP_S = 1.0
_REPORT, _REFUSAL = "report/", "refusal/"


class _Entry:
    __slots__ = ("due_s", "message", "tries")

    def __init__(self, message: Report | Refusal, due_s: float) -> None:
        self.message = message
        self.due_s = due_s
        self.tries = 0


class Unconfirmed:
    """The messages, in the order in which they were made.

    Args:
        records: What an earlier run wrote, by :meth:`take_changes`' keys.
    """

    def __init__(self, records: Mapping[str, bytes]) -> None:
        self._entries: dict[str, _Entry] = {}
        self._changes: dict[str, bytes | None] = {}
        self._output_bytes = 0
        for key, data in sorted(records.items()):
            if key.startswith((_REPORT, _REFUSAL)):
                kind = Report if key.startswith(_REPORT) else Refusal
                message: Report | Refusal = codec.decode(data, kind)
                self._entries[message.id] = _Entry(message, 0.0)
                self._output_bytes += _output_bytes(message)

    def add_report(self, report: Report, *, now_s: float) -> None:
        """Take in a report; the deployment's older one is forgotten. ``now_s`` is monotonic."""
        for other in list(self._entries.values()):
            if isinstance(other.message, Report) and other.message.deployment == report.deployment:
                self._drop(other.message.id)
        if self._output_bytes + len(report.output) > limits.REPORTS_OUTPUT_BYTES_MAX:
            report = msgspec.structs.replace(report, output=report.output[-limits.KIB :])
        self._add(report, now_s)

    def add_refusal(self, refusal: Refusal, *, now_s: float) -> bool:
        """Take in a refusal, unless the same one waits already or too many do. Returns whether it was."""
        waiting = [e.message for e in self._entries.values() if isinstance(e.message, Refusal)]
        same = any(
            (refusal.kind, refusal.subject, refusal.reason) == (w.kind, w.subject, w.reason) for w in waiting
        )
        if same or len(waiting) >= limits.REFUSALS_UNCONFIRMED_MAX:
            return False
        self._add(refusal, now_s)
        return True

    def confirm(self, ids: Iterable[str]) -> None:
        """Forget what the admin server has on its disk. Unknown ids are fine."""
        for identifier in ids:
            if identifier in self._entries:
                self._drop(identifier)

    def resend(self, *, now_s: float) -> None:
        """Everything is due: there is a new link."""
        for entry in self._entries.values():
            entry.due_s, entry.tries = now_s, 0

    def take_due(self, *, now_s: float) -> list[Report | Refusal]:
        """Return what is to be sent now; each comes again later, less and less often."""
        due = [entry for entry in self._entries.values() if entry.due_s <= now_s]
        for entry in due[:_BATCH]:
            entry.due_s = now_s + min(_REPEAT_MAX_S, _REPEAT_FIRST_S * 2.0 ** min(entry.tries, 16))
            entry.tries += 1
        for entry in due[_BATCH:]:
            entry.due_s = now_s + _BATCH_GAP_S
        return [entry.message for entry in due[:_BATCH]]

    def next_deadline(self) -> float | None:
        """When :meth:`take_due` has something next; monotonic."""
        return min((entry.due_s for entry in self._entries.values()), default=None)

    def take_changes(self) -> dict[str, bytes | None]:
        """Return what changed since the last call: key to content, None for removed."""
        changes, self._changes = self._changes, {}
        return changes

    def messages(self) -> tuple[Report | Refusal, ...]:
        """Everything that is not confirmed."""
        return tuple(entry.message for entry in self._entries.values())

    def _add(self, message: Report | Refusal, now_s: float) -> None:
        self._entries[message.id] = _Entry(message, now_s)
        self._output_bytes += _output_bytes(message)
        self._changes[_key(message)] = codec.encode(message)

    def _drop(self, identifier: str) -> None:
        message = self._entries.pop(identifier).message
        self._output_bytes -= _output_bytes(message)
        self._changes[_key(message)] = None


def _key(message: Report | Refusal) -> str:
    return (_REPORT if isinstance(message, Report) else _REFUSAL) + message.id


def _output_bytes(message: Report | Refusal) -> int:
    return len(message.output) if isinstance(message, Report) else 0
