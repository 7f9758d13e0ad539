"""Tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from p2pdist.cli.words import plain
from p2pdist.wire import api as wire

Format = Literal["table", "json"]

_OUTPUT_LINES = 20
_WIDE = 240  # for pipes: lines are not to be wrapped there

_STYLES = {
    "installed": "green",
    "online": "green",
    "valid": "green",
    "yes": "green",
    "failed": "red",
    "refused": "red",
    "revoked": "red",
    "grant expired": "red",
    "fetching": "cyan",
    "verifying": "cyan",
    "installing": "cyan",
    "offline": "yellow",
    "stopped": "yellow",
    "not enrolled": "yellow",
    "unheard": "yellow",
}


def console() -> Console:
    """Return a console on standard output; as wide as it takes when nobody looks."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, width=_WIDE, no_color=True)


def errors() -> Console:
    """Return a console on standard error, for progress and complaints."""
    return Console(stderr=True, highlight=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> Table:
    """Make a table. What stands in it is text, never markup; columns in *right* are numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold", expand=False)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        made.add_column(column, justify=justify, overflow="fold")
    for row in rows:
        made.add_row(*(Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row))
    return made


def say(text: str) -> None:
    """Print a sentence for people."""
    console().print(Text(plain(text)), soft_wrap=True)


def show(
    answer: msgspec.Struct,
    output: Format,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    empty: str = "nothing",
) -> None:
    """Print an answer of the server as a table, or as the JSON that it is."""
    if output == "json":
        show_json(answer)
    elif not rows:
        say(empty)
    else:
        console().print(table(columns, rows, right=right))


def show_facts(answer: msgspec.Struct, output: Format, facts: Sequence[tuple[str, str]]) -> None:
    """Print an answer as lines of a name and a value, or as JSON."""
    if output == "json":
        show_json(answer)
    else:
        print_facts(facts)


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print lines of a name and a value."""
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in facts:
        made.add_row(name, Text(plain(value), style=_STYLES.get(value, "")))
    console().print(made)


def say_output(title: str, state: wire.DeviceDeployment) -> None:
    """Print how a deployment's program ended on a device that does not have the release, if one ran.

    The whole output that the server has is in the JSON; here is its end.
    """
    if state.stage != "failed" or (state.exit_code is None and not state.output):
        return
    lines = state.output.rstrip().splitlines()
    ended = f", exit code {state.exit_code}" if state.exit_code is not None else ""
    more = f" (the last {_OUTPUT_LINES} of {len(lines)} lines)" if len(lines) > _OUTPUT_LINES else ""
    say(f"\n{title}{ended}{more}{':' if lines else '; no output'}")
    for line in lines[-_OUTPUT_LINES:]:
        say(f"    {line}")


def show_json(answer: msgspec.Struct) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n")
