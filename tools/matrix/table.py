"""The matrix as a table for people, as JSON for programs, and as Markdown for the documentation."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from laboratory.kinds import KINDS
from laboratory.theory import Traffic
from rich.table import Table

from matrix.pairs import NEIGHBOUR, Outcome


def as_json(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a list of objects."""
    return json.dumps([_object(outcome) for outcome in outcomes], indent=1)


def _object(outcome: Outcome) -> dict[str, object]:
    pair, found = outcome.pair, outcome.found
    return {
        "left": pair.left,
        "right": pair.right,
        "kind": str(pair.traffic),
        "expected": pair.expected,
        "path": found.path,
        "seconds": _rounded(found.seconds),
        "ok": outcome.ok,
        "whole_seconds": _rounded(found.whole_s),
        "gateway_alone_seconds": _rounded(found.alone_s),
        "objections": outcome.objections,
        "run_again": bool(outcome.before),
    }


def as_table(outcomes: Iterable[Outcome]) -> Table:
    """Return the outcomes as a table for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("left", "right", "for", "expected", "path"):
        table.add_column(heading, no_wrap=True)
    for heading in ("seconds", "whole", "alone"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for outcome in outcomes:
        pair, found = outcome.pair, outcome.found
        times = (found.seconds, found.whole_s, found.alone_s)
        table.add_row(
            pair.left,
            pair.right,
            str(pair.traffic),
            pair.expected,
            found.path,
            *(_shown(seconds) for seconds in times),
            "; ".join([*outcome.objections, *_before(outcome)]),
        )
    return table


def as_markdown(outcomes: Sequence[Outcome], took_s: float) -> str:
    """Return the outcomes as a table for the documentation, with the machine and the day."""
    good = sum(outcome.ok for outcome in outcomes)
    kernel, python = platform.release().partition("-")[0], platform.python_version()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Linux {kernel}, Python {python}"
    measured = f"{datetime.now(UTC):%Y-%m-%d} on {machine}, in {took_s / 60:.0f} minutes"
    parts = [f"Measured {measured}: {good} of {len(outcomes)} as they must be."]
    for traffic in Traffic:
        of_it = [outcome for outcome in outcomes if outcome.pair.traffic is traffic]
        if of_it:
            parts.append(f"### {traffic.capitalize()}\n\n{_grid(of_it)}")
    again = [f"- {outcome.pair}: {said}" for outcome in outcomes for said in _before(outcome)]
    if again:
        parts.append("### Run again\n\n" + "\n".join(again))
    failed = [outcome for outcome in outcomes if not outcome.ok]
    if failed:
        lines = (f"- {outcome.pair}: {'; '.join(outcome.objections)}" for outcome in failed)
        parts.append("### Not as they must be\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _grid(outcomes: Sequence[Outcome]) -> str:
    """A row for each left, a column for each right; the half that would say the same again is empty."""
    found = {(outcome.pair.left, outcome.pair.right): outcome for outcome in outcomes}
    rights = [kind for kind in (*KINDS, NEIGHBOUR) if any(right == kind for _, right in found)]
    lefts = [kind for kind in KINDS if any(left == kind for left, _ in found)]
    rows = [[f"**{left}**", *(_cell(found.get((left, right))) for right in rights)] for left in lefts]
    lines = [["", *rights], ["---"] * (len(rights) + 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(outcome: Outcome | None) -> str:
    if outcome is None:
        return ""
    return f"{outcome.found.path} {_shown(outcome.found.seconds)}" + ("" if outcome.ok else " **✗**")


def _before(outcome: Outcome) -> list[str]:
    return [f"run again, {outcome.before.path} at first"] if outcome.before else []


def _shown(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
